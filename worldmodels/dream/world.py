"""One step of the dream for a batch of rows: noise, rewards, terminations, and M in plain torch.

A dream's start, mask and noise depend on (seed, episode) and, unless they are common random
numbers, on the candidate; never on the number of dreams, the device or the thread.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodels.dream.config import DreamConfig, Ends
from worldmodels.dream.starts import Array, DreamStarts
from worldmodels.memory.interface import Memory, MemoryOutput, MemoryState
from worldmodels.memory.mixture import mixture_mean
from worldmodels.memory.rewards import RewardModel

Act: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""z (P, E, Z) and h (P, E, H), or [h, c], to M's action input (P, E, A): numbers, or one-hot
vectors."""

MakeAct: TypeAlias = Callable[[Tensor], Act]
"""Parameters (P, N) of some candidates to what acts for them; called once per chunk."""

Value: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""z (R, Z) and h (R, H), or [h, c], to the value (R,) of the rest of each dream."""

BLOCK = 32
"""Steps of noise drawn at a time."""

EXTRA_UNIFORMS = 3
"""Uniform numbers per step beyond one per latent dimension: reward, termination, memory."""

_START, _STEPS = 1, 2


def draw_mask(rng: np.random.Generator, shape: tuple[int, ...], dropout: float) -> Array | None:
    """Dropout mask, scaled by 1/(1-p); None without dropout."""
    if dropout <= 0:
        return None
    kept = rng.random(shape, dtype=np.float32) >= dropout
    return (kept / np.float32(1 - dropout)).astype(np.float32)


class DreamNoise:
    """Noise of n dreams, step by step; each dream has counter-based streams of its own."""

    def __init__(self, seed: int, dreams: Sequence[tuple[int, int]], z_dim: int) -> None:
        """Open the streams of n dreams (episode, candidate); -1 for common random numbers."""
        self.n = len(dreams)
        self._keys = [(seed, episode, candidate + 1) for episode, candidate in dreams]
        self._streams = [self._open(key, _STEPS) for key in self._keys]
        self._uniform = np.empty((BLOCK, self.n, z_dim + EXTRA_UNIFORMS), np.float32)
        self._normal = np.empty((BLOCK, self.n, z_dim), np.float32)
        self._next = BLOCK

    @staticmethod
    def _open(key: tuple[int, int, int], purpose: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence((*key, purpose))))

    def begin(
        self, starts: int, shape: tuple[int, int], dropout: float
    ) -> tuple[NDArray[np.int64], Array | None]:
        """Draw (n,) indices of ``starts``, and masks (M, n, H) of `draw_mask`; shape is (M, H)."""
        streams = [self._open(key, _START) for key in self._keys]
        index = np.array([stream.integers(starts) for stream in streams], np.int64)
        masks = [draw_mask(stream, shape, dropout) for stream in streams]
        drawn = [mask for mask in masks if mask is not None]
        return index, np.stack(drawn, 1) if drawn else None

    def step(self) -> tuple[Array, Array]:
        """Noise of the next step: uniform (n, Z + 3) in [0, 1) and standard normal (n, Z).

        The arrays are views that the next block overwrites.
        """
        if self._next == BLOCK:
            self._draw()
            self._next = 0
        self._next += 1
        return self._uniform[self._next - 1], self._normal[self._next - 1]

    def block(self) -> tuple[Array, Array]:
        """Noise of the next `BLOCK` steps, (BLOCK, n, ...), where no step has been taken."""
        assert self._next == BLOCK
        self._draw()
        return self._uniform.copy(), self._normal.copy()

    def _draw(self) -> None:
        for i, stream in enumerate(self._streams):
            self._uniform[:, i] = stream.random(self._uniform[:, i].shape, dtype=np.float32)
            self._normal[:, i] = stream.standard_normal(self._normal[:, i].shape, np.float32)


class WorldStep(NamedTuple):
    """Result of a step of the dream, for R rows."""

    reward: Array
    """(R,) penalties subtracted"""
    terminated: NDArray[np.bool_]
    """(R,)"""
    disagreement: Array | None
    """(R,) standard deviation of the memories' means of z; None where one memory dreams alone"""


