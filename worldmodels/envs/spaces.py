"""Which spaces the pipeline takes: pixels in, and one description of Box and Discrete actions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from worldmodels.config import Config, Size
from worldmodels.protocols import UserError

DTYPES = "float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64".split()
"""Types of a Box that are supported."""
LARGEST_ACTION = 2.0**24
"""Largest bound of a Box: float32, in which M sees actions, tells whole numbers apart up to it."""
SMALLEST_RANGE = 128
"""Least difference between the darkest and the brightest pixel that a space may declare. V takes
255 for white: a frame of zeros and ones would look black."""
_CHANGE_ACTION = "gymnasium.wrappers.TransformAction can"
_DRAW = "gymnasium.wrappers.AddRenderObservation can show what an environment"
_CHANGE_FRAME = "gymnasium.wrappers.TransformObservation can"


@dataclass(frozen=True)
class ActionSpec(Config):
    """An action space as M and C see it.

    M gets the numbers of a Box, or a one-hot vector for a Discrete choice. Bounds are tuples, so
    that a spec can be compared, hashed and written to JSON; there, `dtype` and `start` are left out
    where they are the usual ones.
    """

    kind: Literal["box", "discrete"]
    """`box`: numbers; `discrete`: one of `dim` choices."""
    dim: Size
    """Numbers in a Box action, or the number of choices."""
    low: tuple[float, ...] = ()
    """Lower bounds of a Box, one for each dimension; empty for a Discrete space."""
    high: tuple[float, ...] = ()
    """Upper bounds, likewise."""
    dtype: str = field(default="float32", metadata={"omit_default": True})
    """NumPy type in which a Box takes its actions; integers are rounded to."""
    start: int = field(default=0, metadata={"omit_default": True})
    """Number of a Discrete space's first choice."""

    def _check(self) -> None:
        bounds = self.dim if self.kind == "box" else 0
        if len(self.low) != bounds or len(self.high) != bounds:
            raise UserError(
                f"ActionSpec has {len(self.low)} lower and {len(self.high)} upper bounds; "
                f"a {self.kind} space with dim {self.dim} has {bounds} of each"
            )
        if self.dtype not in DTYPES:
            self.refuse("dtype", f"one of {', '.join(DTYPES)}")

    @classmethod
    def from_space(cls, space: spaces.Space[Any]) -> Self:
        """Describe a one-dimensional, bounded Box or a Discrete; others name the wrapper to use."""
        if fault := _fault_of_actions(space):
            raise UserError(f"action space {space} {fault}")
        if isinstance(space, spaces.Discrete):
            return cls("discrete", int(space.n), start=int(space.start))
        assert isinstance(space, spaces.Box)
        low, high = space.low.tolist(), space.high.tolist()
        return cls("box", int(space.shape[0]), tuple(low), tuple(high), str(space.dtype))

    def to_space(self) -> spaces.Box | spaces.Discrete:
        """The Gymnasium space that this describes."""
        if self.kind == "discrete":
            return spaces.Discrete(self.dim, start=self.start)
        kind: Any = np.dtype(self.dtype)
        return spaces.Box(np.array(self.low, kind), np.array(self.high, kind), dtype=kind)

    @property
    def integer(self) -> bool:
        """Whether a Box takes whole numbers only."""
        return np.issubdtype(np.dtype(self.dtype), np.integer)

    @property
    def size(self) -> int:
        """Width of M's action input: `dim`, as numbers or one-hot."""
        return self.dim

    def encode(self, actions: NDArray[Any]) -> NDArray[np.float32]:
        """Turn the environment's actions, (..., dim) numbers or (...) choices, into M's input.

        Returns:
            (..., size) float32: the numbers themselves (whole for a Box of integers), or one-hot
            vectors.

        Raises:
            UserError: the last dimension or a choice does not belong to the space.
        """
        actions = np.asarray(actions)
        if self.kind == "box":
            if actions.ndim == 0 or actions.shape[-1] != self.dim:
                raise UserError(
                    f"actions have shape {actions.shape}; the last dimension must be {self.dim}"
                )
            numbers = actions.astype(np.float32)
            return np.rint(numbers) if self.integer else numbers
        if not np.issubdtype(actions.dtype, np.integer):
            raise UserError(f"discrete actions have type {actions.dtype}; they must be integers")
        last = self.start + self.dim - 1
        if actions.size and (actions.min() < self.start or actions.max() > last):
            raise UserError(
                f"discrete actions run from {actions.min()} to {actions.max()}; "
                f"allowed: {self.start} to {last}"
            )
        encoded: NDArray[np.float32] = np.eye(self.dim, dtype=np.float32)[actions - self.start]
        return encoded

    def decode(self, inputs: NDArray[np.float32]) -> NDArray[Any]:
        """Turn M's input into actions that the environment takes; the inverse of `encode`.

        Args:
            inputs: (..., size) numbers, or scores whose largest is the choice.

        Returns:
            (..., dim) in the type of the Box, or (...) int64 choices of a Discrete space.
        """
        return self.to_env(inputs if self.kind == "box" else self.start + inputs.argmax(-1))

    def to_env(self, actions: NDArray[Any]) -> NDArray[Any]:
        """Actions (..., dim) within the bounds in the type of the Box; choices stay as they are."""
        if self.kind == "discrete" or self.dtype == "float32":
            return actions
        numbers = np.rint(actions) if self.integer else actions
        # a bound in float32 may lie a little beyond the same bound in float64
        bounded: NDArray[Any] = np.clip(numbers.astype(np.float64), self.low, self.high)
        return bounded.astype(self.dtype)


