"""One step of the dream on a CPU: two matrix products per memory, compiled kernels between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from worldmodels.dream import kernels
from worldmodels.dream.config import DreamConfig
from worldmodels.dream.starts import Array, DreamStarts
from worldmodels.dream.world import World
from worldmodels.memory.interface import Memory, MemoryConfig
from worldmodels.memory.mdn_rnn import MDNRNN
from worldmodels.memory.rewards import RewardModel

ROWS, COLUMNS = 4, 16
"""M's matrices are padded with zeros to multiples of these: the LSTM's inputs and the heads'
outputs. With 291 and 482 a step of the dream took 1.15 times as long (MKL, float32, Zen 3)."""


@dataclass(frozen=True)
class PackedMemory:
    """A memory's weights as the kernels want them."""

    cfg: MemoryConfig
    """of the memory"""
    lstm: Tensor
    """(I, 4H), I >= H + Z + A: h, z, the action and zeros go in as one row"""
    lstm_bias: Array
    """(4H,)"""
    heads: Tensor
    """(H, N), N >= 3KZ + 2: columns k Z + d, so that loops over d run along memory, then reward
    and termination, then zeros"""
    heads_bias: Array
    """(3KZ + 2,)"""

    @classmethod
    def of(cls, memory: MDNRNN, dtype: torch.dtype) -> PackedMemory:
        """Copy a memory's weights, matrices as ``dtype``."""
        cfg = memory.cfg
        weight_ih, weight_hh, bias, frozen = memory.lstm.all_weights[0]
        order = torch.arange(3 * cfg.z_dim * cfg.mixtures).view(3, cfg.z_dim, cfg.mixtures)
        order = order.transpose(1, 2).flatten()
        ends = (memory.reward, memory.terminated)
        heads = torch.cat((memory.mixture.weight[order], *(e.weight for e in ends)))
        heads_bias = torch.cat((memory.mixture.bias[order], *(e.bias for e in ends)))
        heads = functional.pad(heads, (0, 0, 0, -len(heads) % COLUMNS))
        lstm = torch.cat((weight_hh, weight_ih), dim=1)
        lstm = functional.pad(lstm, (0, -lstm.shape[1] % ROWS))
        return cls(
            cfg,
            lstm.detach().t().to(dtype).contiguous(),
            (bias + frozen).detach().float().numpy().copy(),
            heads.detach().t().to(dtype).contiguous(),
            heads_bias.detach().float().numpy().copy(),
        )


PACKED: dict[type[Memory], Callable[[Any, torch.dtype], PackedMemory]] = {MDNRNN: PackedMemory.of}
"""Kinds of M that the kernels know, and how their weights are packed."""


def _as_array(matrix: Tensor) -> NDArray[Any]:
    """The same memory as an array; bfloat16 as uint16."""
    return (matrix.view(torch.uint16) if matrix.dtype == torch.bfloat16 else matrix).numpy()


class KernelWorld(World):
    """The dream by compiled kernels: it means the same as `TorchWorld`.

    Everything that a step touches is allocated once.
    """

    def __init__(
        self,
        packed: Sequence[PackedMemory],
        dreamer: int | None,
        reward_model: RewardModel,
        cfg: DreamConfig,
        states: DreamStarts,
        mask: Array | None,
    ) -> None:
        """Same as `TorchWorld`, with the memories' packed weights."""
        super().__init__(dreamer, reward_model, cfg)
        self.packed, first = list(packed), packed[0]
        self._dreaming = list(range(len(packed))) if dreamer is None else [dreamer]
        self._heads_bias = np.stack([packed[m].heads_bias for m in self._dreaming])
        members, count, hidden = states.h.shape
        self._z, self._h, self._c = states.z.copy(), states.h.copy(), states.c.copy()
        self._mask = None if mask is None else mask.copy()
        dtype = first.lstm.dtype
        self._x = torch.zeros((members, count, len(first.lstm)), dtype=dtype)
        """rows [h masked, z, action, zeros]"""
        self._gates = torch.empty((count, 4 * hidden), dtype=dtype)
        self._heads = torch.empty((len(self._dreaming), count, first.heads.shape[1]), dtype=dtype)
        self._ends = np.empty((2, count), np.float32)
        self._means = np.empty((members, *states.z.shape), np.float32)
        self._write_hidden()

    def _write_hidden(self) -> None:
        """Put h, masked, where M's next step and its heads read it."""
        h = self._h
        if self._mask is not None:
            members, n, hidden = self._mask.shape
            h = (h.reshape(members, -1, n, hidden) * self._mask[:, None]).reshape(h.shape)
        self._x[:, :, : h.shape[2]] = torch.from_numpy(h)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the state alone: a copied view no longer shows what a step writes."""
        states = DreamStarts(self._z, self._h, self._c)
        parts = (self.packed, self.dreamer, self.reward_model, self.cfg, states, self._mask)
        return KernelWorld, parts

    def seen(self) -> tuple[Tensor, Tensor]:
        """See `World.seen`."""
        return torch.from_numpy(self._z), torch.from_numpy(self._h[0])

    def put(self, index: NDArray[np.int64], states: DreamStarts, mask: Array | None) -> None:
        """See `World.put`."""
        self._z[index], self._h[:, index], self._c[:, index] = states.z, states.h, states.c
        if self._mask is not None:
            self._mask[:, index] = mask
        self._write_hidden()

    def _advance(
        self, action: Tensor, uniform: Array, normal: Array
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        cfg, hidden = self.packed[0].cfg, self._h.shape[2]
        known = torch.cat((torch.from_numpy(self._z), action.float()), dim=1)
        self._x[:, :, hidden : hidden + known.shape[1]] = known
        gates, heads = _as_array(self._gates), _as_array(self._heads)
        for m, memory in enumerate(self.packed):
            torch.mm(self._x[m], memory.lstm, out=self._gates)
            kernels.lstm_update(gates, memory.lstm_bias, self._c[m], self._h[m])
        self._write_hidden()
        for i, m in enumerate(self._dreaming):
            torch.mm(self._x[m, :, :hidden], self.packed[m].heads, out=self._heads[i])
        before = self._z.copy() if cfg.residual else None
        kernels.sample_latents(
            heads,
            self._heads_bias,
            cfg.mixtures,
            self.cfg.temperature,
            cfg.sigma_floor,
            cfg.sigma_ceiling,
            uniform,
            normal,
            self._z,
            self._ends,
        )
        if before is not None:
            self._z += before
        means = None
        if self.dreamer is None:
            kernels.mixture_means(heads, self._heads_bias, cfg.mixtures, self._means)
            means = torch.from_numpy(self._means)
        reward, logit = torch.from_numpy(self._ends).unbind()
        return reward, logit, means
