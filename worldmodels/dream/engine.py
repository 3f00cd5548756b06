"""The dream engine: M rolled out on its own predictions under population x episodes at once.

Rows (candidate, episode) are cut into chunks of a few hundred. A chunk dreams to its end on one
thread with everything it touches in that core's cache; threads meet only when all chunks are done.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodels._threads import CoreThreads
from worldmodels.dream.blocks import Blocks
from worldmodels.dream.config import DreamConfig
from worldmodels.dream.kernels import PACKED, KernelWorld
from worldmodels.dream.starts import Array, DreamStarts
from worldmodels.dream.world import (
    Act,
    Batch,
    DreamNoise,
    MakeAct,
    TorchWorld,
    Value,
    World,
    WorldStep,
)
from worldmodels.executors import Executor
from worldmodels.memory.interface import Memory
from worldmodels.memory.rewards import RewardModel
from worldmodels.protocols import UserError
from worldmodels.runs import has_fast_bfloat16

DEVICE_ROWS = 1 << 16
"""Rows stepped together on a GPU."""

FEW_ROWS = 64
"""Rows that are not worth a second thread."""

MOST_THREADS = 4
"""Threads where the config leaves their number open. More were slower, probably GIL contention:
a generation took 0.85, 0.50, 0.53, 1.1 and 2.0 s with 1, 2, 4, 8 and 16."""

ENDED = 0.25
"""Fraction of the rows that have ended from which a chunk on the CPU goes on without them."""

RECORD_LIMIT = 1 << 28
"""Most bytes that a recording may take."""


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


class _Chunk(NamedTuple):
    candidates: range
    episodes: list[int]
    members: list[int]
    """memories that run; the first one gives h"""
    dreamer: int | None
    """index in members of the one that dreams; None draws one per step"""

    def work(self) -> int:
        """Steps of a memory for each step of the chunk."""
        return len(self.candidates) * len(self.episodes) * len(self.members)


class _Part(NamedTuple):
    """A chunk on its way to a worker."""

    seed: int
    chunk: _Chunk
    shape: tuple[int, int]
    """candidates and episodes of all chunks"""
    population: Array
    """of the chunk's candidates"""


def _check_finite(returns: NDArray[np.float64], seed: int) -> None:
    bad = np.flatnonzero(~np.isfinite(returns).all(1))
    if len(bad):
        raise FloatingPointError(
            f"dream returns of candidate {bad[0]} of {len(returns)} (seed {seed}) are not finite: "
            f"{returns[bad[0]]}"
        )


class _Running:
    """The dreams of a chunk that are still computed: all of them at first."""

    def __init__(self, world: World, rows: int, noises: int) -> None:
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

    def keep(self, rows: NDArray[np.bool_]) -> None:
        """Go on with some of the rows that are left."""
        if self._all is None:
            z, h = self.seen()
            self._all = z.clone(), h.clone()
        self.world.keep(np.flatnonzero(rows))
        self.rows = self.rows[rows]


