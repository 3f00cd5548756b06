"""The dream engine: M rolled out on its own predictions under population x episodes at once.

Rows (candidate, episode) are cut into chunks of a few hundred. A chunk dreams to its end on one
thread with everything it touches in that core's cache; threads meet only when all chunks are done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodels.dream.backend import Backend
from worldmodels.dream.config import DreamConfig
from worldmodels.dream.noise import DreamNoise
from worldmodels.dream.results import DreamRecord, DreamResult, Recorder, Tally
from worldmodels.dream.starts import DreamStarts
from worldmodels.dream.world import with_penalty
from worldmodels.memory.interface import Memory
from worldmodels.memory.rewards import RewardModel

Act: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""z (P, E, Z) and h (P, E, H) to M's action input (P, E, A): numbers, or one-hot vectors."""

Value: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""z (R, Z) and h (R, H) to what the rest of each dream is worth (R,)."""

DEVICE_ROWS = 1 << 16
"""Rows stepped together on a device that is no CPU."""

MOST_THREADS = 4
"""Threads where the config leaves their number open. More were slower, probably since each needs
Python's lock between two compiled steps: a generation took 0.85, 0.50, 0.53, 1.1 and 2.0 s with 1,
2, 4, 8 and 16 of them."""


class MakeAct(Protocol):
    """Parameters (P, N) of some candidates to what acts for them; called once per chunk."""

    def __call__(self, population: Tensor) -> Act:
        """Prepare the candidates' weights."""
        ...


class _Chunk(NamedTuple):
    candidates: range
    episodes: list[int]
    members: list[int]
    """memories that run; the first one gives h"""
    dreamer: int | None
    """place in members of the one that dreams; None draws"""