def _fault_of_actions(space: spaces.Space[Any]) -> str | None:
    """What makes an action space useless, and the wrapper that helps; None if nothing."""
    if isinstance(space, spaces.Discrete):
        return "has one choice: there is nothing to learn" if space.n < 2 else None
    if not isinstance(space, spaces.Box):
        expected = "expected a one-dimensional Box or a Discrete space"
        return f"is not supported; {expected}: {_CHANGE_ACTION} make one of it"
    if len(space.shape) != 1 or space.shape[0] == 0:
        return f"has shape {space.shape}; expected one dimension, (A,): {_CHANGE_ACTION} reshape it"
    if str(space.dtype) not in DTYPES:
        expected = f"expected one of {', '.join(DTYPES)}"
        return f"has type {space.dtype}; {expected}: {_CHANGE_ACTION} change it"
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    if not np.isfinite((low, high)).all():
        expected = "every action needs finite bounds"
        return f"is unbounded; {expected}: {_CHANGE_ACTION} give it a bounded Box"
    if (low >= high).any():
        fixed = ", ".join(map(str, np.flatnonzero(low >= high)))
        expected = "low must be below high"
        return f"cannot move in component {fixed}; {expected}: {_CHANGE_ACTION} fill it in"
    if max(-low.min(), high.max()) > LARGEST_ACTION:
        expected = f"bounds must lie between -{LARGEST_ACTION:.0f} and {LARGEST_ACTION:.0f}"
        return f"is too wide; {expected}: gymnasium.wrappers.RescaleAction can narrow it"
    return None


def require_pixels(space: spaces.Space[Any], env_id: str) -> None:
    """Refuse observations other than uint8 images, channels last; name the wrapper to use."""
    if fault := fault_of_pixels(space):
        text = str(space)
        if isinstance(space, spaces.Box) and len(space.shape) > 1:  # it prints all its bounds
            text = f"Box({space.low.min()}, {space.high.max()}, {space.shape}, {space.dtype})"
        raise UserError(
            f"environment {env_id!r} has observations {text}; expected pixels, a uint8 "
            f"Box of shape (H, W), (H, W, 1) or (H, W, 3): {fault}"
        )


def fault_of_pixels(space: spaces.Space[Any]) -> str | None:
    """How to make pixels of observations; None where they are pixels."""
    if isinstance(space, spaces.Dict):
        images = [key for key, part in space.items() if fault_of_pixels(part) is None]
        return f"{_CHANGE_FRAME} pick {' or '.join(map(repr, images)) or 'an image'}"
    if not isinstance(space, spaces.Box) or len(space.shape) not in (2, 3, 4):
        return f"{_DRAW} draws in render mode rgb_array"
    shape = space.shape
    if len(shape) == 4:
        return f"{_CHANGE_FRAME} take the newest frame of a stack"
    if 0 in shape:
        return "there is nothing to see"
    if len(shape) == 3 and shape[2] not in (1, 3):
        if shape[0] in (1, 3):
            return f"{_CHANGE_FRAME} move the channels last"
        return f"{_CHANGE_FRAME} keep 3 of the {shape[2]} channels"
    if space.dtype != np.uint8:
        return f"{_CHANGE_FRAME} scale them to 0 to 255 and round them to uint8"
    low, high = int(space.low.min()), int(space.high.max())
    if high - low < SMALLEST_RANGE:
        return f"{_CHANGE_FRAME} stretch {low} to {high} to 0 to 255, where white is 255"
    return None
