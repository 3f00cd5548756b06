"""The dream engine: M rolled out on its own predictions under population x episodes at once.

Rows (candidate, episode) are cut into chunks of a few hundred. A chunk dreams to its end on one
thread with everything it touches in that core's cache; threads meet only when all chunks are done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodels.dream.config import DreamConfig
from worldmodels.dream.kernel_world import KernelWorld, PackedMemory
from worldmodels.dream.noise import DreamNoise
from worldmodels.dream.starts import DreamStarts
from worldmodels.dream.world import TorchWorld, World
from worldmodels.memory.mdn_rnn import MDNRNN, RewardModel
from worldmodels.protocols import UserError

Act: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""z (P, E, Z) and h (P, E, H) to M's action input (P, E, A): numbers, or one-hot vectors."""

RECORD_LIMIT = 1 << 28
"""Most bytes that a recording may take."""


class MakeAct(Protocol):
    """Parameters (P, N) of some candidates to what acts for them; called once per chunk."""

    def __call__(self, population: Tensor) -> Act:
        """Prepare the candidates' weights."""
        ...


@dataclass(frozen=True)
class DreamRecord:
    """Every step of a rollout, for pictures and diagnosis; after a dream's end it is rubbish."""

    z: NDArray[np.float32]
    """(P, E, T + 1, Z)"""
    action: NDArray[np.float32]
    """(P, E, T, A)"""
    reward: NDArray[np.float32]
    """(P, E, T)"""


@dataclass(frozen=True)
class DreamResult:
    """What P candidates met in E dreams each."""

    returns: NDArray[np.float64]
    """(P, E) discounted sums of rewards, penalties for disagreement subtracted"""
    lengths: NDArray[np.int64]
    """(P, E) steps until the end, that step included"""
    terminated: NDArray[np.bool_]
    """(P, E) whether the dream ended before the horizon"""
    disagreement: NDArray[np.float64] | None
    """(P, E) mean over a dream's steps; None unless ensemble is "per_step" """
    record: DreamRecord | None = None
    """every step, where asked for"""

    @property
    def steps(self) -> int:
        """Dream steps that counted."""
        return int(self.lengths.sum())


class _Chunk(NamedTuple):
    candidates: range
    episodes: list[int]
    members: list[int]
    """memories that run; the first one gives h"""
    dreamer: int | None
    """place in members of the one that dreams; None draws"""


class _Tally:
    """Running sums of one chunk's rows."""

    def __init__(self, rows: int) -> None:
        self.returns = np.zeros(rows)
        self.lengths = np.zeros(rows, np.int64)
        self.disagreement = np.zeros(rows)
        self.alive = np.ones(rows, np.bool_)

    def add(
        self,
        reward: NDArray[np.float32],
        terminated: NDArray[np.bool_],
        disagreement: NDArray[np.float32] | None,
        weight: float,
    ) -> None:
        """Count one step of the rows that still dream."""
        self.returns += np.where(self.alive, weight * reward.astype(np.float64), 0.0)
        self.lengths += self.alive
        if disagreement is not None:
            self.disagreement += np.where(self.alive, disagreement, 0.0)
        self.alive &= ~terminated


