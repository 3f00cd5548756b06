"""CarRacing's random track, walked in kernels with Gymnasium's operations in their order.

Every float is the same as in `CarRacing._create_track`: the tiles are part of the physics, and so
of every reward.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium.envs.box2d.car_racing import (
    BORDER,
    BORDER_MIN_COUNT,
    SCALE,
    TRACK_DETAIL_STEP,
    TRACK_RAD,
    TRACK_TURN_RATE,
    TRACK_WIDTH,
)
from numpy.typing import NDArray

from worldmodels.envs.kernels import kernel

CHECKPOINTS = 12
START_ALPHA = 2 * math.pi * (-0.5) / CHECKPOINTS
MAX_STEPS = 2500
"""A walk that has not come round by then is given up."""


def draw_checkpoints(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw the points the track winds round as stock does: (CHECKPOINTS, 3) angle, x, y."""
    points = np.empty((CHECKPOINTS, 3))
    for c in range(CHECKPOINTS):
        noise = rng.uniform(0, 2 * math.pi * 1 / CHECKPOINTS)
        alpha = 2 * math.pi * c / CHECKPOINTS + noise
        radius = rng.uniform(TRACK_RAD / 3, TRACK_RAD)
        if c == 0:
            alpha, radius = 0, 1.5 * TRACK_RAD
        if c == CHECKPOINTS - 1:
            alpha, radius = 2 * math.pi * c / CHECKPOINTS, 1.5 * TRACK_RAD
        points[c] = alpha, radius * math.cos(alpha), radius * math.sin(alpha)
    return points


@kernel
def walk(points: Any) -> Any:
    """Walk between checkpoints for five laps: (T, 4) angle on the circle, heading, x, y."""
    track = np.empty((MAX_STEPS, 4))
    x, y, beta = 1.5 * TRACK_RAD, 0.0, 0.0
    target, laps = 0, 0
    other_side = False
    for step in range(MAX_STEPS):
        alpha = math.atan2(y, x)
        if other_side and alpha > 0:
            laps += 1
            other_side = False
        if alpha < 0:
            other_side = True
            alpha += 2 * math.pi
        target, alpha = _next_checkpoint(points, target, alpha)
        ahead_x, ahead_y = math.cos(beta), math.sin(beta)
        to_x, to_y = points[target, 1] - x, points[target, 2] - y
        sideways = ahead_x * to_x + ahead_y * to_y
        while beta - alpha > 1.5 * math.pi:
            beta -= 2 * math.pi
        while beta - alpha < -1.5 * math.pi:
            beta += 2 * math.pi
        before = beta
        sideways *= SCALE
        if sideways > 0.3:
            beta -= min(TRACK_TURN_RATE, abs(0.001 * sideways))
        if sideways < -0.3:
            beta += min(TRACK_TURN_RATE, abs(0.001 * sideways))
        x += -ahead_y * TRACK_DETAIL_STEP
        y += ahead_x * TRACK_DETAIL_STEP
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
def closed_loop(track: Any) -> tuple[int, int]:
    """Find the last whole lap of a walk: its first step and one past its last, or (-1, -1)."""
    end = -1
    for i in range(len(track) - 1, 0, -1):
        if track[i, 0] > START_ALPHA and track[i - 1, 0] <= START_ALPHA:
            if end != -1:
                return i, end
            end = i
    return -1, -1


def is_glued(track: NDArray[np.float64]) -> bool:
    """Whether head and tail of the lap meet within one step."""
    beta = track[0, 1]
    gap = np.sqrt(
        np.square(math.cos(beta) * (track[0, 2] - track[-1, 2]))
        + np.square(math.sin(beta) * (track[0, 3] - track[-1, 3]))
    )
    return bool(gap <= TRACK_DETAIL_STEP)


@kernel
def lay_road(track: Any) -> Any:
    """Turn a lap into the road's geometry.

    Args:
        track: (N, 4) angle on the circle, heading, x, y.

    Returns:
        Three arrays. Sections (N, 4): left x, y and right x, y of each cross-section; tile i lies
        between cross-sections i - 1 and i. Borders (N, 8): inner x, y and outer x, y of tile i's
        border at cross-section i, then at cross-section i - 1. Sides (N) int8: 0 where tile i has
        no border, 1 for one on the right, -1 on the left.
    """
    n = len(track)
    sections, borders, sides = np.empty((n, 4)), np.zeros((n, 8)), np.zeros(n, np.int8)
    hard = _hard_turns(track)
    for i in range(n):
        beta, x, y = track[i, 1], track[i, 2], track[i, 3]
        sections[i, 0] = x - TRACK_WIDTH * math.cos(beta)
        sections[i, 1] = y - TRACK_WIDTH * math.sin(beta)
        sections[i, 2] = x + TRACK_WIDTH * math.cos(beta)
        sections[i, 3] = y + TRACK_WIDTH * math.sin(beta)
        if not hard[i]:
            continue
        side = np.sign(track[i - 1, 1] - beta)
        sides[i] = int(side)
        for k in range(2):
            beta, x, y = track[i - k, 1], track[i - k, 2], track[i - k, 3]
            borders[i, 4 * k] = x + side * TRACK_WIDTH * math.cos(beta)
            borders[i, 4 * k + 1] = y + side * TRACK_WIDTH * math.sin(beta)
            borders[i, 4 * k + 2] = x + side * (TRACK_WIDTH + BORDER) * math.cos(beta)
            borders[i, 4 * k + 3] = y + side * (TRACK_WIDTH + BORDER) * math.sin(beta)
    return sections, borders, sides


@kernel
def _hard_turns(track: Any) -> Any:
    """Where the road turns hard one way for some tiles: (N) booleans, these tiles have a border."""
    n = len(track)
    hard = np.zeros(n, np.bool_)
    for i in range(n):
        good = True
        one_side = 0.0
        for k in range(BORDER_MIN_COUNT):
            turn = track[i - k, 1] - track[i - k - 1, 1]
            good &= abs(turn) > TRACK_TURN_RATE * 0.2
            one_side += np.sign(turn)
        hard[i] = good and abs(one_side) == BORDER_MIN_COUNT
    for i in range(n):
        for k in range(BORDER_MIN_COUNT):
            hard[i - k] |= hard[i]
    return hard
