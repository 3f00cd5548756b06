"""Actions on one scale for every environment, as Stable-Baselines3's algorithms want them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from worldmodels.envs import ActionSpec


@dataclass(frozen=True)
class UnitActions:
    """The numbers of a Box from -1 to 1 each, or the choices of a Discrete space from 0."""

    spec: ActionSpec
    """of the environment"""

    @property
    def space(self) -> spaces.Box | spaces.Discrete:
        """What the algorithm acts in."""
        if self.spec.kind == "discrete":
            return spaces.Discrete(self.spec.dim)
        return spaces.Box(-1, 1, (self.spec.dim,), np.float32)

    def to_env(self, actions: NDArray[Any]) -> NDArray[Any]:
        """Turn actions (..., dim) or choices (...) into the environment's."""
        if self.spec.kind == "discrete":
            choices: NDArray[Any] = actions + self.spec.start
            return choices
        low, high = np.array(self.spec.low), np.array(self.spec.high)
        numbers = low + (np.clip(actions, -1, 1) + 1) / 2 * (high - low)
        return self.spec.to_env(numbers.astype(np.float32))
