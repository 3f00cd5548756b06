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
from worldmodels.dream.starts import Array, DreamStarts
from worldmodels.dream.world import Batch, World
from worldmodels.memory.interface import Memory, MemoryConfig
from worldmodels.memory.mdn_rnn import MDNRNN

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

    Everything that a step touches is allocated once. Kernels get views that are made anew at every
    step: kept ones would no longer belong to the tensors of a copy.
    """

    def __init__(self, packed: Sequence[PackedMemory], batch: Batch) -> None:
        """Dream by the packed weights of M memories."""
        super().__init__(batch)
        self.packed, first = list(packed), packed[0]
        self._dreaming = list(range(len(packed))) if self.dreamer is None else [self.dreamer]
        self._heads_bias = np.stack([packed[m].heads_bias for m in self._dreaming])
        members, (rows, hidden), dtype = len(packed), self.h[0].shape, first.lstm.dtype
        self._x = torch.zeros((members, rows, len(first.lstm)), dtype=dtype)
        """rows [h masked, z, action, zeros]"""
        self._gates = torch.empty((rows, 4 * hidden), dtype=dtype)
        self._heads = torch.empty((len(self._dreaming), rows, first.heads.shape[1]), dtype=dtype)
        self._ends = torch.empty((2, rows))
        self._means = torch.empty((members, *self.z.shape))
        self._write_hidden()

    def _write_hidden(self) -> None:
        """Put h, masked, where M's next step and its heads read it."""
        for m, h in enumerate(self.h):
            if self.mask is not None:
                n, hidden = self.mask[m].shape
                h = (h.view(-1, n, hidden) * self.mask[m]).view(h.shape)
            self._x[m, :, : h.shape[1]] = h

    def put(self, index: NDArray[np.int64], states: DreamStarts, mask: Array | None) -> None:
        """See `World.put`."""
        super().put(index, states, mask)
        self._write_hidden()

    def _advance(
        self, action: Tensor, uniform: Array, normal: Array
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        cfg, hidden = self.packed[0].cfg, self.h[0].shape[1]
        known = torch.cat((self.z, action.float()), dim=1)
        self._x[:, :, hidden : hidden + known.shape[1]] = known
        gates, heads, z = _as_array(self._gates), _as_array(self._heads), self.z.numpy()
        for m, memory in enumerate(self.packed):
            torch.mm(self._x[m], memory.lstm, out=self._gates)
            c, h = self.c[m].numpy(), self.h[m].numpy()
            kernels.lstm_update(gates, memory.lstm_bias, c, h)
        self._write_hidden()
        for i, m in enumerate(self._dreaming):
            torch.mm(self._x[m, :, :hidden], self.packed[m].heads, out=self._heads[i])
        before = self.z.clone() if cfg.residual else None
        kernels.sample_latents(
            heads,
            self._heads_bias,
            cfg.mixtures,
            self.cfg.temperature,
            cfg.sigma_floor,
            cfg.sigma_ceiling,
            uniform,
            normal,
            z,
            self._ends.numpy(),
        )
        if before is not None:
            self.z += before
        if self.dreamer is not None:
            return self._ends[0], self._ends[1], None
        kernels.mixture_means(heads, self._heads_bias, cfg.mixtures, self._means.numpy())
        return self._ends[0], self._ends[1], self._means
