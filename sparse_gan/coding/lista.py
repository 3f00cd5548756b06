"""LISTA: a few iterations of ISTA, unrolled into a network and trained (Gregor & LeCun 2010).

Untrained, T layers are T steps of ISTA: z <- shrink(W_e x + S z, theta) with W_e = D^T / L,
S = I - D^T D / L (**plus** S z) and theta = lam / L. The coupled form of Chen et al.
(arXiv:1808.10038) keeps D and learns one matrix, ISTA's step of Ablin et al. (arXiv:1905.11071)
learns only its size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparse_gan.checks import InputError, check_batch, check_dictionary
from sparse_gan.coding.dictionary import joint_energy
from sparse_gan.coding.ista import largest_eigenvalue
from sparse_gan.coding.prox import nonnegative_soft_threshold, soft_threshold
from sparse_gan.coding.training import Log, cosine, finite, set_rate
from sparse_gan.energy import LatentEnergyModel
from worldmodels._threads import on_one_core
from worldmodels.config import (
    AtLeast,
    Config,
    Count,
    CountOrZero,
    Limit,
    NotNegative,
    PositiveFraction,
)

Kind = Literal["full", "coupled", "step"]
Batches = Callable[[int], tuple[Tensor, Tensor | None]]
"""From the number of a step to its data (B, M) and, for training on codes, their codes (B, N)."""


@dataclass(frozen=True)
class LISTAConfig(Config):
    """Shape of the network."""

    layers: Annotated[int, AtLeast(1), Limit(10_000)] = 16
    """T, the iterations it stands for"""
    kind: Kind = "full"
    """full learns W_e, S and theta; coupled W and theta; step the step size only"""
    tied: bool = False
    """whether all layers share their parameters"""
    lam: NotNegative = 0.1
    """weight of the L1 norm"""
    nonnegative: bool = False
    """whether codes below 0 are forbidden"""


class LISTA(LatentEnergyModel):
    """The unrolled network; at its start exactly `LISTAConfig.layers` steps of ISTA."""

    dictionary: Tensor

    def __init__(self, dictionary: Tensor, cfg: LISTAConfig) -> None:
        """Unroll ISTA for a dictionary (M, N), which is kept as it is."""
        super().__init__()
        self.cfg = cfg
        d = check_dictionary(dictionary).detach().clone()
        self.register_buffer("dictionary", d)
        rate = 1 / largest_eigenvalue(d)
        blocks = 1 if cfg.tied else cfg.layers
        self.blocks = nn.ModuleList(_Layer(d, rate, cfg) for _ in range(blocks))

    def layers(self, x: Tensor, depth: int | None = None) -> list[Tensor]:
        """Codes (B, N) after each of the first ``depth`` layers (all of them if None)."""
        check_batch(x, self.dictionary.shape[0])
        z = x.new_zeros(x.shape[0], self.dictionary.shape[1])
        codes = []
        for t in range(self.cfg.layers if depth is None else depth):
            z = self.blocks[0 if self.cfg.tied else t](x, z, self.dictionary)
            codes.append(z)
        return codes

    def infer(self, x: Tensor, depth: int | None = None) -> Tensor:
        """Codes (B, N) of x (B, M) after ``depth`` layers."""
        return self.layers(x, depth)[-1]

    def joint_energy(self, x: Tensor, z: Tensor) -> Tensor:
        """The lasso's objective (B,)."""
        return joint_energy(x, z, self.dictionary, self.cfg.lam)

    def energy(self, x: Tensor) -> Tensor:
        """E(x, z) (B,) at the network's z, which gradients pass through."""
        return self.joint_energy(x, self.infer(x))

    def decode(self, z: Tensor) -> Tensor:
        """D z, (B, M)."""
        return z @ self.dictionary.T

    def forward(self, x: Tensor) -> Tensor:
        """Return the codes; see `infer`."""
        return self.infer(x)


class _Layer(nn.Module):
    """One step: x (B, M), z (B, N), D (M, N) to the next z."""

    def __init__(self, d: Tensor, rate: float, cfg: LISTAConfig) -> None:
        super().__init__()
        self.kind, self.lam = cfg.kind, cfg.lam
        self.shrink = nonnegative_soft_threshold if cfg.nonnegative else soft_threshold
        if cfg.kind == "full":
            self.encoder = nn.Parameter(rate * d.T)
            self.lateral = nn.Parameter(torch.eye(d.shape[1]).to(d) - rate * d.T @ d)
        elif cfg.kind == "coupled":
            self.weight = nn.Parameter(rate * d)
        else:
            self.rate = nn.Parameter(d.new_tensor(rate))
        if cfg.kind != "step":
            self.theta = nn.Parameter(torch.full_like(d[0], cfg.lam * rate))

    def forward(self, x: Tensor, z: Tensor, d: Tensor) -> Tensor:
        if self.kind == "step":
            slope = (z @ d.T - x) @ d
            return self.shrink(z - self.rate * slope, (self.lam * self.rate).clamp_min(0))
        threshold = self.theta.clamp_min(0)
        if self.kind == "coupled":
            return self.shrink(z - (z @ d.T - x) @ self.weight, threshold)
        return self.shrink(x @ self.encoder.T + z @ self.lateral.T, threshold)


@dataclass(frozen=True)
class LISTATrainConfig(Config):
    """How LISTA is trained."""

    target: Literal["codes", "objective"] = "codes"
    """match given codes, or lower the lasso's own objective"""
    layerwise: bool = True
    """train the first layer, then the second on top, and so on, before all at once"""
    layer_steps: CountOrZero = 100
    """gradient steps for each added layer"""
    joint_steps: CountOrZero = 400
    """gradient steps for all layers at once, at the end"""
    learning_rate: PositiveFraction = 5e-4
    """Adam's peak rate; the same for all layers, so it must be small"""
    log_every: Count = 50
    """steps between two lines of metrics"""


@on_one_core
def train_lista(
    model: LISTA, batches: Batches, cfg: LISTATrainConfig, log: Log | None = None
) -> LISTA:
    """Train in place and return the model.

    Args:
        model: LISTA of any kind.
        batches: where data, and codes if they are the target, come from.
        cfg: the configuration.
        log: receives ``step, depth, loss``.

    Raises:
        InputError: training on codes without any.
        UserError: a loss that is not finite.
    """
    depths = range(1, model.cfg.layers) if cfg.layerwise else ()
    stages = [(depth, cfg.layer_steps) for depth in depths]
    stages.append((model.cfg.layers, cfg.layer_steps * cfg.layerwise + cfg.joint_steps))
    step = 0
    for depth, steps in stages:
        used = model.blocks[:1] if model.cfg.tied else model.blocks[:depth]
        optimiser = torch.optim.Adam(used.parameters(), lr=cfg.learning_rate)
        for n in range(steps):
            x, codes = batches(step)
            set_rate(optimiser, cfg.learning_rate * cosine(n, steps))
            loss = _loss(model, x, codes, depth, cfg)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            value = finite(loss, "LISTA", step)
            step += 1
            if log is not None and (step % cfg.log_every == 0 or n == steps - 1):
                log(step=step, depth=depth, loss=value)
    return model


def _loss(
    model: LISTA, x: Tensor, codes: Tensor | None, depth: int, cfg: LISTATrainConfig
) -> Tensor:
    z = model.infer(x, depth)
    if cfg.target == "objective":
        return model.joint_energy(x, z).mean()
    if codes is None:
        raise InputError("training on codes needs codes; give them or set target to 'objective'")
    return functional.mse_loss(z, codes, reduction="sum") / len(x)