class DreamEngine:
    """Rolls memories out under many controllers."""

    def __init__(
        self,
        memories: Sequence[Memory],
        reward_model: RewardModel,
        starts: DreamStarts,
        cfg: DreamConfig,
    ) -> None:
        """Prepare the engine; the memories' weights are read now, and not again.

        Args:
            memories: M memories with the same config; the controller sees the first one's h.
            reward_model: meaning of the reward head.
            starts: warmed by these memories, in this order.
            cfg: what to dream.

        Raises:
            UserError: memories, starts, reward model and config do not fit each other.
        """
        self.backend = Backend(memories, reward_model, cfg)
        self.backend.check_starts(starts)
        self.starts, self.cfg = starts, cfg

    def rollout(
        self,
        make_act: MakeAct,
        population: NDArray[np.float32],
        seed: int,
        episodes: int | None = None,
        record: bool = False,
        value: Value | None = None,
    ) -> DreamResult:
        """Let every candidate dream.

        Args:
            make_act: turns parameters into actions.
            population: (P, N) parameters.
            seed: fixes starts, masks and noise, whatever the population's size.
            episodes: E dreams per candidate; None takes the config's.
            record: keep every step; refused where that would take more than 256 MiB.
            value: worth of the state at the horizon, discounted and added to the returns of dreams
                that have not ended there.

        Raises:
            UserError: a recording too large.
            FloatingPointError: a return is not finite; the candidate is named.
        """
        assert population.ndim == 2, f"population is (P, N), got {population.shape}"
        shape = (len(population), self.cfg.episodes if episodes is None else episodes)
        memory_cfg, horizon = self.backend.memory_cfg, self.cfg.horizon
        book = None
        if record:
            book = DreamRecord.empty(shape, horizon, memory_cfg.z_dim, memory_cfg.action_size)
        total = Tally(shape)

        def run(chunk: _Chunk) -> None:
            part = self._dream(chunk, make_act, population, seed, book, value)
            total.put(chunk.candidates, chunk.episodes, part)

        self._run_all(run, self._chunks(*shape))
        bad = np.flatnonzero(~np.isfinite(total.returns).all(1))
        if len(bad):
            raise FloatingPointError(
                f"dream returns of candidate {bad[0]} of {shape[0]} (seed {seed}) are not finite: "
                f"{total.returns[bad[0]]}"
            )
        followed = self.cfg.ensemble == "per_step" and len(self.backend.memories) > 1
        disagreement = total.disagreement / total.lengths if followed else None
        return DreamResult(total.returns, total.lengths, ~total.alive, disagreement, book)

    def _chunks(self, count: int, episodes: int) -> list[_Chunk]:
        """Cut (candidate, episode) into chunks, each with one set of memories."""
        number = len(self.backend.memories)
        groups: list[tuple[list[int], int | None]]
        if number == 1 or self.cfg.ensemble == "first":
            groups = [([0], 0)]
        elif self.cfg.ensemble == "per_step":
            groups = [(list(range(number)), None)]
        else:  # episode e is dreamt by memory e mod M, and the first one follows for its h
            groups = [([0], 0), *(([0, m], 1) for m in range(1, number))]
        limit = self._rows_per_chunk(count * episodes)
        chunks = []
        for g, (members, dreamer) in enumerate(groups):
            mine = list(range(g, episodes, len(groups)))
            for e in range(0, len(mine), limit):
                part = mine[e : e + limit]
                wide = max(1, limit // len(part))
                for p in range(0, count, wide):
                    candidates = range(p, min(p + wide, count))
                    chunks.append(_Chunk(candidates, part, members, dreamer))
        return chunks

    def _threads(self) -> int:
        if self.backend.device.type != "cpu":
            return 1
        return self.cfg.threads or min(torch.get_num_threads(), MOST_THREADS)

    def _rows_per_chunk(self, rows: int) -> int:
        if self.backend.device.type != "cpu":
            return max(self.cfg.chunk_rows, DEVICE_ROWS)
        return max(1, min(self.cfg.chunk_rows, -(-rows // self._threads())))

    def _run_all(self, run: Callable[[_Chunk], None], chunks: list[_Chunk]) -> None:
        threads = min(self._threads(), len(chunks))
        if threads == 1:
            for chunk in chunks:
                run(chunk)
            return
        before = torch.get_num_threads()
        # One thread per chunk: torch's own threads would only wait for each other.
        try:
            with ThreadPoolExecutor(threads, "dream", torch.set_num_threads, (1,)) as pool:
                for future in [pool.submit(run, chunk) for chunk in chunks]:
                    future.result()
        finally:
            torch.set_num_threads(before)

    @torch.inference_mode()
    def _dream(
        self,
        chunk: _Chunk,
        make_act: MakeAct,
        population: NDArray[np.float32],
        seed: int,
        book: DreamRecord | None,
        value: Value | None,
    ) -> Tally:
        """Roll one chunk out to its end."""
        cfg, starts = self.cfg, self.starts
        wide, tall = len(chunk.candidates), len(chunk.episodes)
        noise = self._noise(chunk, seed)
        masks = (len(chunk.members), self.backend.memory_cfg.hidden_size)
        index, mask = noise.begin(len(starts), masks, cfg.dropout)
        index = np.tile(index, wide * tall // noise.n)
        world = self.backend.world(chunk.members, chunk.dreamer)
        h, c = (
            np.stack([state[m][index] for m in chunk.members]) for state in (starts.h, starts.c)
        )
        world.begin(starts.z[index], h, c, mask)
        part = np.ascontiguousarray(population[chunk.candidates.start : chunk.candidates.stop])
        act = make_act(torch.from_numpy(part).to(self.backend.device))
        tally, weight = Tally((wide * tall,)), 1.0
        recorder = Recorder(book, chunk.candidates, chunk.episodes)
        recorder.z(0, world.z)
        for t in range(cfg.horizon):
            seen = world.z.view(wide, tall, -1), world.h.view(wide, tall, -1)
            action = act(*seen).reshape(wide * tall, -1)
            step = with_penalty(world.step(action, *noise.step()), cfg)
            recorder.step(t, action, step.reward)
            recorder.z(t + 1, world.z)
            tally.add(step, weight)
            weight *= cfg.discount
            if not tally.alive.any():
                break
        if value is not None:
            rest = value(world.z, world.h).double().cpu().numpy()
            tally.returns += np.where(tally.alive, weight * rest, 0.0)
        return tally

    def _noise(self, chunk: _Chunk, seed: int) -> DreamNoise:
        candidates = [-1] if self.cfg.common_random_numbers else chunk.candidates
        keys = [(episode, candidate) for candidate in candidates for episode in chunk.episodes]
        return DreamNoise(seed, keys, self.backend.memory_cfg.z_dim)


class DreamReturns:
    """The dream as a `ReturnFunction`: a population's mean returns over the config's episodes."""

    def __init__(self, engine: DreamEngine, make_act: MakeAct) -> None:
        """Judge by ``engine``, with candidates that act by ``make_act``."""
        self.engine, self.make_act = engine, make_act
        self.steps = 0
        """dream steps so far, for the frame ledger"""

    def __call__(self, population: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
        """(P, N) parameters to (P,) mean returns; the seed is the same luck for all."""
        result = self.engine.rollout(self.make_act, population, seed)
        self.steps += result.steps
        mean: NDArray[np.float64] = result.returns.mean(1)
        return mean


__all__ = ["Act", "DreamEngine", "DreamResult", "DreamReturns", "MakeAct", "Value"]
