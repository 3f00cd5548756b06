"""C: the linear controller of the World Models paper, for a whole population at once.

A controller is a flat vector of N parameters. A population is a matrix (P, N); its actions for a
batch of B states per candidate come from batched matrix products, so one call serves population x
episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from worldmodels._threads import one_blas_thread
from worldmodels.config import NOT_EMPTY, Config, ConfigError, SizeOrZero
from worldmodels.protocols import Squash, UserError

if TYPE_CHECKING:  # the controller itself knows no environment
    from worldmodels.envs.spaces import ActionSpec

Parameters = NDArray[np.float32]

Inputs: TypeAlias = Literal["zh", "z", "zhc"]
"""What C sees: the latent with M's h, alone, or with the h and c of an LSTM."""
Discrete: TypeAlias = Literal["argmax", "thresholds"]
"""How C makes a choice: an output for each and the largest wins, or one output and its interval."""

LEAST_STD = 0.01
"""Added to the standard deviation of every input, so that a constant input gets no weight."""


@dataclass(frozen=True)
class ControllerConfig(Config):
    """Shape of C: what it sees, what it is, and how its outputs become actions."""

    inputs: Inputs = "zh"
    """what C sees: the latent and M's hidden state, the latent alone, or an LSTM's cell c too"""
    hidden: SizeOrZero = 0
    """units of one hidden tanh layer; 0 for the paper's linear controller"""
    squash: Annotated[tuple[Squash, ...], NOT_EMPTY] = ("tanh", "half", "clip")
    """rule per output: tanh, half, clip, scaled, or whole or argmax for all, or thresholds alone;
    the default is the paper's"""
    low: tuple[float, ...] = ()
    """lower bound per output; needed by scaled and whole"""
    high: tuple[float, ...] = ()
    """upper bound per output; needed by scaled and whole"""
    normalize: bool = False
    """standardise the inputs by recorded statistics, so that one sigma suits all parameters"""
    choices: tuple[int, ...] = field(default=(), metadata={"omit_default": True})
    """for thresholds: the choices, counted from 0, in the order of their intervals from -1 to 1"""

    def _check(self) -> None:
        if "thresholds" in self.squash and len(self.squash) > 1:
            self.refuse("squash", "thresholds for a single output")
        if sorted(self.choices) != list(range(len(self.choices))):
            self.refuse("choices", "each of the numbers from 0 once")
        if ("thresholds" in self.squash) != (len(self.choices) > 1):
            self.refuse("choices", "2 or more for thresholds, and none for other rules")
        for rule in ("argmax", "whole"):
            if rule in self.squash and set(self.squash) != {rule}:
                self.refuse("squash", f"{rule} for all outputs or for none")
        if not {"scaled", "whole"} & set(self.squash):
            return
        n = len(self.squash)
        if len(self.low) != n or len(self.high) != n:
            raise UserError(f"ControllerConfig.low and .high need {n} values each, as squash has")
        if not all(low < high for low, high in zip(self.low, self.high, strict=True)):
            self.refuse("low", f"below high, which is {self.high}")

    @property
    def outputs(self) -> int:
        """Number of outputs before squashing."""
        return len(self.squash)

    @property
    def action_size(self) -> int:
        """Width of M's action input."""
        return len(self.choices) or len(self.squash)

    @property
    def discrete(self) -> bool:
        """True where actions are indices."""
        return self.squash[0] in ("argmax", "thresholds")

    @property
    def carry(self) -> bool:
        """Whether C sees c."""
        return self.inputs == "zhc"

    @classmethod
    def for_action_space(
        cls,
        spec: ActionSpec,
        own: tuple[Squash, ...] | None = None,
        *,
        inputs: Inputs = "zh",
        hidden: int = 0,
        normalize: bool = False,
        discrete: Discrete = "argmax",
        order: Sequence[int] | None = None,
    ) -> ControllerConfig:
        """Choose the squashing for an action space; the other arguments are the fields.

        ``own`` are the task's rules for a Box; None scales tanh to the bounds. ``discrete`` is the
        rule for choices, and ``order`` the task's for thresholds; None is that of the space. A Box
        with infinite bounds, with another number of dimensions than rules, or under thresholds is a
        `UserError`, and so is an order of other choices than the space's.
        """
        if discrete == "thresholds":
            if spec.kind == "box":
                raise UserError("controller.discrete is 'thresholds'; numbers (Box) need 'argmax'")
            order = tuple(range(spec.dim) if order is None else order)
            if len(order) != spec.dim:
                raise UserError(f"the task orders {len(order)} choices; there are {spec.dim}")
            return cls(inputs, hidden, (discrete,), normalize=normalize, choices=order)
        box = spec.kind == "box"
        if box and own is not None and len(own) != spec.size:
            raise UserError(f"the task has {len(own)} squashing rules for {spec.size} actions")
        rule: Squash = "argmax" if not box else "whole" if spec.integer else "scaled"
        squash = own if box and own is not None else (rule,) * spec.size
        low: tuple[float, ...] = ()
        high = low
        if {"scaled", "whole"} & set(squash):
            low, high = (tuple(float(v) for v in np.ravel(b)) for b in (spec.low, spec.high))
        return cls(inputs, hidden, squash, low, high, normalize)