class DreamEngine:
    """Rolls memories out under many controllers."""

    def __init__(
        self,
        memories: Sequence[MDNRNN],
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
            UserError: memories, starts or reward model do not fit each other.
        """
        _check_fit(memories, reward_model, starts)
        self.memories, self.reward_model = list(memories), reward_model
        self.starts, self.cfg = starts, cfg
        self.memory_cfg = memories[0].cfg
        self.device = memories[0].mixture.weight.device
        self.bfloat16 = cfg.dtype == "bfloat16" or (cfg.dtype == "auto" and has_fast_bfloat16())
        self.kernels = cfg.backend == "kernels" or (
            cfg.backend == "auto" and self.device.type == "cpu"
        )
        if self.kernels and self.device.type != "cpu":
            raise UserError(
                f'DreamConfig.backend is "kernels", but M is on {self.device}; '
                'kernels run on the CPU, use "torch" or "auto"'
            )
        dtype = torch.bfloat16 if self.bfloat16 else torch.float32
        self._packed = [PackedMemory.of(m, dtype) for m in memories] if self.kernels else []

    def rollout(
        self,
        make_act: MakeAct,
        population: NDArray[np.float32],
        seed: int,
        episodes: int | None = None,
        record: bool = False,
    ) -> DreamResult:
        """Let every candidate dream.

        Args:
            make_act: turns parameters into actions.
            population: (P, N) parameters.
            seed: fixes starts, masks and noise.
            episodes: E dreams per candidate; None takes the config's.
            record: keep every step; refused where that would take more than 256 MiB.

        Raises:
            UserError: a recording too large.
            FloatingPointError: a return is not finite; the candidate is named.
        """
        assert population.ndim == 2, f"population is (P, N), got {population.shape}"
        count = len(population)
        episodes = self.cfg.episodes if episodes is None else episodes
        shape = (count, episodes)
        book = self._open_record(shape) if record else None
        tallies = _Tally(0)
        tallies.returns, tallies.lengths = np.zeros(shape), np.zeros(shape, np.int64)
        tallies.disagreement, tallies.alive = np.zeros(shape), np.zeros(shape, np.bool_)

        def run(chunk: _Chunk) -> None:
            where = np.ix_(chunk.candidates, chunk.episodes)
            tally = self._dream(chunk, make_act, population, seed, book)
            for name in ("returns", "lengths", "disagreement", "alive"):
                value = getattr(tally, name)
                getattr(tallies, name)[where] = value.reshape(len(chunk.candidates), -1)

        self._run_all(run, self._chunks(count, episodes))
        bad = np.flatnonzero(~np.isfinite(tallies.returns).all(1))
        if len(bad):
            raise FloatingPointError(
                f"dream returns of candidate {bad[0]} (of {count}, seed {seed}) are not finite: "
                f"{tallies.returns[bad[0]]}"
            )
        many = self.cfg.ensemble == "per_step" and len(self.memories) > 1
        return DreamResult(
            tallies.returns,
            tallies.lengths,
            ~tallies.alive,
            tallies.disagreement / tallies.lengths if many else None,
            book,
        )

    def _chunks(self, count: int, episodes: int) -> list[_Chunk]:
        """Cut (candidate, episode) into chunks, each with one set of memories."""
        number = len(self.memories)
        alone = self.cfg.ensemble == "first" or number == 1
        groups = 1 if alone or self.cfg.ensemble == "per_step" else number
        limit = self._rows_per_chunk(count * episodes)
        chunks = []
        for group in range(groups):
            if alone or (groups > 1 and group == 0):
                members, dreamer = [0], 0
            elif groups > 1:
                members, dreamer = [0, group], 1
            else:
                members, dreamer = list(range(number)), None
            mine = list(range(group, episodes, groups))
            for e in range(0, len(mine), limit):
                part = mine[e : e + limit]
                wide = max(1, limit // len(part))
                for p in range(0, count, wide):
                    candidates = range(p, min(p + wide, count))
                    chunks.append(_Chunk(candidates, part, members, dreamer))
        return chunks

    def _threads(self) -> int:
        if self.device.type != "cpu":
            return 1
        return self.cfg.threads or torch.get_num_threads()

    def _rows_per_chunk(self, rows: int) -> int:
        if self.device.type != "cpu":
            return max(self.cfg.chunk_rows, 1 << 16)
        return max(1, min(self.cfg.chunk_rows, -(-rows // self._threads())))

    def _run_all(self, run: Callable[[_Chunk], None], chunks: list[_Chunk]) -> None:
        threads = min(self._threads(), len(chunks))
        if threads == 1:
            for chunk in chunks:
                run(chunk)
            return
        before = torch.get_num_threads()
        # One thread per chunk: torch's own threads would only wait for each other.
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for future in [pool.submit(run, chunk) for chunk in chunks]:
                future.result()
        torch.set_num_threads(before)

    def _world(self, chunk: _Chunk) -> World:
        if self.kernels:
            packed = [self._packed[m] for m in chunk.members]
            return KernelWorld(
                packed, chunk.dreamer, self.reward_model, self.memory_cfg, self.cfg
            )
        members = [self.memories[m] for m in chunk.members]
        return TorchWorld(members, chunk.dreamer, self.reward_model, self.cfg, self.bfloat16)

    @torch.inference_mode()
    def _dream(
        self,
        chunk: _Chunk,
        make_act: MakeAct,
        population: NDArray[np.float32],
        seed: int,
        book: DreamRecord | None,
    ) -> _Tally:
        """Roll one chunk out to its end."""
        cfg, (wide, tall) = self.cfg, (len(chunk.candidates), len(chunk.episodes))
        noise = self._noise(chunk, seed)
        index, mask = noise.begin(
            len(self.starts), (len(chunk.members), self.memory_cfg.hidden_size), cfg.dropout
        )
        index = np.tile(index, wide * tall // noise.n)
        world = self._world(chunk)
        states = (a[chunk.members][:, index] for a in (self.starts.h, self.starts.c))
        world.begin(self.starts.z[index], *states, mask)
        part = np.ascontiguousarray(population[chunk.candidates.start : chunk.candidates.stop])
        act = make_act(torch.from_numpy(part).to(self.device))
        tally, weight = _Tally(wide * tall), 1.0
        write = _Writer(book, chunk)
        write.z(0, world.z)
        for t in range(cfg.horizon):
            z, h = world.z.view(wide, tall, -1), world.h.view(wide, tall, -1)
            action = act(z, h).reshape(wide * tall, -1)
            reward, terminated, disagreement = world.step(action, *noise.step())
            if disagreement is not None:
                reward = reward - np.float32(cfg.disagreement_penalty) * disagreement
                if cfg.disagreement_limit > 0:
                    terminated = terminated | (disagreement > cfg.disagreement_limit)
            write.step(t, action, reward)
            write.z(t + 1, world.z)
            tally.add(reward, terminated, disagreement, weight)
            weight *= cfg.discount
            if not tally.alive.any():
                break
        return tally

    def _noise(self, chunk: _Chunk, seed: int) -> DreamNoise:
        candidates = [-1] if self.cfg.common_random_numbers else chunk.candidates
        keys = [(episode, candidate) for candidate in candidates for episode in chunk.episodes]
        return DreamNoise(seed, keys, self.memory_cfg.z_dim)

    def _open_record(self, shape: tuple[int, int]) -> DreamRecord:
        cfg, steps = self.memory_cfg, self.cfg.horizon
        size = 4 * shape[0] * shape[1] * steps * (cfg.z_dim + cfg.action_size + 1)
        if size > RECORD_LIMIT:
            raise UserError(
                f"recording {shape[0]} x {shape[1]} dreams of {steps} steps takes {size >> 20} MiB; "
                f"record fewer (at most {RECORD_LIMIT >> 20} MiB)"
            )
        return DreamRecord(
            np.zeros((*shape, steps + 1, cfg.z_dim), np.float32),
            np.zeros((*shape, steps, cfg.action_size), np.float32),
            np.zeros((*shape, steps), np.float32),
        )


class _Writer:
    """Puts a chunk's steps into a recording; does nothing where there is none."""

    def __init__(self, book: DreamRecord | None, chunk: _Chunk) -> None:
        self.book = book
        self.where = np.ix_(chunk.candidates, chunk.episodes)
        self.shape = (len(chunk.candidates), len(chunk.episodes))

    def z(self, t: int, z: Tensor) -> None:
        if self.book is not None:
            self.book.z[(*self.where, t)] = z.cpu().numpy().reshape(*self.shape, 1, -1)[:, :, 0]

    def step(self, t: int, action: Tensor, reward: NDArray[np.float32]) -> None:
        if self.book is not None:
            self.book.action[(*self.where, t)] = (
                action.float().cpu().numpy().reshape(*self.shape, -1)
            )
            self.book.reward[(*self.where, t)] = reward.reshape(self.shape)


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
        return result.returns.mean(1)


def has_fast_bfloat16() -> bool:
    """Whether this machine's CPU multiplies bfloat16 in hardware."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _check_fit(memories: Sequence[MDNRNN], reward_model: RewardModel, starts: DreamStarts) -> None:
    if not memories:
        raise UserError("the dream needs at least one memory")
    cfg = memories[0].cfg
    shape = (len(memories), len(starts), cfg.hidden_size)
    if any(memory.cfg != cfg for memory in memories):
        raise UserError("the memories of an ensemble must have the same config")
    if starts.z.shape[1] != cfg.z_dim or starts.h.shape != shape:
        raise UserError(
            f"dream starts have z {starts.z.shape} and h {starts.h.shape}; {len(memories)} memories "
            f"need ({len(starts)}, {cfg.z_dim}) and {shape}: build them again for these memories"
        )
    if reward_model.kind != cfg.reward:
        raise UserError(
            f"the reward model is {reward_model.kind!r}, but M's reward head says {cfg.reward!r}"
        )


__all__ = [
    "Act",
    "DreamEngine",
    "DreamRecord",
    "DreamResult",
    "DreamReturns",
    "MakeAct",
    "has_fast_bfloat16",
]
