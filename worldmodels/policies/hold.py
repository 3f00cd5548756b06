"""Policies that decide at every k-th frame and repeat the action in between."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from worldmodels.policies.observations import Shape, StateWatch, as_batch, as_starts

S = TypeVar("S")
"""The state of such a policy for B episodes: a named tuple of arrays, the first axis B, of which
``held`` (B,) counts the frames that the action has been given for, 1 to k."""


class Seen(NamedTuple):
    """What a policy sees at one call, for B episodes."""

    frames: NDArray[np.uint8]  #: (B, H, W, C) the environment's own
    starts: NDArray[np.bool_]  #: (B,) where an episode begins
    due: NDArray[np.bool_]  #: (B,) where a decision is due
    deterministic: bool


class HoldingPolicy(ABC, Generic[S]):
    """A `protocols.Policy`; a subclass decides, and finds the actions in its state."""

    action_repeat: int
    """k, frames that every decision is held for"""
    axes: ClassVar[Mapping[str, int]] = {}
    """axis of the episodes in fields of the state where it is not the first"""

    def __init__(self) -> None:
        """Count no calls yet."""
        self._watch = StateWatch()

    def __copy__(self) -> Self:
        """Share the parts, but not the random generator: neither changes the other's samples."""
        other = object.__new__(type(self))
        for name, part in vars(self).items():
            own = isinstance(part, np.random.Generator | StateWatch)
            setattr(other, name, copy.deepcopy(part) if own else part)
        return other

    @property
    def looks_every(self) -> int:
        """Of so many frames of an episode, counted from its first one, it looks at one."""
        return self.action_repeat

    @abstractmethod
    def _shape(self) -> Shape | None:
        """Shape of the environment's own frames; None if unknown."""

    @abstractmethod
    def _decide(self, seen: Seen, state: S | None) -> S:
        """The state after a decision of all rows, of which only those that are due are used."""

    @abstractmethod
    def _actions(self, state: S) -> NDArray[Any]:
        """The environment's actions in a state, (B, A) or (B,)."""

    def _remembers(self, state: S) -> bool:
        """Whether it is a mistake to drop the state."""
        return True

    def predict(
        self,
        observation: NDArray[np.uint8],
        state: S | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], S]:
        """Choose an action for every frame: a new one where a decision is due, the last elsewhere.

        See `protocols.Policy` for arguments and results; ``deterministic`` takes V's mean in place
        of a sample. The state carries the memory, so pass it on until the episode ends::

            action, state = policy.predict(obs, state, deterministic=True)

        Raises:
            UserError: frames of another shape or type than the environment's, or of another number
                than the state's, or weights so large that the computation overflows.
        """
        repeat = self.action_repeat
        action, new = self._act(repeat, observation, state, episode_start, deterministic)
        if self._remembers(new):
            self._watch.note(state, episode_start)
        return action, new

    def decide(self, *arguments: Any) -> tuple[NDArray[Any], S]:
        """Choose new actions now, whatever is held; arguments and results of `predict`."""
        return self._act(1, *arguments)

    def _act(
        self,
        repeat: int,
        observation: NDArray[np.uint8],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], S]:
        frames, single = as_batch(observation, self._shape())
        starts = as_starts(episode_start, len(frames), None if state is None else len(state.held))
        due = starts if state is None else starts | (state.held >= repeat)
        seen = Seen(frames, starts, due, deterministic)
        if state is None or due.all():
            new = self._decide(seen, state)
        else:
            new = state._replace(held=state.held + 1)
            if due.any():
                new = self._merge(due, self._decide(seen, state), new)
        actions = self._actions(new)
        return (actions[0] if single else actions), new

    def _merge(self, due: NDArray[np.bool_], new: Any, held: Any) -> Any:
        axes = [self.axes.get(name, 0) for name in new._fields]
        return type(new)(*(choose(due, *each) for each in zip(new, held, axes, strict=True)))


def choose(rows: NDArray[np.bool_], yes: Any, no: Any, axis: int = 0) -> Any:
    """Rows of ``yes`` where ``rows`` (B,) is true, else of ``no``, along an axis.

    Both are arrays, or tuples of arrays; None where either is None.
    """
    if yes is None or no is None:
        return None
    if isinstance(yes, tuple):
        return tuple(choose(rows, a, b, axis) for a, b in zip(yes, no, strict=True))
    shape = [1] * np.ndim(yes)
    shape[axis] = len(rows)
    return np.where(rows.reshape(shape), yes, no)