class InputStats(NamedTuple):
    """Fixed mean and standard deviation of the controller's inputs, such as [z, h]."""

    mean: Tensor
    """(I,) float32"""
    std: Tensor
    """(I,) float32, above 0"""

    @classmethod
    def of(cls, inputs: Tensor, floor: float = 1e-3) -> InputStats:
        """Measure recorded inputs (M, I); the standard deviation is at least ``floor``."""
        assert inputs.ndim == 2, f"inputs are (M, I), got {tuple(inputs.shape)}"
        std = inputs.double().std(0, correction=0).clamp_min(floor)
        return cls(inputs.double().mean(0).float(), std.float())


def num_inputs(cfg: ControllerConfig, z_dim: int, h_dim: int) -> int:
    """Width of what C sees."""
    return z_dim + {"z": 0, "zh": 1, "zhc": 2}[cfg.inputs] * h_dim  # c is as wide as h


def num_parameters(cfg: ControllerConfig, z_dim: int = 32, h_dim: int = 256) -> int:
    """Length N of the flat vector: 867 for the paper's [z, h] -> 3."""
    width = num_inputs(cfg, z_dim, h_dim)
    if cfg.hidden:
        return (width + 1) * cfg.hidden + (cfg.hidden + 1) * cfg.outputs
    return (width + 1) * cfg.outputs