def reward_of(model: RewardModel, cfg: DreamConfig, output: Tensor, uniform: Tensor) -> Tensor:
    """Reward (R,) from the reward head's output (R, ...), less the penalty for no event."""
    paid = model.sampled(output, uniform) if cfg.reward == "sampled" else model.expected(output)
    if not cfg.no_event_penalty or not model.has_events:
        return paid
    lacking = (1 - model.events(output) / cfg.no_event_below).clamp_min(0)
    return paid - cfg.no_event_penalty * abs(model.event_value) * lacking


def ended(cfg: DreamConfig | Ends, logit: Tensor, uniform: Tensor) -> Tensor:
    """Whether the dream ends (R,) bool: its probability exceeds a fixed or a drawn limit."""
    if cfg.termination == "off":
        return torch.zeros_like(logit, dtype=torch.bool)
    limit = uniform if cfg.termination == "sampled" else cfg.termination_threshold
    return torch.sigmoid(logit) > limit


Outputs: TypeAlias = tuple[Tensor, Tensor, Tensor | None]
"""Outputs of the reward (R, ...) and the termination head (R,) of the memory that dreams; every
memory's mean of z (M, R, Z), where the one that dreams is drawn."""


class Judged(NamedTuple):
    """A `WorldStep` as tensors."""

    reward: Tensor
    terminated: Tensor
    disagreement: Tensor | None


class Batch(NamedTuple):
    """R dreams of M memories before their first step."""

    reward_model: RewardModel
    """meaning of the reward head"""
    cfg: DreamConfig
    """temperature, reward, termination and disagreement are read"""
    dreamer: int | None
    """which of the memories dreams; None draws one for every row and step"""
    states: DreamStarts
    """R of them; the first memory gives the controller its h, and c"""
    mask: Array | None
    """(M, n, H) dropout, row r takes mask r mod n; None without dropout"""
    carry: bool = False
    """whether the controller also sees the first memory's c"""


class World(ABC):
    """R dreams, as each of M memories knows them."""

    def __init__(self, batch: Batch, device: torch.device | None = None) -> None:
        """Put the rows where they begin; on the CPU where no device is given."""
        self.reward_model, self.cfg, self.dreamer, states, mask, self.carry = batch
        self.device = device
        self.z = self._tensor(states.z)
        self.h, self.c = ([self._tensor(a) for a in part] for part in (states.h, states.c))
        self.mask = None if mask is None else self._tensor(mask)

    def _tensor(self, array: Array) -> Tensor:
        return torch.tensor(array, dtype=torch.float32, device=self.device)

    def seen(self) -> tuple[Tensor, Tensor]:
        """What the controller sees, float32: z (R, Z) and h (R, H), or [h, c], of the first M."""
        return self.z, MemoryState(self.h[0], self.c[0]).seen(self.carry)

    def put(self, index: NDArray[np.int64], states: DreamStarts, mask: Array | None) -> None:
        """Restart the k rows of ``index`` at k states; where the world has masks, one for each."""
        self.z[index] = self._tensor(states.z)
        for mine, new in ((self.h, states.h), (self.c, states.c)):
            for state, array in zip(mine, new, strict=True):
                state[index] = self._tensor(array)
        if self.mask is not None and mask is not None:
            self.mask[:, index] = self._tensor(mask)

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Go on with the k rows of these indices; each takes noise of its own from here on."""
        if self.mask is not None:
            self.mask = self.mask[:, torch.from_numpy(rows % self.mask.shape[1])]
        self.z = self.z[rows]
        self.h, self.c = ([state[rows] for state in part] for part in (self.h, self.c))

    @abstractmethod
    def _advance(self, action: Tensor, uniform: Array, normal: Array) -> Outputs:
        """Draw z_{t+1}; arguments of `step`."""

    def step(self, action: Tensor, uniform: Array, normal: Array) -> WorldStep:
        """Dream one step: row r takes action (R, A) and the noise (n, ...) of row r mod n."""
        outputs = self._advance(action, uniform, normal)
        drawn = torch.from_numpy(uniform[:, uniform.shape[1] - EXTRA_UNIFORMS :])
        reward, terminated, apart = self.judge(outputs, drawn.to(outputs[0].device))
        disagreement = None if apart is None else apart.cpu().numpy()
        return WorldStep(reward.cpu().numpy(), terminated.cpu().numpy(), disagreement)

    def judge(self, outputs: Outputs, drawn: Tensor) -> Judged:
        """What M's outputs mean, by uniform numbers (n, 2 or more) for reward and end."""
        cfg, (output, logit, means) = self.cfg, outputs
        paid = reward_of(self.reward_model, cfg, output.unflatten(0, (-1, len(drawn))), drawn[:, 0])
        reward = paid.flatten()
        terminated = ended(cfg, logit.view(-1, len(drawn)), drawn[:, 1]).flatten()
        if means is None:
            return Judged(reward, terminated, None)
        disagreement = means.var(0, correction=0).mean(-1).sqrt()
        reward = reward - cfg.disagreement_penalty * disagreement
        if cfg.disagreement_limit > 0:
            terminated = terminated | (disagreement > cfg.disagreement_limit)
        return Judged(reward, terminated, disagreement)


