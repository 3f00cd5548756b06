"""Gymnasium's own CarRacing, whose drawings by pygame take nine tenths of a step's time."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.box2d.car_racing import CarRacing
from numpy.typing import NDArray


class StockCarRacing(CarRacing):
    """The stock class, which need not draw frames that nobody will see."""

    draws_observations = True
    """see `FastCarRacing.draws_observations`"""

    def _render(self, mode: str) -> Any:
        skipped = mode == "state_pixels" and not self.draws_observations
        return self.state if skipped and "state" in vars(self) else super()._render(mode)

    def draw_last(self) -> NDArray[Any]:
        """Draw the state after a step that did not (its score text is one step ahead)."""
        self.state = obs = np.asarray(super()._render("state_pixels"))
        return obs


def spare(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """The same environment, able to skip drawings, if it is Gymnasium's own class."""
    inner: Any = env.unwrapped
    if type(inner) is CarRacing:
        inner.__class__ = StockCarRacing
    return env
