"""One step of the dream for a batch of rows, in plain torch: the reference, on any device."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodels.dream.config import DreamConfig
from worldmodels.memory.interface import Memory, MemoryOutput, MemoryState
from worldmodels.memory.mixture import mixture_mean
from worldmodels.memory.rewards import RewardModel


class WorldStep(NamedTuple):
    """What a step of the dream gives, for R rows."""

    reward: NDArray[np.float32]
    """(R,)"""
    terminated: NDArray[np.bool_]
    """(R,)"""
    disagreement: NDArray[np.float32] | None
    """(R,) deviation of the memories' means of z; None where one memory dreams alone"""


class World(Protocol):
    """A batch of dreams; after `begin`, `z` and `h` are what the controller sees."""

    @property
    def z(self) -> Tensor:
        """(R, Z) float32."""
        ...

    @property
    def h(self) -> Tensor:
        """(R, H) float32, of the first memory."""
        ...

    def begin(
        self,
        z: NDArray[np.float32],
        h: NDArray[np.float32],
        c: NDArray[np.float32],
        mask: NDArray[np.float32] | None,
    ) -> None:
        """Put R rows at z (R, Z), h (M, R, H), c (M, R, C), masks (M, n, H); row r has r mod n."""
        ...

    def put(
        self,
        rows: NDArray[np.int64],
        z: NDArray[np.float32],
        h: NDArray[np.float32],
        c: NDArray[np.float32],
        mask: NDArray[np.float32] | None,
    ) -> None:
        """Begin k rows anew; shapes as in `begin` for k rows, which had a mask each or none."""
        ...

    def step(
        self, action: Tensor, uniform: NDArray[np.float32], normal: NDArray[np.float32]
    ) -> WorldStep:
        """Dream one step; row r takes action (R, A) and the noise of row r mod n."""
        ...


def disagreement_of(means: Tensor) -> Tensor:
    """Root mean square, over z, of the deviation across memories of their means (M, R, Z): (R,)."""
    return means.var(0, correction=0).mean(-1).sqrt()


def reward_of(model: RewardModel, cfg: DreamConfig, output: Tensor, uniform: Tensor) -> Tensor:
    """Reward (R,) from the reward head's output (R,), the penalty for misses subtracted."""
    paid = model.sampled(output, uniform) if cfg.reward == "sampled" else model.expected(output)
    if not cfg.miss_penalty or model.kind == "raw":
        return paid
    missed = (1 - model.events(output) / cfg.miss_below).clamp_min(0)
    return paid - cfg.miss_penalty * abs(model.hit_value) * missed


def ended(cfg: DreamConfig, logit: Tensor, uniform: Tensor) -> Tensor:
    """Whether the dream ends (R,) bool, from the termination head's output (R,)."""
    if cfg.termination == "off":
        return torch.zeros_like(logit, dtype=torch.bool)
    probability = torch.sigmoid(logit)
    if cfg.termination == "sampled":
        return uniform < probability
    return probability > cfg.termination_threshold


def with_penalty(step: WorldStep, cfg: DreamConfig) -> WorldStep:
    """The step after the memories' disagreement has cost reward, or has ended the dream."""
    if step.disagreement is None:
        return step
    reward = step.reward - np.float32(cfg.disagreement_penalty) * step.disagreement
    if cfg.disagreement_limit <= 0:
        return step._replace(reward=reward)
    too_far = step.disagreement > cfg.disagreement_limit
    return step._replace(reward=reward, terminated=step.terminated | too_far)


class TorchWorld:
    """The dream by `Memory.step`; bfloat16 by autocast."""

    def __init__(
        self,
        memories: Sequence[Memory],
        dreamer: int | None,
        reward_model: RewardModel,
        cfg: DreamConfig,
        bfloat16: bool,
    ) -> None:
        """Prepare.

        Args:
            memories: the first one gives the controller its h.
            dreamer: which of them dreams; None draws one for every row and step.
            reward_model: meaning of the reward head.
            cfg: temperature, reward and termination are read.
            bfloat16: multiply in bfloat16.
        """
        self.memories, self.dreamer = list(memories), dreamer
        self.reward_model, self.cfg, self.bfloat16 = reward_model, cfg, bfloat16
        self.device = memories[0].device
        self._mask: list[Tensor] | None = None

    def begin(
        self,
        z: NDArray[np.float32],
        h: NDArray[np.float32],
        c: NDArray[np.float32],
        mask: NDArray[np.float32] | None,
    ) -> None:
        """See `World.begin`."""
        self.z = self._to_device(z)
        self.states = [
            MemoryState(self._to_device(a), self._to_device(b)) for a, b in zip(h, c, strict=True)
        ]
        self._mask = None if mask is None else [self._rows(m) for m in mask]

    def put(
        self,
        rows: NDArray[np.int64],
        z: NDArray[np.float32],
        h: NDArray[np.float32],
        c: NDArray[np.float32],
        mask: NDArray[np.float32] | None,
    ) -> None:
        """See `World.put`."""
        self.z[rows] = self._to_device(z)
        for m, state in enumerate(self.states):
            state.h[rows], state.c[rows] = self._to_device(h[m]), self._to_device(c[m])
            if self._mask is not None and mask is not None:
                self._mask[m][rows] = self._to_device(mask[m])

    @property
    def h(self) -> Tensor:
        """(R, H) of the first memory."""
        return self.states[0].h

    def _to_device(self, array: NDArray[np.float32]) -> Tensor:
        return torch.tensor(array, dtype=torch.float32, device=self.device)

    def _rows(self, array: NDArray[np.float32]) -> Tensor:
        """Noise of n dreams (n, ...) for all R rows."""
        return self._to_device(array).repeat(len(self.z) // len(array), 1)

    def step(
        self, action: Tensor, uniform: NDArray[np.float32], normal: NDArray[np.float32]
    ) -> WorldStep:
        """See `World.step`."""
        u, noise = self._rows(uniform), self._rows(normal)
        outputs = self._run(action)
        z_dim = self.z.shape[1]
        means = None
        if self.dreamer is None:
            means = torch.stack([mixture_mean(o.log_pi, o.mu) for o in outputs])
        out = self._choose(outputs, u[:, z_dim + 2])
        self.z = out.sample(u[:, :z_dim], noise, self.cfg.temperature)
        return WorldStep(
            reward_of(self.reward_model, self.cfg, out.reward, u[:, z_dim]).cpu().numpy(),
            ended(self.cfg, out.terminated_logit, u[:, z_dim + 1]).cpu().numpy(),
            None if means is None else disagreement_of(means).cpu().numpy(),
        )

    def _run(self, action: Tensor) -> list[MemoryOutput]:
        outputs = []
        cast = torch.autocast(self.device.type, torch.bfloat16) if self.bfloat16 else nullcontext()
        for i, memory in enumerate(self.memories):
            mask = None if self._mask is None else self._mask[i]
            with cast:
                output, state = memory.step(self.z, action, self.states[i], mask)
            self.states[i] = MemoryState(state.h.float(), state.c.float())
            outputs.append(MemoryOutput(*(x.float() for x in output)))
        return outputs

    def _choose(self, outputs: list[MemoryOutput], uniform: Tensor) -> MemoryOutput:
        if self.dreamer is not None:
            return outputs[self.dreamer]
        chosen = (uniform * len(outputs)).long().clamp_max(len(outputs) - 1)
        rows = torch.arange(len(chosen), device=chosen.device)
        stacked = (torch.stack(parts) for parts in zip(*outputs, strict=True))
        return MemoryOutput(*(parts[chosen, rows] for parts in stacked))