class Controllers:
    """A population of controllers, laid out for batched products: ready for many steps.

    Outputs stand before inputs in every matrix: with a handful of outputs, ``W x^T`` is several
    times as fast as ``x W``.
    """

    def __init__(
        self,
        params: Tensor,
        cfg: ControllerConfig,
        z_dim: int = 32,
        h_dim: int = 256,
        stats: InputStats | None = None,
    ) -> None:
        """Cut flat parameters (P, N) into matrices.

        The layout is weight (O, I) row by row, then bias (O,), for each layer in turn. With
        ``stats`` the standardisation is folded into the first layer, so that it costs nothing per
        step: ``W ((x - mean) / std) + b = (W / std) x + (b - W mean / std)``.

        Raises:
            UserError: the number of parameters is not this controller's, or there are no ``stats``
                where it standardises its inputs.
        """
        assert params.ndim == 2, f"params are (P, N), got {tuple(params.shape)}"
        self.cfg, count, width = cfg, len(params), num_inputs(cfg, z_dim, h_dim)
        expected = num_parameters(cfg, z_dim, h_dim)
        if params.shape[1] != expected:
            raise UserError(
                f"controller parameters: {params.shape[1]} given, {expected} needed for inputs "
                f"{cfg.inputs!r} of width {width}, hidden {cfg.hidden}, outputs {cfg.outputs}"
            )
        layers, at, inputs = list[tuple[Tensor, Tensor]](), 0, width
        for outputs in filter(None, (cfg.hidden, cfg.outputs)):
            end = at + outputs * inputs
            weight = params[:, at:end].reshape(count, outputs, inputs)
            layers.append((weight, params[:, end : end + outputs, None]))
            at, inputs = end + outputs, outputs
        weight, bias = layers[0]
        if cfg.normalize:
            if stats is None:
                raise UserError(
                    "ControllerConfig.normalize is set, but no input statistics were given"
                )
            weight = weight / stats.std.to(params.device)
            bias = bias - (weight @ stats.mean.to(params.device))[..., None]
        self._wz = weight[..., :z_dim].contiguous()
        self._wh = weight[..., z_dim:].contiguous() if cfg.inputs != "z" else None
        self._bias = bias.contiguous()
        self._second = [part.contiguous() for part in layers[1]] if cfg.hidden else None

    def act(self, z: Tensor, h: Tensor) -> Tensor:
        """Actions (P, B, A), or indices (P, B) for Discrete, at z (P, B, Z) and h (P, B, H).

        With the inputs "zhc" h is [h, c], (P, B, 2H).
        """
        out = torch.bmm(self._wz, z.transpose(1, 2)) + self._bias
        if self._wh is not None:
            out = out + torch.bmm(self._wh, h.transpose(1, 2))
        if self._second is not None:
            weight, bias = self._second
            out = torch.bmm(weight, out.tanh()) + bias
        return squash(out.transpose(1, 2), self.cfg)

    def __call__(self, z: Tensor, h: Tensor) -> Tensor:
        """The same actions as M sees them (P, B, A)."""
        return memory_input(self.act(z, h), self.cfg)


def squash(out: Tensor, cfg: ControllerConfig) -> Tensor:
    """Turn outputs (..., O) into actions (..., A), or indices (...) int64 of choices."""
    if cfg.choices:
        count = len(cfg.choices)
        interval = ((out[..., 0].tanh() + 1) * (count / 2)).long().clamp(0, count - 1)
        return _choices(cfg.choices, out.device)[interval]
    if cfg.discrete:
        return out.argmax(-1)
    scale, shift, floor = affine(cfg, out.dtype, out.device)
    actions = torch.maximum(out.tanh() * scale + shift, floor)
    return actions.round() if cfg.squash[0] == "whole" else actions


