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
from worldmodels.dream.world import WorldStep, disagreement_of, ended, reward_of
from worldmodels.memory.interface import Memory
from worldmodels.memory.mdn_rnn import MDNRNN
from worldmodels.memory.rewards import RewardModel

ROWS, COLUMNS = 4, 16
"""M's matrices are padded with zeros to multiples of these: the LSTM's inputs and the heads'
outputs. With 291 and 482 a step of the dream took 1.15 times as long (MKL, float32, Zen 3)."""

_DERIVED = frozenset(
    ("_x", "_gates", "_heads", "_inputs", "_hiddens", "_arrays", "_ends", "_means", "z", "h")
)
"""Attributes of `KernelWorld` that `begin` derives: scratch, and views of the state's arrays."""


@dataclass(frozen=True)
class PackedMemory:
    """A memory's weights as the kernels want them."""

    lstm: Tensor
    """(I, 4H), I >= H + Z + A: h, z, the action and zeros go in as one row"""
    lstm_bias: NDArray[np.float32]
    """(4H,)"""
    heads: Tensor
    """(H, N), N >= 3KZ + 2: columns k Z + d, so that loops over d run along memory, then reward
    and termination, then zeros"""
    heads_bias: NDArray[np.float32]
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
            lstm.detach().t().to(dtype).contiguous(),
            (bias + frozen).detach().float().numpy().copy(),
            heads.detach().t().to(dtype).contiguous(),
            heads_bias.detach().float().numpy().copy(),
        )


def _as_array(matrix: Tensor) -> NDArray[Any]:
    """The same memory as an array; bfloat16 as uint16."""
    return (matrix.view(torch.uint16) if matrix.dtype == torch.bfloat16 else matrix).numpy()


class KernelWorld:
    """The dream by compiled kernels: a `World` that means the same as `TorchWorld`.

    Everything a step touches is allocated once, in `begin`. Copies and pickles take the state alone
    and rebuild the views of it, since a copied view no longer shows what a step writes.
    """

    def __init__(
        self,
        packed: Sequence[PackedMemory],
        dreamer: int | None,
        reward_model: RewardModel,
        memory_cfg: Any,
        cfg: DreamConfig,
    ) -> None:
        """Prepare; arguments as of `TorchWorld`, with the memories' packed weights."""
        self.packed, self.dreamer = list(packed), dreamer
        self.reward_model, self.cfg = reward_model, cfg
        self.components, self.memory_cfg = memory_cfg.mixtures, memory_cfg
        self.residual = memory_cfg.residual
        self._dreaming = list(range(len(packed))) if dreamer is None else [dreamer]
        self._heads_bias = np.stack([self.packed[m].heads_bias for m in self._dreaming])

    def begin(
        self,
        z: NDArray[np.float32],
        h: NDArray[np.float32],
        c: NDArray[np.float32],
        mask: NDArray[np.float32] | None,
    ) -> None:
        """See `World.begin`."""
        (members, rows, hidden), first = h.shape, self.packed[0]
        self._z, self._h, self._c = z.copy(), h.copy(), c.copy()
        self._mask = np.ones((members, 1, hidden), np.float32) if mask is None else mask.copy()
        dtype = first.lstm.dtype
        self._x = torch.zeros((members, rows, len(first.lstm)), dtype=dtype)
        copies = rows // self._mask.shape[1]
        masked = h * np.tile(self._mask, (1, copies, 1))
        self._x[:, :, :hidden] = torch.from_numpy(masked)
        self._gates = torch.empty((rows, 4 * hidden), dtype=dtype)
        self._heads = torch.empty((len(self._dreaming), rows, first.heads.shape[1]), dtype=dtype)
        self._inputs = [self._x[m] for m in range(members)]
        self._hiddens = [self._x[m, :, :hidden] for m in range(members)]
        self._arrays = _as_array(self._x), _as_array(self._gates), _as_array(self._heads)
        self._ends = np.empty((2, rows), np.float32)
        self._means = np.empty((members, *z.shape), np.float32)
        self.z, self.h = torch.from_numpy(self._z), torch.from_numpy(self._h[0])

    def __getstate__(self) -> dict[str, Any]:
        """Everything except what `begin` derives from it."""
        return {name: value for name, value in vars(self).items() if name not in _DERIVED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state; views and scratch come from `begin`."""
        self.__dict__.update(state)
        if "_z" in state:
            self.begin(self._z, self._h, self._c, self._mask)

    def put(
        self,
        rows: NDArray[np.int64],
        z: NDArray[np.float32],
        h: NDArray[np.float32],
        c: NDArray[np.float32],
        mask: NDArray[np.float32] | None,
    ) -> None:
        """See `World.put`."""
        self._z[rows], self._h[:, rows], self._c[:, rows] = z, h, c
        if mask is not None:
            self._mask[:, rows] = mask
            h = h * mask
        self._x[:, torch.from_numpy(rows), : h.shape[2]] = torch.from_numpy(h).to(self._x.dtype)

    def step(
        self, action: Tensor, uniform: NDArray[np.float32], normal: NDArray[np.float32]
    ) -> WorldStep:
        """See `World.step`."""
        xs, gates, heads = self._arrays
        actions = action.float().numpy()
        for m, memory in enumerate(self.packed):
            kernels.put_inputs(self._z, actions, xs[m], self._h.shape[2])
            torch.mm(self._inputs[m], memory.lstm, out=self._gates)
            kernels.lstm_update(
                gates, memory.lstm_bias, self._mask[m], self._c[m], self._h[m], xs[m]
            )
        for i, m in enumerate(self._dreaming):
            torch.mm(self._hiddens[m], self.packed[m].heads, out=self._heads[i])
        before = self._z.copy() if self.residual else None
        kernels.sample_latents(
            heads,
            self._heads_bias,
            self.components,
            self.cfg.temperature,
            self.memory_cfg.sigma_floor,
            self.memory_cfg.sigma_ceiling,
            uniform,
            normal,
            self._z,
            self._ends,
        )
        if before is not None:
            self._z += before
        disagreement = None
        if self.dreamer is None:
            kernels.mixture_means(heads, self._heads_bias, self.components, self._means)
            disagreement = disagreement_of(torch.from_numpy(self._means)).numpy()
        # Row r takes the luck of dream r mod n: rows as (R / n, n), the luck for each of the n.
        n, z_dim = len(uniform), self._z.shape[1]
        luck = torch.from_numpy(uniform[:, z_dim : z_dim + 2])
        reward, logit = torch.from_numpy(self._ends).view(2, -1, n).unbind()
        return WorldStep(
            reward_of(self.reward_model, self.cfg, reward, luck[:, 0]).numpy().ravel(),
            ended(self.cfg, logit, luck[:, 1]).numpy().ravel(),
            disagreement,
        )


PACKED: dict[type[Memory], Callable[[Any, torch.dtype], PackedMemory]] = {MDNRNN: PackedMemory.of}
"""Kinds of M that the kernels know, and how their weights are packed."""
