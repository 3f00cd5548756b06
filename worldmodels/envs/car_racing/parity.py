"""Gymnasium's CarRacing and ours side by side, for tests and benchmarks only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.envs.box2d.car_racing import CarRacing
from numpy.typing import NDArray

from worldmodels.envs.car_racing import FastCarRacing
from worldmodels.envs.car_racing.stock import StockCarRacing

EPISODE = 1000
"""Steps of an episode, at most."""


def pursue(env: CarRacing, speed: float = 60.0) -> NDArray[np.float32]:
    """Drive towards a point some way down the road, which the car's driver knows from the track."""
    hull: Any = env.car and env.car.hull
    x, y = hull.position
    points = np.array([tile[2:4] for tile in env.track])
    nearest = int(np.argmin((points[:, 0] - x) ** 2 + (points[:, 1] - y) ** 2))
    to_x, to_y = points[(nearest + 6) % len(points)] - (x, y)
    turn = (math.atan2(to_y, to_x) - math.pi / 2 - hull.angle + math.pi) % (2 * math.pi) - math.pi
    now = math.hypot(*hull.linearVelocity)
    slower = min(abs(turn), 0.7)
    gas = 0.5 if now < speed * (1 - slower) else 0.0
    brake = 0.3 if now > speed * (1.2 - slower) else 0.0
    return np.array([np.clip(-1.5 * turn, -1, 1), gas, brake], np.float32)


@dataclass(frozen=True)
class Comparison:
    """One episode on both environments."""

    frames: int
    identical: bool
    """rewards, terminations, truncations and infos, in every step"""
    errors: list[float]
    """mean absolute error of each compared frame, in levels of 255"""
    largest: int
    returns: tuple[float, float]


def compare(seed: int, driven: bool, every: int, steps: int = EPISODE, **kwargs: Any) -> Comparison:
    """Play one episode on Gymnasium's environment and on ours, and compare all they return."""
    stock, ours = StockCarRacing(**kwargs), FastCarRacing(**kwargs)
    rng = np.random.default_rng(seed)
    pairs = [(stock.reset(seed=seed)[0], ours.reset(seed=seed)[0])]
    rewards, identical, action = [], True, np.zeros(3, np.float32)
    for frame in range(1, steps + 1):
        if driven:
            action = pursue(stock)
        elif frame % 8 == 1:
            action = rng.uniform([-1, 0, 0], [1, 1, 1]).astype(np.float32)
        stock.draws_observations = frame % every == 0
        left, right = stock.step(action), ours.step(action)
        identical &= left[1:] == right[1:]
        rewards.append((left[1], right[1]))
        if stock.draws_observations:
            pairs.append((left[0], right[0]))
        if left[2]:
            break
    errors = [np.abs(a.astype(int) - b) for a, b in pairs]
    largest, means = max(int(e.max()) for e in errors), [float(e.mean()) for e in errors]
    first, second = (sum(map(float, column)) for column in zip(*rewards, strict=True))
    return Comparison(len(rewards), identical, means, largest, (first, second))
