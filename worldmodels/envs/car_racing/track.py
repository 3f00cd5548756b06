"""CarRacing's random track, walked in kernels with Gymnasium's operations in their order.

Every float is the same as in `CarRacing._create_track`: the tiles are part of the physics, and so
of every reward.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium.envs.box2d import car_racing as stock
from numpy.typing import NDArray

from worldmodels.envs.car_racing.ground import kernel

CHECKPOINTS, MAX_STEPS = 12, 2500
"""A walk that has not come round by so many steps is given up."""
START_ALPHA = 2 * math.pi * (-0.5) / CHECKPOINTS


def draw_lap(rng: np.random.Generator) -> NDArray[np.float64] | None:
    """Draw a lap, (N, 4) angle on the circle, heading, x, y; None if its ends do not meet."""
    steps = _walk(_draw_checkpoints(rng))
    first, end = _closed_loop(steps)
    if first < 0:
        return None
    lap: NDArray[np.float64] = steps[first : end - 1]
    cos, sin = math.cos(lap[0, 1]), math.sin(lap[0, 1])
    gap_x, gap_y = cos * (lap[0, 2] - lap[-1, 2]), sin * (lap[0, 3] - lap[-1, 3])
    return lap if np.sqrt(np.square(gap_x) + np.square(gap_y)) <= stock.TRACK_DETAIL_STEP else None


def _draw_checkpoints(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw the points the track winds round as stock does: (CHECKPOINTS, 3) angle, x, y."""
    points = np.empty((CHECKPOINTS, 3))
    for c in range(CHECKPOINTS):
        noise = rng.uniform(0, 2 * math.pi * 1 / CHECKPOINTS)
        radius = rng.uniform(stock.TRACK_RAD / 3, stock.TRACK_RAD)
        if c in (0, CHECKPOINTS - 1):
            noise, radius = 0.0, 1.5 * stock.TRACK_RAD
        alpha = 2 * math.pi * c / CHECKPOINTS + noise
        points[c] = alpha, radius * math.cos(alpha), radius * math.sin(alpha)
    return points


@kernel
def _walk(points: Any) -> Any:
    """Walk between checkpoints for five laps: (T, 4) angle on the circle, heading, x, y."""
    track = np.empty((MAX_STEPS, 4))
    x, y, beta = 1.5 * stock.TRACK_RAD, 0.0, 0.0
    target, laps, other_side = 0, 0, False
    for step in range(MAX_STEPS):
        alpha = math.atan2(y, x)
        if other_side and alpha > 0:
            laps, other_side = laps + 1, False
        if alpha < 0:
            alpha, other_side = alpha + 2 * math.pi, True
        target, alpha = _next_checkpoint(points, target, alpha)
        ahead_x, ahead_y = math.cos(beta), math.sin(beta)
        to_x, to_y = points[target, 1] - x, points[target, 2] - y
        sideways = (ahead_x * to_x + ahead_y * to_y) * stock.SCALE
        while beta - alpha > 1.5 * math.pi:
            beta -= 2 * math.pi
        while beta - alpha < -1.5 * math.pi:
            beta += 2 * math.pi
        before = beta
        if abs(sideways) > 0.3:
            beta -= math.copysign(min(stock.TRACK_TURN_RATE, abs(0.001 * sideways)), sideways)
        x += -ahead_y * stock.TRACK_DETAIL_STEP
        y += ahead_x * stock.TRACK_DETAIL_STEP
        track[step] = (alpha, before * 0.5 + beta * 0.5, x, y)
        if laps > 4:
            break
    return track[: step + 1]


@kernel
def _next_checkpoint(points: Any, target: int, alpha: float) -> tuple[int, float]:
    """The first checkpoint from `target` on that is not behind `alpha`, which may lose a turn."""
    while alpha > points[target, 0]:
        target += 1
        if target == CHECKPOINTS:
            target = 0
            alpha -= 2 * math.pi
    return target, alpha


@kernel
def _closed_loop(track: Any) -> tuple[int, int]:
    """Find the last whole lap of a walk: its first step and one past its last, or (-1, -1)."""
    end = -1
    for i in range(len(track) - 1, 0, -1):
        if track[i, 0] > START_ALPHA and track[i - 1, 0] <= START_ALPHA:
            if end != -1:
                return i, end
            end = i
    return -1, -1


@kernel
def lay_road(track: Any) -> Any:
    """Turn a lap (N, 4) into the road's geometry.

    Returns:
        Sections (N, 4): left x, y and right x, y of each cross-section; tile i lies between
        cross-sections i - 1 and i. Borders (N, 8): inner x, y and outer x, y of tile i's border at
        cross-section i, then at i - 1. Sides (N) int8: 0 without a border, 1 right, -1 left.
    """
    n = len(track)
    sections, borders, sides = np.empty((n, 4)), np.zeros((n, 8)), np.zeros(n, np.int8)
    hard = _hard_turns(track)
    for i in range(n):
        sections[i] = _across(track[i], -stock.TRACK_WIDTH, stock.TRACK_WIDTH)
        if hard[i]:
            side = np.sign(track[i - 1, 1] - track[i, 1])
            sides[i] = int(side)
            for k in range(2):
                inner, outer = side * stock.TRACK_WIDTH, side * (stock.TRACK_WIDTH + stock.BORDER)
                borders[i, 4 * k : 4 * k + 4] = _across(track[i - k], inner, outer)
    return sections, borders, sides


@kernel
def _across(at: Any, first: float, second: float) -> tuple[float, float, float, float]:
    """Two points (x, y, x, y) beside a point of the lap, so far to its right."""
    cos, sin = math.cos(at[1]), math.sin(at[1])
    x, y = at[2], at[3]
    return x + first * cos, y + first * sin, x + second * cos, y + second * sin


@kernel
def _hard_turns(track: Any) -> Any:
    """Where the road turns hard one way for some tiles: (N) booleans, these tiles have a border."""
    n = len(track)
    hard = np.zeros(n, np.bool_)
    for i in range(n):
        good, one_side = True, 0.0
        for k in range(stock.BORDER_MIN_COUNT):
            turn = track[i - k, 1] - track[i - k - 1, 1]
            good &= abs(turn) > stock.TRACK_TURN_RATE * 0.2
            one_side += np.sign(turn)
        hard[i] = good and abs(one_side) == stock.BORDER_MIN_COUNT
    for i in range(n):
        for k in range(stock.BORDER_MIN_COUNT):
            hard[i - k] |= hard[i]
    return hard
