"""Changes of CarRacing's reward that help to learn, from pixels and rewards alone.

They exist in training only: curves, selection and tests have the environment's own reward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldmodels.config import Config, CountOrZero, NotNegative
from worldmodels.protocols import UserError

CAR = (slice(64, 80), slice(42, 54))
"""Rows and columns of the 96x96 frame that the car and the ground beside it fill."""

_GREENER = 40
"""Levels by which green exceeds red and blue on grass; on the road the three are equal."""


@dataclass(frozen=True)
class ShapingConfig(Config):
    """What is subtracted from the reward, and when an episode is given up."""

    grass: NotNegative = 0.1
    """per frame with nothing but grass around the car"""
    steering: NotNegative = 0.02
    """per frame and unit of change of the steering"""
    patience: CountOrZero = 100
    """frames without a reward above 0 after which the episode ends; 0 for never"""
    lost: NotNegative = 5.0
    """subtracted when it ends that way"""
    blind: CountOrZero = 50
    """first frames without a look at the grass: the camera still zooms in"""


def grass_share(frame: NDArray[np.uint8]) -> float:
    """Fraction of grass, 0 to 1, in the patch of a raw frame (96, 96, 3) that surrounds the car.

    Raises:
        UserError: the frame is not CarRacing's.
    """
    if frame.shape != (96, 96, 3):
        raise UserError(f"shaping reads CarRacing's frames (96, 96, 3), got {frame.shape}")
    red, green, blue = (frame[(*CAR, channel)].astype(np.int16) for channel in range(3))
    return float(((green - red > _GREENER) & (green - blue > _GREENER)).mean())


class Shaper:
    """Follows one episode, decision by decision."""

    def __init__(self, cfg: ShapingConfig) -> None:
        """Call `begin` before each episode."""
        self.cfg = cfg
        self.begin()

    def begin(self) -> None:
        """Forget the episode before."""
        self._frames = self._rewarded = 0
        self._steering: float | None = None

    def shape(
        self, reward: float, action: NDArray[Any], frame: NDArray[np.uint8], frames: int
    ) -> tuple[float, bool]:
        """Shape the reward of one decision.

        Args:
            reward: what the environment paid for it.
            action: (3,) what was done; its first number steers.
            frame: (96, 96, 3) raw frame after it.
            frames: how long the action was held.

        Returns:
            The reward to learn from, and whether the car counts as lost.
        """
        cfg = self.cfg
        self._frames += frames
        if reward > 0:
            self._rewarded = self._frames
        steering = float(np.asarray(action).flat[0])
        change = 0.0 if self._steering is None else abs(steering - self._steering)
        self._steering = steering
        shaped = reward - cfg.steering * change
        if cfg.grass and self._frames > cfg.blind:
            shaped -= cfg.grass * frames * grass_share(frame)
        lost = cfg.patience > 0 and self._frames - self._rewarded >= cfg.patience
        return shaped - cfg.lost * lost, lost
