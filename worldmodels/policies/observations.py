"""Arguments of `predict`: one observation or a batch, states, episode starts."""

from __future__ import annotations

import sys
import warnings
from functools import lru_cache
from typing import Annotated, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldmodels import envs
from worldmodels.config import Rule, Size
from worldmodels.protocols import UserError

Shape: TypeAlias = tuple[int, ...]
"""(H, W), (H, W, 1) or (H, W, 3): of one observation."""

_PICTURE = Rule(
    "[H, W], [H, W, 1] or [H, W, 3]",
    lambda value: len(value) == 2 or (len(value) == 3 and value[2] in (1, 3)),
)

ObservationShape: TypeAlias = Annotated[tuple[Size, ...], _PICTURE]
"""A `Shape` in a configuration."""

FORGETFUL_CALLS = 20
"""Calls in a row without a state after which a recurrent policy warns."""


def as_batch(observation: ArrayLike, shape: Shape | None) -> tuple[NDArray[np.uint8], bool]:
    """Give observations a batch axis and a channel axis.

    Args:
        observation: one observation, or a batch (B, ...) with B at least 1, uint8; the channel axis
            of grey ones is optional.
        shape: of one observation. If it is unknown (None), only unambiguous layouts pass: (H, W),
            (H, W, C) and (B, H, W, C), with C 1 or 3.

    Returns:
        (B, H, W, C), and whether it was a single observation.

    Raises:
        UserError: another shape or type.
    """
    frames = np.asarray(observation)
    if frames.dtype != np.uint8:
        raise UserError(f"the observation has type {frames.dtype}; it must be uint8")
    if shape is None:
        single = frames.ndim == 2 or (frames.ndim == 3 and frames.shape[2] in (1, 3))
        if not single and (frames.ndim != 4 or frames.shape[3] not in (1, 3)):
            raise UserError(
                f"the observation has shape {frames.shape}; this policy does not know the shape of "
                "its environment's observations, so it takes (H, W), (H, W, 1), (H, W, 3), "
                "(B, H, W, 1) and (B, H, W, 3) only"
            )
        frames = frames[..., None] if frames.ndim == 2 else frames
    else:
        pixels = shape if len(shape) == 3 else (*shape, 1)
        grey = pixels[2] == 1 and frames.shape[-2:] == pixels[:2]
        frames = frames[..., None] if grey else frames
        single = frames.shape == pixels
        if not single and (frames.shape[1:] != pixels or not len(frames)):
            found = np.shape(observation)
            hint = ": channels come last, so leave VecTransposeImage out"
            first = len(shape) == 3 and found[-3:] == (shape[2], *shape[:2])
            raise UserError(
                f"the observation has shape {found}; this policy sees {shape}, or a batch "
                f"({', '.join(map(str, ('B', *shape)))}){hint if first else ''}"
            )
    return (frames[None] if single else frames), single


def as_starts(
    episode_start: ArrayLike | None, batch: int, state_batch: int | None
) -> NDArray[np.bool_]:
    """Rows (B,) whose episode begins with this call: all of them without a state.

    ``episode_start`` is (B,), or one for all rows, or None where no episode begins; B is ``batch``,
    and must agree with the number of episodes in the state, ``state_batch``, or it is a UserError.
    """
    if state_batch is None:
        return np.ones(batch, np.bool_)
    if state_batch != batch:
        raise UserError(
            f"{batch} frames were given with the state of {state_batch}; they must agree"
        )
    starts = np.asarray(False if episode_start is None else episode_start, np.bool_)
    if starts.shape not in ((), (1,), (batch,)):
        raise UserError(
            f"episode_start has shape {starts.shape}; {batch} observations need ({batch},)"
        )
    return np.broadcast_to(starts, (batch,))


@lru_cache(maxsize=32)
def declared_shape(env_id: str) -> Shape | None:
    """Shape of an environment's observations; None if the environment cannot be made here.

    The module of ``module:id`` is not imported: ids come from files, and reading one must not run
    code that it names.
    """
    try:
        module = envs.parse(env_id).module
        if module and module not in sys.modules:
            return None
        env = envs.make(env_id)
    except Exception:  # whatever it is, the shape stays unknown
        return None
    shape = env.observation_space.shape
    env.close()
    return shape


class StateWatch:
    """Warns once when the caller of a recurrent policy drops its state again and again."""

    _calls = 0

    def note(self, state: Any, episode_start: Any) -> None:
        """Count a call of `predict`; called from there, so that the warning names its caller."""
        if state is not None or episode_start is not None:
            self._calls = min(self._calls, 0)
            return
        self._calls += 1
        if self._calls == FORGETFUL_CALLS:
            self._calls = -sys.maxsize  # once is enough
            warnings.warn(
                f"predict() was called {FORGETFUL_CALLS} times in a row without a state, so this "
                "recurrent policy remembers nothing: pass the state that it returned, as in "
                "`action, state = policy.predict(obs, state)`",
                stacklevel=3,
            )
