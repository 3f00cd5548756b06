"""One step of the dream on a CPU: two matrix products per memory, numba kernels between them.

Matrices are float32, or bfloat16 held as uint16 (numba has no bfloat16): the upper half of a
float32's bits. All arithmetic is float32. exp is a polynomial, because a call into the C library
would keep LLVM from vectorising the loops around it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numba import njit, types
from numba.extending import overload
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from worldmodels._compile import compiled
from worldmodels.dream.starts import Array, DreamStarts
from worldmodels.dream.world import Batch, Outputs, World
from worldmodels.memory.interface import Memory, MemoryConfig
from worldmodels.memory.mdn_rnn import MDNRNN

ROWS, COLUMNS = 4, 16
"""M's matrices are padded with zeros to multiples of these: the LSTM's inputs and the heads'
outputs. With 291 and 482 a step of the dream took 1.15 times as long (MKL, float32, Zen 3)."""

_FLAGS = {"contract", "nsz", "arcp", "afn"}
"""Fused multiply-add and reciprocals; no reordering of sums, and NaN stays NaN."""

_LOG2E = np.float32(1.44269504)
_SHIFT = np.float32(256.5)
_ONE = np.float32(1)
_TWO = np.float32(2)
_GATE_LIMIT = np.float32(20)
_TANH_LIMIT = np.float32(9)
_EXP_LOW = np.float32(-87)
_C1, _C2, _C3, _C4, _C5, _C6 = (
    np.float32(c)
    for c in (0.69314718, 0.24022651, 0.055504109, 0.0096181291, 0.0013333558, 0.00015403530)
)


def _load(x: Any) -> Any:
    """Element of a matrix as float32; compiled only."""
    raise NotImplementedError


# Numba compares the signatures of an overload and of what it returns, annotations included.


@overload(_load, inline="always")
def _overload_load(x: Any) -> Callable[[Any], Any]:
    def load_bfloat16(x: Any) -> Any:
        return np.uint32(np.uint32(x) << np.uint32(16)).view(np.float32)

    def load_float32(x: Any) -> Any:
        return x

    return load_bfloat16 if x == types.uint16 else load_float32


@njit(inline="always", fastmath=_FLAGS)
def _exp(x: Any) -> Any:
    """exp(x) for float32 x in [-87, 60], within 2e-7 of relative error: 2^n times a polynomial."""
    t = x * _LOG2E
    n = np.int32(np.int32(t + _SHIFT) - np.int32(256))
    r = t - np.float32(n)
    p = _ONE + r * (_C1 + r * (_C2 + r * (_C3 + r * (_C4 + r * (_C5 + r * _C6)))))
    return p * np.int32(np.int32(n + np.int32(127)) << np.int32(23)).view(np.float32)


@njit(inline="always")
def _clip(x: Any, low: Any, high: Any) -> Any:
    return min(max(x, low), high)


@compiled(nogil=True, fastmath=_FLAGS, error_model="numpy")
def lstm_update(gates: NDArray[Any], bias: Array, c: Array, h: Array) -> None:
    """LSTM's pointwise part, in place.

    With e_i = exp(-i) and so on, the two products of sigmoid and tanh share one division each:
    ``c' = (c (1 + e_i)(1 + e_g) + (1 - e_g)(1 + e_f)) / ((1 + e_f)(1 + e_i)(1 + e_g))`` where
    e_g = exp(-2 g).

    Args:
        gates: (R, 4H) input, forget, cell, output, without their bias.
        bias: (4H,).
        c: (R, H), updated.
        h: (R, H), overwritten.
    """
    size = c.shape[1]
    for r in range(c.shape[0]):
        for j in range(size):
            i = _clip(_load(gates[r, j]) + bias[j], -_GATE_LIMIT, _GATE_LIMIT)
            f = _clip(_load(gates[r, size + j]) + bias[size + j], -_GATE_LIMIT, _GATE_LIMIT)
            g = _clip(_load(gates[r, 2 * size + j]) + bias[2 * size + j], -_TANH_LIMIT, _TANH_LIMIT)
            o = _clip(_load(gates[r, 3 * size + j]) + bias[3 * size + j], -_GATE_LIMIT, _GATE_LIMIT)
            eg = _exp(-_TWO * g)
            di, df, dg = _ONE + _exp(-i), _ONE + _exp(-f), _ONE + eg
            new = (c[r, j] * di * dg + (_ONE - eg) * df) / (df * di * dg)
            c[r, j] = new
            ec = _exp(-_TWO * _clip(new, -_TANH_LIMIT, _TANH_LIMIT))
            h[r, j] = (_ONE - ec) / ((_ONE + _exp(-o)) * (_ONE + ec))


@njit(inline="always", fastmath=_FLAGS, error_model="numpy")
def _weigh(
    row: NDArray[Any], offset: Array, sharp: Any, top: Array, total: Array, weight: Array
) -> None:
    """Weights exp((logit - top) * sharp) of one row's components, not normalised.

    Args:
        row: (>= KZ,) logits without bias, column k Z + d.
        offset: their bias.
        sharp: 1 / temperature.
        top: (Z,), becomes the largest logit.
        total: (Z,), becomes the sum of the weights.
        weight: (K, Z), becomes the weights.
    """
    size = len(top)
    for d in range(size):
        top[d] = _load(row[d]) + offset[d]
        total[d] = np.float32(0)
    for k in range(1, len(weight)):
        for d in range(size):
            top[d] = max(top[d], _load(row[k * size + d]) + offset[k * size + d])
    for k in range(len(weight)):
        for d in range(size):
            logit = _load(row[k * size + d]) + offset[k * size + d]
            weight[k, d] = _exp(max((logit - top[d]) * sharp, _EXP_LOW))
            total[d] += weight[k, d]


@compiled(nogil=True, fastmath=_FLAGS, error_model="numpy")
def sample_latents(
    heads: NDArray[Any],
    bias: Array,
    components: int,
    tau: float,
    sigma_floor: float,
    sigma_ceiling: float,
    uniform: Array,
    normal: Array,
    z: Array,
    reward: Array,
    terminated: Array,
) -> None:
    """Draw z_{t+1}: the component first, and only its sigma is exponentiated.

    Args:
        heads: (M, R, >= 3KZ + O) outputs without bias; logits, means and log sigmas with column
            k Z + d, then O - 1 of the reward and one of termination. Where M is above 1 a row's
            memory is drawn.
        bias: (M, 3KZ + O).
        components: K.
        tau: temperature; 0 takes the likeliest component's mean.
        sigma_floor: added to sigma.
        sigma_ceiling: sigma's largest value before that.
        uniform: (n, Z + 3); row r takes row r mod n.
        normal: (n, Z).
        z: (R, Z), overwritten.
        reward: (R, O - 1) outputs, overwritten.
        terminated: (R,) outputs, overwritten.
    """
    size = z.shape[1]
    block = components * size
    sharp = np.float32(1 / tau) if tau > 0 else np.float32(1e6)
    spread, floor = np.float32(np.sqrt(tau)), np.float32(sigma_floor)
    highest = np.float32(np.log(sigma_ceiling))
    top, total = np.empty(size, np.float32), np.empty(size, np.float32)
    weight = np.empty((components, size), np.float32)
    mean, log_sigma = np.empty(size, np.float32), np.empty(size, np.float32)
    for r in range(z.shape[0]):
        s = r % uniform.shape[0]
        m = min(int(uniform[s, size + 2] * np.float32(heads.shape[0])), heads.shape[0] - 1)
        row, offset = heads[m, r], bias[m]
        _weigh(row, offset, sharp, top, total, weight)
        for d in range(size):
            mean[d] = _load(row[block + d]) + offset[block + d]
            log_sigma[d] = _load(row[2 * block + d]) + offset[2 * block + d]
            total[d] = uniform[s, d] * total[d]
            top[d] = weight[0, d]
        for k in range(1, components):
            for d in range(size):
                later = top[d] <= total[d]
                i = block + k * size + d
                new_mean = _load(row[i]) + offset[i]
                new_sigma = _load(row[block + i]) + offset[block + i]
                mean[d] = new_mean if later else mean[d]
                log_sigma[d] = new_sigma if later else log_sigma[d]
                top[d] += weight[k, d]
        for d in range(size):
            sigma = _exp(_clip(log_sigma[d], _EXP_LOW, highest)) + floor
            z[r, d] = mean[d] + spread * sigma * normal[s, d]
        last = 3 * block + reward.shape[1]
        for i in range(3 * block, last):
            reward[r, i - 3 * block] = _load(row[i]) + offset[i]
        terminated[r] = _load(row[last]) + offset[last]


@compiled(nogil=True, fastmath=_FLAGS, error_model="numpy")
def mixture_means(heads: NDArray[Any], bias: Array, components: int, out: Array) -> None:
    """Means of the mixtures of every memory: heads (M, R, >= 3KZ) to out (M, R, Z)."""
    size = out.shape[2]
    block = components * size
    top, total = np.empty(size, np.float32), np.empty(size, np.float32)
    weight = np.empty((components, size), np.float32)
    for m in range(out.shape[0]):
        for r in range(out.shape[1]):
            row, offset, mean = heads[m, r], bias[m], out[m, r]
            _weigh(row, offset, _ONE, top, total, weight)
            mean[:] = np.float32(0)
            for k in range(components):
                for d in range(size):
                    i = block + k * size + d
                    mean[d] += weight[k, d] / total[d] * (_load(row[i]) + offset[i])


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
    """(H, N), N >= 3KZ + O: columns k Z + d, so that loops over d run along memory, then O - 1 of
    the reward and one of termination, then zeros"""
    heads_bias: Array
    """(3KZ + O,)"""

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

    Buffers are allocated once for a number of rows. Kernels get new views at every step, since
    stored views would not belong to the tensors of a copy.
    """

    def __init__(self, packed: Sequence[PackedMemory], batch: Batch) -> None:
        """Dream by the packed weights of M memories."""
        super().__init__(batch)
        self.packed = list(packed)
        self._dreaming = list(range(len(packed))) if self.dreamer is None else [self.dreamer]
        self._heads_bias = np.stack([packed[m].heads_bias for m in self._dreaming])
        self._allocate()

    def _allocate(self) -> None:
        """Make the buffers of as many rows as there are."""
        first, members = self.packed[0], len(self.packed)
        (rows, hidden), dtype = self.h[0].shape, first.lstm.dtype
        self._x = torch.zeros((members, rows, len(first.lstm)), dtype=dtype)
        """rows [h masked, z, action, zeros]"""
        self._gates = torch.empty((rows, 4 * hidden), dtype=dtype)
        self._heads = torch.empty((len(self._dreaming), rows, first.heads.shape[1]), dtype=dtype)
        mixture = 3 * first.cfg.z_dim * first.cfg.mixtures
        self._reward = torch.empty((rows, len(first.heads_bias) - mixture - 1))
        self._terminated = torch.empty(rows)
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

    def keep(self, rows: NDArray[np.int64]) -> None:
        """See `World.keep`."""
        super().keep(rows)
        self._allocate()

    def _advance(self, action: Tensor, uniform: Array, normal: Array) -> Outputs:
        cfg, hidden = self.packed[0].cfg, self.h[0].shape[1]
        known = torch.cat((self.z, action.float()), dim=1)
        self._x[:, :, hidden : hidden + known.shape[1]] = known
        gates, heads, z = _as_array(self._gates), _as_array(self._heads), self.z.numpy()
        for m, memory in enumerate(self.packed):
            torch.mm(self._x[m], memory.lstm, out=self._gates)
            c, h = self.c[m].numpy(), self.h[m].numpy()
            lstm_update(gates, memory.lstm_bias, c, h)
        self._write_hidden()
        for i, m in enumerate(self._dreaming):
            torch.mm(self._x[m, :, :hidden], self.packed[m].heads, out=self._heads[i])
        before = self.z.clone() if cfg.residual else None
        shape = (cfg.mixtures, self.cfg.temperature, cfg.sigma_floor, cfg.sigma_ceiling)
        ends = self._reward.numpy(), self._terminated.numpy()
        sample_latents(heads, self._heads_bias, *shape, uniform, normal, z, *ends)
        if before is not None:
            self.z += before
        reward = self._reward.squeeze(-1)
        if self.dreamer is not None:
            return reward, self._terminated, None
        mixture_means(heads, self._heads_bias, cfg.mixtures, self._means.numpy())
        return reward, self._terminated, self._means
