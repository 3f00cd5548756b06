"""The dream engine: M rolled out on its own predictions under population x episodes at once.

A chunk of rows (candidate, episode) dreams to its end on one thread with everything it touches in
that core's cache; threads meet only when all chunks are done.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray

from worldmodels._threads import CoreThreads
from worldmodels.dream.blocks import Blocks
from worldmodels.dream.chunks import Chunk, DreamResult, Part, Running, cut
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
)
from worldmodels.executors import Executor
from worldmodels.memory.interface import Memory
from worldmodels.memory.rewards import RewardModel
from worldmodels.protocols import UserError
from worldmodels.runs import has_fast_bfloat16

MOST_THREADS = 4
"""Threads where the config leaves their number open. More were slower, probably GIL contention:
a generation took 0.85, 0.50, 0.53, 1.1 and 2.0 s with 1, 2, 4, 8 and 16."""

RECORD_LIMIT = 1 << 28
"""Most bytes that a recording may take."""


def _check_finite(returns: NDArray[np.float64], seed: int) -> None:
    bad = np.flatnonzero(~np.isfinite(returns).all(1))
    if len(bad):
        raise FloatingPointError(
            f"dream returns of candidate {bad[0]} of {len(returns)} (seed {seed}) are not finite: "
            f"{returns[bad[0]]}"
        )


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
        def run(chunk: Chunk) -> None:
            part = population[chunk.candidates.start : chunk.candidates.stop]
            act = make_act(torch.from_numpy(np.ascontiguousarray(part)).to(self.device))
            self._dream(chunk, act, seed, value, total)

        self._run_all(run, self._cut(*shape))
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
        for chunk in self._cut(*returns.shape):
            noise, world = self._open(chunk, seed)
            assert isinstance(world, TorchWorld)
            shape = (len(chunk.candidates), len(chunk.episodes))
            members = (tuple(chunk.members), chunk.dreamer)
            part = np.ascontiguousarray(population[chunk.candidates])
            found = self._blocks.returns(world, members, noise, make_act, part, shape)
            returns[np.ix_(chunk.candidates, chunk.episodes)] = found
        _check_finite(returns, seed)
        return returns

    def _open(self, chunk: Chunk, seed: int) -> tuple[DreamNoise, World]:
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
        work: Callable[[Part], NDArray[np.float64]],
        population: Array,
        seed: int,
        executor: Executor,
    ) -> NDArray[np.float64]:
        """(P, E) returns of `rollout`, bit for bit, with its chunks dreamt by workers.

        ``work`` is `dream_part` with a `MakeAct`, the same object for every call.
        """
        shape = (len(population), self.cfg.episodes)
        chunks, returns = self._cut(*shape), np.zeros(shape)
        parts = [
            Part(seed, chunk, shape, population[chunk.candidates.start : chunk.candidates.stop])
            for chunk in chunks
        ]
        for index, found in executor.map(work, parts):
            returns[np.ix_(chunks[index].candidates, chunks[index].episodes)] = found
        _check_finite(returns, seed)
        return returns

    @torch.inference_mode()
    def dream_part(self, make_act: MakeAct, part: Part) -> NDArray[np.float64]:
        """Returns of one chunk's candidates in its episodes; what a worker does."""
        total, chunk = DreamResult.zeros(*part.shape), part.chunk
        act = make_act(torch.from_numpy(np.ascontiguousarray(part.population)))
        self._dream(chunk, act, part.seed, None, total)
        return total.returns[np.ix_(chunk.candidates, chunk.episodes)]

    def _cut(self, count: int, episodes: int) -> list[Chunk]:
        on_cpu = self.device.type == "cpu"
        return cut(count, episodes, len(self.memories), self.cfg, on_cpu)

    def _threads(self) -> int:
        on_cpu = self.cfg.threads or min(torch.get_num_threads(), MOST_THREADS)
        return on_cpu if self.device.type == "cpu" else 1

    def _run_all(self, run: Callable[[Chunk], None], chunks: list[Chunk]) -> None:
        with CoreThreads(min(self._threads(), len(chunks))) as threads:
            deque(threads.map(run, chunks), maxlen=0)

    def _dream(
        self, chunk: Chunk, act: Act, seed: int, value: Value | None, total: DreamResult
    ) -> None:
        """Roll one chunk out and write its results into ``total``."""
        cfg, shape = self.cfg, (len(chunk.candidates), len(chunk.episodes))
        rows, where = shape[0] * shape[1], np.ix_(chunk.candidates, chunk.episodes)
        noise, world = self._open(chunk, seed)
        part, weight = DreamResult.zeros(rows), 1.0
        running = Running(world, rows, noise.n)
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
            if self.device.type == "cpu":
                running.leave_out(ended)
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
    def _work(self) -> Callable[[Part], NDArray[np.float64]]:
        """What workers do; one object, so that M travels once."""
        return partial(self.engine.dream_part, self.make_act)

    def __call__(self, population: Array, seed: int) -> NDArray[np.float64]:
        """(P, N) parameters and a seed to (P,) mean returns."""
        if self.executor is None or len(population) == 1:
            returns = self.engine.returns(self.make_act, population, seed)
        else:
            returns = self.engine.spread(self._work, population, seed, self.executor)
        return np.asarray(returns.mean(1))