class DreamEngine:
    """Rolls memories out under many controllers."""

    def __init__(
        self,
        memories: Sequence[Memory],
        reward_model: RewardModel,
        starts: DreamStarts,
        cfg: DreamConfig,
        carry: bool = False,
    ) -> None:
        """Choose the arithmetic; kernels copy the memories' weights now.

        Args:
            memories: M memories with the same config; the controller sees the first one's h.
            reward_model: meaning of the reward head.
            starts: warmed by these memories, in this order.
            cfg: what to dream.
            carry: whether controllers see [h, c] in place of h.

        Raises:
            UserError: the arguments do not fit each other, or there are no kernels for this device
                or this kind of M.
        """
        if not memories:
            raise UserError("the dream needs at least one memory")
        self.memory_cfg, self.device = memories[0].cfg, memories[0].device
        if any(memory.cfg != self.memory_cfg for memory in memories):
            raise UserError("the memories of an ensemble must have the same config")
        if reward_model.kind != self.memory_cfg.reward:
            raise UserError(
                f"the reward model is {reward_model.kind!r}, "
                f"but M's reward head says {self.memory_cfg.reward!r}"
            )
        memories[0].seen_size(carry)
        self.memories, self.reward_model, self.cfg = list(memories), reward_model, cfg
        self.carry = carry
        starts.check(self.memories)
        self.starts = starts
        kind, on_cpu = type(memories[0]), self.device.type == "cpu"
        pack = PACKED.get(kind) if cfg.backend != "torch" and on_cpu else None
        if cfg.backend == "kernels" and pack is None:
            why = f"a {kind.__name__}, which has no kernels" if on_cpu else f"on {self.device}"
            cfg.refuse("backend", f"torch or auto, since M is {why}")
        fast = cfg.dtype == "auto" and has_fast_bfloat16(self.device)
        self._bfloat16 = cfg.dtype == "bfloat16" or fast
        dtype = torch.bfloat16 if self._bfloat16 else torch.float32
        self._blocks = Blocks(cfg, self.device)
        self._packed = None if pack is None else [pack(memory, dtype) for memory in memories]

    def world(
        self,
        members: Sequence[int],
        dreamer: int | None,
        index: NDArray[np.int64],
        mask: Array | None,
    ) -> World:
        """R dreams of ``members`` at the starts of ``index`` (R,); the rest as in `Batch`."""
        states = self.starts.at(members, index)
        batch = Batch(self.reward_model, self.cfg, dreamer, states, mask, self.carry)
        if self._packed is not None:
            return KernelWorld([self._packed[m] for m in members], batch)
        return TorchWorld([self.memories[m] for m in members], batch, self._bfloat16)

    def rollout(
        self,
        make_act: MakeAct,
        population: Array,
        seed: int,
        record: bool = False,
        value: Value | None = None,
    ) -> DreamResult:
        """Let every candidate dream.

        Args:
            make_act: turns parameters into actions.
            population: (P, N) parameters.
            seed: fixes starts, masks and noise, whatever the population's size.
            record: keep the actions, 256 MiB at most.
            value: of the state at the horizon, added to the returns of dreams that reach it.

        Raises:
            UserError: a recording too large.
            FloatingPointError: a return is not finite; the candidate is named.
        """
        assert population.ndim == 2, f"population is (P, N), got {population.shape}"
        shape = (len(population), self.cfg.episodes)
        sizes = (*shape, self.cfg.horizon, self.memory_cfg.action_size)
        if record and 4 * math.prod(sizes) > RECORD_LIMIT:
            raise UserError(
                f"recording {shape[0]} x {shape[1]} dreams of {self.cfg.horizon} steps takes "
                f"{4 * math.prod(sizes) >> 20} MiB; record fewer (at most {RECORD_LIMIT >> 20} MiB)"
            )
        actions = np.zeros(sizes, np.float32) if record else None
        total = DreamResult.zeros(*shape, actions=actions)

        @torch.inference_mode()
        def run(chunk: _Chunk) -> None:
            part = population[chunk.candidates.start : chunk.candidates.stop]
            act = make_act(torch.from_numpy(np.ascontiguousarray(part)).to(self.device))
            self._dream(chunk, act, seed, value, total)

        self._run_all(run, self._chunks(*shape))
        _check_finite(total.returns, seed)
        return total

    def returns(self, make_act: MakeAct, population: Array, seed: int) -> NDArray[np.float64]:
        """(P, E) returns of `rollout`; on a GPU by graphs, which are kept with ``make_act``."""
        if self.device.type != "cuda":
            return self.rollout(make_act, population, seed).returns
        return self.replayed(make_act, population, seed)

    @torch.inference_mode()
    def replayed(self, make_act: MakeAct, population: Array, seed: int) -> NDArray[np.float64]:
        """(P, E) returns of `rollout`, a few steps at a time in which no value is looked at."""
        returns = np.zeros((len(population), self.cfg.episodes))
        for chunk in self._chunks(*returns.shape):
            noise, world = self._open(chunk, seed)
            assert isinstance(world, TorchWorld)
            shape = (len(chunk.candidates), len(chunk.episodes))
            members = (tuple(chunk.members), chunk.dreamer)
            part = np.ascontiguousarray(population[chunk.candidates])
            found = self._blocks.returns(world, members, noise, make_act, part, shape)
            returns[np.ix_(chunk.candidates, chunk.episodes)] = found
        _check_finite(returns, seed)
        return returns

    def _open(self, chunk: _Chunk, seed: int) -> tuple[DreamNoise, World]:
        """The noise of a chunk's dreams, and these before their first step."""
        cfg, rows = self.cfg, len(chunk.candidates) * len(chunk.episodes)
        candidates = [-1] if cfg.common_random_numbers else chunk.candidates
        keys = [(episode, candidate) for candidate in candidates for episode in chunk.episodes]
        noise = DreamNoise(seed, keys, self.memory_cfg.z_dim)
        masks = (len(chunk.members), self.memory_cfg.hidden_size)
        index, mask = noise.begin(len(self.starts), masks, cfg.dropout)
        index = np.tile(index, rows // noise.n)
        return noise, self.world(chunk.members, chunk.dreamer, index, mask)

    def spread(
        self,
        work: Callable[[_Part], NDArray[np.float64]],
        population: Array,
        seed: int,
        executor: Executor,
    ) -> NDArray[np.float64]:
        """(P, E) returns of `rollout`, bit for bit, with its chunks dreamt by workers.

        ``work`` is `dream_part` with a `MakeAct`, the same object for every call.
        """
        shape = (len(population), self.cfg.episodes)
        chunks, returns = self._chunks(*shape), np.zeros(shape)
        parts = [
            _Part(seed, chunk, shape, population[chunk.candidates.start : chunk.candidates.stop])
            for chunk in chunks
        ]
        for index, found in executor.map(work, parts):
            returns[np.ix_(chunks[index].candidates, chunks[index].episodes)] = found
        _check_finite(returns, seed)
        return returns

    @torch.inference_mode()
    def dream_part(self, make_act: MakeAct, part: _Part) -> NDArray[np.float64]:
        """Returns of one chunk's candidates in its episodes; what a worker does."""
        total, chunk = DreamResult.zeros(*part.shape), part.chunk
        act = make_act(torch.from_numpy(np.ascontiguousarray(part.population)))
        self._dream(chunk, act, part.seed, None, total)
        return total.returns[np.ix_(chunk.candidates, chunk.episodes)]

    def _chunks(self, count: int, episodes: int) -> list[_Chunk]:
        """Cut (candidate, episode) into chunks, each with one set of memories."""
        number = len(self.memories)
        groups: list[tuple[list[int], int | None]]
        if number == 1 or self.cfg.ensemble == "first":
            groups = [([0], 0)]
        elif self.cfg.ensemble == "per_step":
            groups = [(list(range(number)), None)]
        else:  # episode e is dreamt by memory e mod M, and the first one follows for its h
            groups = [([0], 0), *(([0, m], 1) for m in range(1, number))]
        chunks = []
        for g, group in enumerate(groups):
            mine = list(range(g, episodes, len(groups)))
            limit = max(self.cfg.chunk_rows, DEVICE_ROWS)
            if self.device.type == "cpu":  # the same for any number of threads, and two at least
                half = max(FEW_ROWS, -(-count * len(mine) // 2))
                limit = min(self.cfg.chunk_rows, half)
            for e in range(0, len(mine), limit):
                part = mine[e : e + limit]
                wide = max(1, limit // len(part))
                for p in range(0, count, wide):
                    chunks.append(_Chunk(range(p, min(p + wide, count)), part, *group))
        # the longest first, so that threads end at about the same time
        return sorted(chunks, key=_Chunk.work, reverse=True)

    def _threads(self) -> int:
        on_cpu = self.cfg.threads or min(torch.get_num_threads(), MOST_THREADS)
        return on_cpu if self.device.type == "cpu" else 1

    def _run_all(self, run: Callable[[_Chunk], None], chunks: list[_Chunk]) -> None:
        with CoreThreads(min(self._threads(), len(chunks))) as threads:
            deque(threads.map(run, chunks), maxlen=0)

    def _dream(
        self, chunk: _Chunk, act: Act, seed: int, value: Value | None, total: DreamResult
    ) -> None:
        """Roll one chunk out and write its results into ``total``."""
        cfg, shape = self.cfg, (len(chunk.candidates), len(chunk.episodes))
        rows, where = shape[0] * shape[1], np.ix_(chunk.candidates, chunk.episodes)
        noise, world = self._open(chunk, seed)
        part, weight = DreamResult.zeros(rows), 1.0
        running = _Running(world, rows, noise.n)
        for t in range(cfg.horizon):
            z, h = running.seen()
            action = act(z.view(*shape, -1), h.view(*shape, -1)).reshape(rows, -1)
            if total.actions is not None:
                taken = action.float().cpu().numpy().reshape(*shape, -1)
                total.actions[:, :, t][where] = taken
            part.add(running.step(action, *noise.step()), weight, running.rows)
            weight *= cfg.discount
            ended = part.terminated[running.rows]
            if ended.all():
                break
            if self.device.type == "cpu" and ended.mean() >= ENDED:
                running.keep(~ended)
        rest = 0.0 if value is None else weight * value(*running.seen()).double().cpu().numpy()
        returns = part.returns + np.where(part.terminated, 0.0, rest)
        total.returns[where] = returns.reshape(shape)
        total.lengths[where] = part.lengths.reshape(shape)
        total.terminated[where] = part.terminated.reshape(shape)


@dataclass(frozen=True)
class DreamReturns:
    """The dream as a `ReturnFunction`: mean returns over the config's episodes."""

    engine: DreamEngine
    make_act: MakeAct
    executor: Executor | None = None
    """whose workers dream a population's chunks (default: this process's threads do, which wait for
    Python's lock)"""

    @cached_property
    def _work(self) -> Callable[[_Part], NDArray[np.float64]]:
        """What workers do; one object, so that M travels once."""
        return partial(self.engine.dream_part, self.make_act)

    def __call__(self, population: Array, seed: int) -> NDArray[np.float64]:
        """(P, N) parameters and a seed to (P,) mean returns."""
        if self.executor is None or len(population) == 1:
            returns = self.engine.returns(self.make_act, population, seed)
        else:
            returns = self.engine.spread(self._work, population, seed, self.executor)
        return np.asarray(returns.mean(1))
