"""What comes out of a rollout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from worldmodels.dream.world import WorldStep
from worldmodels.protocols import UserError

RECORD_LIMIT = 1 << 28
"""Most bytes that a recording may take."""


@dataclass(frozen=True)
class DreamRecord:
    """Every step of a rollout, for pictures and diagnosis; after a dream's end it is rubbish."""

    z: NDArray[np.float32]
    """(P, E, T + 1, Z)"""
    action: NDArray[np.float32]
    """(P, E, T, A), as M saw them"""
    reward: NDArray[np.float32]
    """(P, E, T)"""

    @classmethod
    def empty(cls, shape: tuple[int, int], steps: int, z_dim: int, action_size: int) -> DreamRecord:
        """Zeros for (P, E) dreams of T steps.

        Raises:
            UserError: that would take more than `RECORD_LIMIT` bytes.
        """
        size = 4 * shape[0] * shape[1] * steps * (z_dim + action_size + 1)
        if size > RECORD_LIMIT:
            raise UserError(
                f"recording {shape[0]} x {shape[1]} dreams of {steps} steps takes "
                f"{size >> 20} MiB; record fewer (at most {RECORD_LIMIT >> 20} MiB)"
            )
        return cls(
            np.zeros((*shape, steps + 1, z_dim), np.float32),
            np.zeros((*shape, steps, action_size), np.float32),
            np.zeros((*shape, steps), np.float32),
        )


@dataclass(frozen=True)
class DreamResult:
    """What P candidates met in E dreams each."""

    returns: NDArray[np.float64]
    """(P, E) discounted sums of rewards, penalties for disagreement subtracted"""
    lengths: NDArray[np.int64]
    """(P, E) steps until the end, that step included"""
    terminated: NDArray[np.bool_]
    """(P, E) whether M ended the dream"""
    disagreement: NDArray[np.float64] | None
    """(P, E) mean over a dream's steps; None unless ensemble is "per_step" and memories several"""
    record: DreamRecord | None = None
    """every step, where asked for"""

    @property
    def steps(self) -> int:
        """Dream steps that counted."""
        return int(self.lengths.sum())


class Tally:
    """Running sums of some dreams (any shape); a dream that has ended adds nothing."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Start at zero, every dream alive."""
        self.returns = np.zeros(shape)
        self.lengths = np.zeros(shape, np.int64)
        self.disagreement = np.zeros(shape)
        self.alive = np.ones(shape, np.bool_)

    def add(self, step: WorldStep, weight: float) -> None:
        """Count one step."""
        self.returns += np.where(self.alive, weight * step.reward.astype(np.float64), 0.0)
        self.lengths += self.alive
        if step.disagreement is not None:
            self.disagreement += np.where(self.alive, step.disagreement, 0.0)
        self.alive &= ~step.terminated

    def put(self, rows: Sequence[int], columns: Sequence[int], part: Tally) -> None:
        """Set a part of this (P, E) tally from another one over its flattened rows."""
        where = np.ix_(rows, columns)
        for name in ("returns", "lengths", "disagreement", "alive"):
            getattr(self, name)[where] = getattr(part, name).reshape(len(rows), len(columns))


class Recorder:
    """Puts some dreams' steps into a recording; does nothing where there is none."""

    def __init__(
        self, record: DreamRecord | None, rows: Sequence[int], columns: Sequence[int]
    ) -> None:
        """Write dreams (rows, columns) of ``record``."""
        self._record, self._where = record, np.ix_(rows, columns)
        self._shape = (len(rows), len(columns))

    def z(self, t: int, z: Tensor) -> None:
        """Keep z_t (R, Z)."""
        self._put("z", t, z.cpu().numpy())

    def step(self, t: int, action: Tensor, reward: NDArray[np.float32]) -> None:
        """Keep action (R, A) and reward (R,) of step t."""
        if self._record is not None:
            self._put("action", t, action.float().cpu().numpy())
            self._put("reward", t, reward)

    def _put(self, name: str, t: int, value: NDArray[np.float32]) -> None:
        if self._record is not None:
            at_t = getattr(self._record, name)[:, :, t]
            at_t[self._where] = value.reshape(*self._shape, *value.shape[1:])
