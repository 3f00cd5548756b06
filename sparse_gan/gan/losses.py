"""Losses of the energy F and of the generator G: pure functions of energies, low being real."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from sparse_gan.energy import contrastive_loss
from worldmodels.config import Config, NotNegative, Positive
from worldmodels.protocols import UserError

LossKind = Literal[
    "margin", "log", "saturating", "regression", "wasserstein", "wasserstein-gp", "ebgan"
]
Energy = Callable[[Tensor], Tensor]
"""From samples (B, ...) to energies (B,)."""


@dataclass(frozen=True)
class LossConfig(Config):
    """Which loss, and what is added to it."""

    kind: LossKind = "log"
    """margin, log (non-saturating), saturating, regression, wasserstein, wasserstein-gp, ebgan"""
    margin: Positive = 10.0
    """of margin and ebgan: energy above which a fake sample is left alone"""
    target: Positive = 10.0
    """of regression: what the energy of fake samples should be; that of real ones is 0"""
    pulling_away: NotNegative = 0.1
    """of ebgan: weight of the pulling-away term"""
    clip: Positive = 0.01
    """of wasserstein: bound of every weight of F"""
    gradient_penalty: Positive = 10.0
    """of wasserstein-gp: weight of (||dF/dx|| - 1)^2"""
    zero_penalty: NotNegative = 0.0
    """of any: weight of ||dF/dx||^2 / 2 at real samples (R1)"""
    zero_penalty_fake: NotNegative = 0.0
    """of any: the same at fake samples (R2)"""
    instance_noise: NotNegative = 0.0
    """initial standard deviation of the noise on F's input, annealed linearly to 0"""

    @property
    def needs_floor(self) -> bool:
        """Whether F must be bounded below: else the margin loss pays for ever lower energies."""
        return self.kind == "margin"

    @property
    def has_penalty(self) -> bool:
        """Whether F's gradient with respect to single samples is penalised."""
        return self.kind == "wasserstein-gp" or self.zero_penalty > 0 or self.zero_penalty_fake > 0


def energy_loss(cfg: LossConfig, low: Tensor, high: Tensor) -> Tensor:
    """What F minimises, without penalties.

    - margin, ebgan: ``F(y) + [m - F(G(z))]^+`` (Zhao et al. 2017, equation 1)
    - log, saturating: ``softplus(F(y)) + softplus(-F(G(z)))``, cross-entropy for the logit -F
    - regression: ``(F(y)^2 + (F(G(z)) - target)^2) / 2``
    - wasserstein, wasserstein-gp: ``F(y) - F(G(z))`` (Arjovsky et al. 2017, with F = -critic)

    Args:
        cfg: which.
        low: (B,) energies of data.
        high: (B',) energies of generated samples.
    """
    if cfg.kind in ("margin", "ebgan"):
        return contrastive_loss(low, high, cfg.margin)
    if cfg.kind in ("log", "saturating"):
        return contrastive_loss(low, high)
    if cfg.kind == "regression":
        return 0.5 * (low.square().mean() + (high - cfg.target).square().mean())
    return low.mean() - high.mean()


def generator_loss(cfg: LossConfig, high: Tensor) -> Tensor:
    """What G minimises, without the pulling-away term.

    - log: ``softplus(F)``, which is -log D, the non-saturating form
    - saturating: ``-softplus(-F)``, which is log(1 - D), the minimax form (Goodfellow et al. 2014)
    - all others: ``F``

    Args:
        cfg: which.
        high: (B,) energies of generated samples, with their graph.
    """
    if cfg.kind == "log":
        return functional.softplus(high).mean()
    if cfg.kind == "saturating":
        return -functional.softplus(-high).mean()
    return high.mean()


def pulling_away(features: Tensor) -> Tensor:
    """Mean squared cosine between different samples of a batch (Zhao et al. 2017, equation 6).

    1 on a batch that has collapsed to one sample, 0 on one whose features are orthogonal.

    Args:
        features: (B, N), B at least 2.
    """
    count = len(features)
    if count < 2:
        raise UserError(f"the pulling-away term needs at least 2 samples; the batch has {count}")
    unit = functional.normalize(features.flatten(1), dim=1)
    squared = (unit @ unit.T).square()
    return (squared.sum() - squared.diagonal().sum()) / (count * (count - 1))


def slopes(energy: Energy, x: Tensor) -> Tensor:
    """``||dF/dx||`` (B,) at samples (B, ...), differentiable with respect to F's parameters."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(energy(x).sum(), x, create_graph=True)
    # the root's own derivative is infinite at 0
    return (gradient.flatten(1).square().sum(1) + 1e-24).sqrt()


def gradient_penalty(energy: Energy, real: Tensor, fake: Tensor, fraction: Tensor) -> Tensor:
    """``(||dF/dx|| - 1)^2`` between real and fake samples (Gulrajani et al. 2017, equation 3).

    Args:
        energy: F.
        real: (B, ...).
        fake: (B, ...).
        fraction: (B,) uniform in [0, 1]: how far from the fake towards the real sample.
    """
    part = fraction.reshape(-1, *[1] * (real.ndim - 1)).to(real)
    between = part * real.detach() + (1 - part) * fake.detach()
    return (slopes(energy, between) - 1).square().mean()


def zero_penalty(energy: Energy, x: Tensor) -> Tensor:
    """``||dF/dx||^2 / 2``, at real samples R1, at fake ones R2 (Mescheder et al. 2018, eq. 9)."""
    return 0.5 * slopes(energy, x).square().mean()


def penalty(
    cfg: LossConfig, energy: Energy, real: Tensor, fake: Tensor, generator: torch.Generator
) -> Tensor:
    """Sum (scalar) of the penalties that the loss has, each with its weight; 0 if it has none.

    Args:
        cfg: which.
        energy: F.
        real: (B, ...).
        fake: (B, ...).
        generator: draws the places between real and fake samples.
    """
    total = torch.zeros((), device=real.device)
    if cfg.kind == "wasserstein-gp":
        fraction = torch.rand(len(real), generator=generator)
        total = total + cfg.gradient_penalty * gradient_penalty(energy, real, fake, fraction)
    if cfg.zero_penalty:
        total = total + cfg.zero_penalty * zero_penalty(energy, real)
    if cfg.zero_penalty_fake:
        total = total + cfg.zero_penalty_fake * zero_penalty(energy, fake)
    return total


@torch.no_grad()
def clip_weights(parameters: Iterable[Tensor], bound: float) -> None:
    """Bound every weight, in place: what keeps the first Wasserstein GAN's F from being steep."""
    for weight in parameters:
        weight.clamp_(-bound, bound)


def annealed(deviation: float, step: int, steps: int) -> float:
    """Standard deviation of the instance noise at ``step``, falling linearly to 0 at ``steps``."""
    return deviation * max(0.0, 1 - step / max(1, steps))
