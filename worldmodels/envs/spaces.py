"""What the agent can do: one description of Box and Discrete action spaces for all stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from worldmodels.config import Config, Size
from worldmodels.protocols import UserError


@dataclass(frozen=True)
class ActionSpec(Config):
    """An action space as M and C see it.

    A Box becomes `dim` numbers between `low` and `high`; a Discrete space of n actions has `dim` n
    and is given to M as a one-hot vector. Bounds are tuples, so that a spec can be compared, hashed
    and written to JSON.
    """

    kind: Literal["box", "discrete"]
    """`box`: float actions; `discrete`: one of `dim` choices."""
    dim: Size
    """Numbers in a Box action, or the number of choices."""
    low: tuple[float, ...] = ()
    """Lower bounds of a Box, one for each dimension; empty for a Discrete space."""
    high: tuple[float, ...] = ()
    """Upper bounds of a Box, one for each dimension; empty for a Discrete space."""

    def _check(self) -> None:
        bounds = self.dim if self.kind == "box" else 0
        if len(self.low) != bounds or len(self.high) != bounds:
            raise UserError(
                f"ActionSpec has {len(self.low)} lower and {len(self.high)} upper bounds; "
                f"a {self.kind} space with dim {self.dim} has {bounds} of each"
            )

    @classmethod
    def from_space(cls, space: spaces.Space[Any]) -> ActionSpec:
        """Describe a Gymnasium action space: a one-dimensional, bounded Box or a Discrete from 0.

        Raises:
            UserError: for any other space.
        """
        if isinstance(space, spaces.Discrete):
            if int(space.start) != 0:
                raise UserError(f"action space {space} starts at {space.start}; it must start at 0")
            return cls("discrete", int(space.n))
        if isinstance(space, spaces.Box) and len(space.shape) == 1:
            if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
                raise UserError(
                    f"action space {space} is unbounded; every action needs finite bounds"
                )
            low, high = space.low.tolist(), space.high.tolist()
            return cls("box", int(space.shape[0]), tuple(low), tuple(high))
        raise UserError(
            f"action space {space} is not supported; "
            "it must be a one-dimensional Box or a Discrete space"
        )

    @property
    def size(self) -> int:
        """Width of M's action input: `dim`, as numbers or one-hot."""
        return self.dim

    def encode(self, actions: NDArray[Any]) -> NDArray[np.float32]:
        """Turn actions into M's input.

        Args:
            actions: (..., dim) for a Box, (...) integers for a Discrete space.

        Returns:
            (..., size) float32: the numbers themselves, or one-hot vectors.

        Raises:
            UserError: if the last dimension or a choice does not belong to the space.
        """
        actions = np.asarray(actions)
        if self.kind == "box":
            if actions.ndim == 0 or actions.shape[-1] != self.dim:
                raise UserError(
                    f"actions have shape {actions.shape}; the last dimension must be {self.dim}"
                )
            return actions.astype(np.float32)
        if not np.issubdtype(actions.dtype, np.integer):
            raise UserError(f"discrete actions have type {actions.dtype}; they must be integers")
        if actions.size and (actions.min() < 0 or actions.max() >= self.dim):
            raise UserError(
                f"discrete actions run from {actions.min()} to {actions.max()}; "
                f"allowed: 0 to {self.dim - 1}"
            )
        encoded: NDArray[np.float32] = np.eye(self.dim, dtype=np.float32)[actions]
        return encoded