class TorchWorld(World):
    """The dream by `Memory.step`: the reference, on any device; bfloat16 by autocast."""

    def __init__(self, memories: Sequence[Memory], batch: Batch, bfloat16: bool) -> None:
        """Dream by M memories."""
        super().__init__(batch, memories[0].device)
        self.memories, self.bfloat16 = list(memories), bfloat16

    def _repeat(self, noise: Tensor) -> Tensor:
        """Noise of n dreams (n, ...) for all R rows."""
        return noise.repeat(len(self.z) // len(noise), 1)

    def at(self, z: Tensor, h: Tensor, c: Tensor, mask: Tensor | None) -> TorchWorld:
        """The same world in another state: z (R, Z), h (M, R, H), c (M, R, C), mask (M, n, H)."""
        other = copy.copy(self)
        other.z, other.h, other.c, other.mask = z, list(h), list(c), mask
        return other

    def _advance(self, action: Tensor, uniform: Array, normal: Array) -> Outputs:
        return self.advance(action, self._tensor(uniform), self._tensor(normal))

    def advance(self, action: Tensor, uniform: Tensor, normal: Tensor) -> Outputs:
        """Draw z_{t+1}: actions (R, A), noise (n, Z + 3) and (n, Z) on the device."""
        outputs = []
        device = self.z.device.type
        cast = torch.autocast(device, torch.bfloat16) if self.bfloat16 else nullcontext()
        for m, memory in enumerate(self.memories):
            mask = None if self.mask is None else self._repeat(self.mask[m])
            with cast:
                state = MemoryState(self.h[m], self.c[m])
                output, state = memory.step(self.z, action, state, mask)
            self.h[m], self.c[m] = state.h.float(), state.c.float()
            outputs.append(MemoryOutput(*(x.float() for x in output)))
        drawn, means = self._repeat(uniform), None
        if self.dreamer is None:
            means = torch.stack([mixture_mean(o.log_pi, o.mu) for o in outputs])
        out = self._choose(outputs, drawn[:, -1])
        latents, noise = drawn[:, :-EXTRA_UNIFORMS], self._repeat(normal)
        self.z = out.sample(latents, noise, self.cfg.temperature)
        return out.reward, out.terminated_logit, means

    def _choose(self, outputs: list[MemoryOutput], uniform: Tensor) -> MemoryOutput:
        if self.dreamer is not None:
            return outputs[self.dreamer]
        chosen = (uniform * len(outputs)).long().clamp_max(len(outputs) - 1)
        rows = torch.arange(len(chosen), device=chosen.device)
        stacked = (torch.stack(parts) for parts in zip(*outputs, strict=True))
        return MemoryOutput(*(parts[chosen, rows] for parts in stacked))