@lru_cache(maxsize=16)
def _choices(choices: tuple[int, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # kept for all callers, gradients or not
        return torch.tensor(choices, device=device)


@lru_cache(maxsize=16)
def affine(cfg: ControllerConfig, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Every rule is max(tanh(x) * scale + shift, floor): (3, O), one fused pass for all outputs."""
    columns = []
    for i, rule in enumerate(cfg.squash):
        low, high = {"half": (0.0, 1.0)}.get(rule, (-1.0, 1.0))
        if rule in ("scaled", "whole"):
            low, high = cfg.low[i], cfg.high[i]
        columns.append(((high - low) / 2, (high + low) / 2, 0.0 if rule == "clip" else low))
    with torch.inference_mode(False):  # kept for all callers, gradients or not
        return torch.tensor(list(zip(*columns, strict=True)), dtype=dtype, device=device)


def memory_input(actions: Tensor, cfg: ControllerConfig) -> Tensor:
    """Actions as M sees them: (..., A) as they are, indices (...) as float32 one-hot (..., n)."""
    if cfg.discrete:
        choices = torch.arange(cfg.action_size, device=actions.device)
        return (actions.unsqueeze(-1) == choices).float()
    return actions


def initial_parameters(cfg: ControllerConfig, z_dim: int, h_dim: int, seed: int) -> Parameters:
    """Initial parameters (N,): zeros for the linear controller.

    A hidden layer starts at small random weights, since units at zero would all stay the same.
    """
    params = np.zeros(num_parameters(cfg, z_dim, h_dim), np.float32)
    width = num_inputs(cfg, z_dim, h_dim)
    drawn = np.random.default_rng(seed).standard_normal(cfg.hidden * width)
    params[: len(drawn)] = drawn.astype(np.float32) / np.sqrt(width)
    return params


def controller_inputs(controller: ControllerConfig, z: ArrayLike, h: ArrayLike) -> Parameters:
    """What C sees, (M, I), of latents z (M, Z) and hidden states h (M, H), or [h, c]."""
    parts = [z] if controller.inputs == "z" else [z, h]
    return np.concatenate([np.asarray(part, np.float32) for part in parts], axis=1)


@dataclass(frozen=True)
class Components:
    """K principal components of C's inputs, and the maps between both kinds of parameters.

    Most of the paper's 867 parameters weigh directions in which [z, h] hardly varies. In the first
    K components, whitened, C has 3 (K + 1) parameters of one scale and is still linear in [z, h].
    """

    controller: ControllerConfig
    """the controller whose first layer they are put before"""
    mean: NDArray[np.float64]
    """(I,) of the inputs"""
    analysis: NDArray[np.float64]
    """(K, I) from an input's distance to the mean to components of standard deviation 1"""
    synthesis: NDArray[np.float64]
    """(I, K) and back, as far as K components reach"""

    @classmethod
    def of(cls, inputs: ArrayLike, count: int, controller: ControllerConfig) -> Components:
        """Find ``count`` (K) components of recorded inputs (M, I), which they standardise.

        More components than inputs, or a controller that normalises too, are a `UserError`.
        """
        x = np.asarray(inputs, np.float64)
        assert x.ndim == 2, f"inputs are (M, I), got {x.shape}"
        if not 1 <= count <= min(x.shape):
            most = f"{min(x.shape)}, the number of C's inputs (or of dream starts)"
            must = f"it must be from 1 to {most}, or 0 for a search in all of them"
            raise ConfigError(object, ("components",), count, must, "components")
        if controller.normalize:
            raise UserError("controller.components already standardises; set normalize to false")
        mean, scale = x.mean(0), x.std(0) + LEAST_STD
        standard = (x - mean) / scale
        with one_blas_thread():
            variance, vectors = np.linalg.eigh(standard.T @ standard / len(x))
        std = np.sqrt(np.maximum(variance[::-1][:count], 1e-12))
        first = vectors[:, ::-1][:, :count]
        return cls(controller, mean, (first / std).T / scale, scale[:, None] * first * std)

    def expand(self, population: ArrayLike) -> Parameters:
        """Controllers on the components, (P, n), as controllers on the inputs, (P, N)."""
        return self._map(population, self.analysis, -1)

    def compress(self, population: ArrayLike) -> Parameters:
        """Controllers on the inputs, (P, N), as nearly as the components can say it, (P, n)."""
        return self._map(population, self.synthesis, 1)

    def _map(self, population: ArrayLike, matrix: NDArray[np.float64], sign: int) -> Parameters:
        """Put ``matrix`` behind the first layer, whose bias takes the mean in (1) or out (-1)."""
        flat = np.asarray(population, np.float64)
        assert flat.ndim == 2, f"a population is (P, N), got {flat.shape}"
        outputs, width = self.controller.hidden or self.controller.outputs, len(matrix)
        weight, rest = np.split(flat, [outputs * width], axis=1)
        weight = weight.reshape(len(flat), outputs, width)
        mapped = weight @ matrix
        shift = sign * ((mapped if sign < 0 else weight) @ self.mean)
        parts = [mapped.reshape(len(flat), -1), rest[:, :outputs] + shift, rest[:, outputs:]]
        return np.concatenate(parts, axis=1).astype(np.float32)
