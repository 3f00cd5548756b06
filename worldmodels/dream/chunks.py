"""Chunks of a dream: which rows are computed together, which still run, and what they returned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from worldmodels.dream.config import DreamConfig
from worldmodels.dream.starts import Array
from worldmodels.dream.world import World, WorldStep

DEVICE_ROWS = 1 << 16
"""Rows stepped together on a GPU."""

FEW_ROWS = 64
"""Rows that are not worth a second thread."""

ENDED = 0.25
"""Fraction of the rows that have ended from which a chunk on the CPU continues without them."""


@dataclass
class DreamResult:
    """Results of P candidates in E dreams each; during a rollout, running sums."""

    returns: NDArray[np.float64]
    """(P, E) discounted sums of rewards, penalties subtracted"""
    lengths: NDArray[np.int64]
    """(P, E) steps until the end, that step included"""
    terminated: NDArray[np.bool_]
    """(P, E) whether M ended the dream"""
    actions: Array | None = None
    """(P, E, T, A) as M saw them, where asked for; undefined after a dream's end"""

    @classmethod
    def zeros(cls, *shape: int, actions: Array | None = None) -> DreamResult:
        """Dreams before their first step."""
        ended = np.zeros(shape, np.bool_)
        return cls(np.zeros(shape), np.zeros(shape, np.int64), ended, actions)

    @property
    def steps(self) -> int:
        """Dream steps that counted."""
        return int(self.lengths.sum())

    def add(self, step: WorldStep, weight: float, rows: NDArray[np.int64]) -> None:
        """Count one step of some rows of a chunk; a dream that has ended adds nothing."""
        alive = ~self.terminated[rows]
        self.returns[rows] += np.where(alive, weight * step.reward.astype(np.float64), 0.0)
        self.lengths[rows] += alive
        self.terminated[rows] |= step.terminated


class Chunk(NamedTuple):
    """Some candidates in some episodes."""

    candidates: range
    episodes: list[int]
    members: list[int]
    """memories that run; the first one gives h"""
    dreamer: int | None
    """index in members of the one that dreams; None draws one per step"""

    def work(self) -> int:
        """Steps of a memory for each step of the chunk."""
        return len(self.candidates) * len(self.episodes) * len(self.members)


class Part(NamedTuple):
    """A chunk on its way to a worker."""

    seed: int
    chunk: Chunk
    shape: tuple[int, int]
    """candidates and episodes of all chunks"""
    population: Array
    """of the chunk's candidates"""


class Running:
    """The dreams of a chunk that are still computed: all of them at first."""

    def __init__(self, world: World, rows: int, noises: int) -> None:
        """Begin with all rows; row r takes noise r modulo ``noises``."""
        self.world, self.rows, self._noises = world, np.arange(rows), noises
        self._all: tuple[Tensor, Tensor] | None = None
        """z and h of all rows; of those that are left out, as they were then"""

    def seen(self) -> tuple[Tensor, Tensor]:
        """See `World.seen`, for all rows of the chunk."""
        seen = self.world.seen()
        if self._all is None:
            return seen
        for whole, part in zip(self._all, seen, strict=True):
            whole[self.rows] = part
        return self._all

    def step(self, action: Tensor, uniform: Array, normal: Array) -> WorldStep:
        """See `World.step`; the action is one for each row of the chunk."""
        if self._all is None:
            return self.world.step(action, uniform, normal)
        drawn = self.rows % self._noises
        return self.world.step(action[self.rows], uniform[drawn], normal[drawn])

    def leave_out(self, ended: NDArray[np.bool_]) -> None:
        """Continue without the rows that have ended, where they are enough of those that run."""
        if ended.mean() < ENDED:
            return
        if self._all is None:
            z, h = self.seen()
            self._all = z.clone(), h.clone()
        self.world.keep(np.flatnonzero(~ended))
        self.rows = self.rows[~ended]


def cut(count: int, episodes: int, memories: int, cfg: DreamConfig, on_cpu: bool) -> list[Chunk]:
    """Cut candidates x episodes into chunks of a few hundred rows, each with one set of memories.

    The chunks are the same for any number of threads, the longest first, so that threads end at
    about the same time.
    """
    groups: list[tuple[list[int], int | None]]
    if memories == 1 or cfg.ensemble == "first":
        groups = [([0], 0)]
    elif cfg.ensemble == "per_step":
        groups = [(list(range(memories)), None)]
    else:  # episode e is dreamt by memory e mod M, and the first one follows for its h
        groups = [([0], 0), *(([0, m], 1) for m in range(1, memories))]
    chunks = []
    for g, group in enumerate(groups):
        mine = list(range(g, episodes, len(groups)))
        limit = max(cfg.chunk_rows, DEVICE_ROWS)
        if on_cpu:  # two chunks at least
            half = max(FEW_ROWS, -(-count * len(mine) // 2))
            limit = min(cfg.chunk_rows, half)
        for e in range(0, len(mine), limit):
            part = mine[e : e + limit]
            wide = max(1, limit // len(part))
            for p in range(0, count, wide):
                chunks.append(Chunk(range(p, min(p + wide, count)), part, *group))
    return sorted(chunks, key=Chunk.work, reverse=True)
