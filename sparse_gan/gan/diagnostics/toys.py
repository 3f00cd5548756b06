"""Gaussians on a ring and on a grid, what a sample covers of them, and an energy fitted alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sparse_gan.gan import losses
from sparse_gan.gan.losses import LossConfig
from sparse_gan.gan.networks import MLPEnergy
from worldmodels.runs import derive_seed

Toy = Literal["ring", "grid"]
NEAR = 3.0
"""A sample belongs to a mode if it is nearer than so many standard deviations."""
FAIR = 0.1
"""A mode is covered if it gets at least this fraction of 1/K of the samples."""


@dataclass(frozen=True)
class Mixture:
    """Equal round Gaussians in the plane."""

    centres: Tensor
    """(K, 2)"""
    deviation: float
    """of each"""

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Points (count, 2)."""
        which = torch.randint(len(self.centres), (count,), generator=generator)
        noise = self.deviation * torch.randn(count, 2, generator=generator)
        return self.centres[which] + noise

    def batches(self, count: int, seed: int) -> Callable[[int], Tensor]:
        """Batches (count, 2) by number."""
        return lambda number: self.draw(count, generator_of(seed, "batch", number))


@dataclass(frozen=True)
class ModeFigures:
    """What samples cover of a mixture."""

    covered: int
    """modes that get at least `FAIR` times 1/K of the samples"""
    quality: float
    """fraction of samples within `NEAR` standard deviations of a mode; 0.989 for the mixture"""
    kl: float
    """KL (nats) from the modes' frequencies among good samples to equal ones; at most log K"""


def ring(modes: int = 8, radius: float = 2.0, deviation: float = 0.05) -> Mixture:
    """Gaussians on a circle."""
    angle = torch.arange(modes) * (2 * math.pi / modes)
    return Mixture(radius * torch.stack([angle.cos(), angle.sin()], 1), deviation)


def grid(side: int = 5, spacing: float = 1.0, deviation: float = 0.05) -> Mixture:
    """Gaussians on a square grid around 0."""
    line = (torch.arange(side) - (side - 1) / 2) * spacing
    return Mixture(torch.cartesian_prod(line, line), deviation)


def mixture(toy: Toy) -> Mixture:
    """The ring of 8 or the grid of 25."""
    return ring() if toy == "ring" else grid()


def mode_figures(samples: Tensor, truth: Mixture) -> ModeFigures:
    """Count what samples (B, 2) cover."""
    modes = len(truth.centres)
    nearest, which = torch.cdist(samples, truth.centres).min(1)
    good = nearest <= NEAR * truth.deviation
    counts = torch.bincount(which[good], minlength=modes).double()
    fair = FAIR * len(samples) / modes
    total = float(counts.sum())
    if total == 0:
        return ModeFigures(0, 0.0, math.log(modes))
    share = counts[counts > 0] / total
    kl = float((share * (share * modes).log()).sum())
    return ModeFigures(int((counts >= fair).sum()), float(good.double().mean()), kl)


def fit_energy(
    energy: MLPEnergy,
    loss: LossConfig,
    real: Callable[[int], Tensor],
    fake: Callable[[int], Tensor],
    steps: int,
    rate: float = 1e-3,
    seed: int = 0,
    after: Callable[[int], None] | None = None,
) -> None:
    """Train F alone, against contrastive samples that no G improves.

    Args:
        energy: F.
        loss: its loss and penalties.
        real: batches of data by number.
        fake: batches of contrastive samples by number.
        steps: of Adam.
        rate: its learning rate.
        seed: of the penalty's places.
        after: called with the number of steps done, from 0 on.
    """
    optimiser = torch.optim.Adam(energy.parameters(), lr=rate, betas=(0.5, 0.999))
    generator = generator_of(seed, "penalty")
    for step in range(steps):
        if after is not None:
            after(step)
        x, y = real(step), fake(step)
        value = losses.energy_loss(loss, energy.energy(x), energy.energy(y))
        value = value + losses.penalty(loss, energy.energy, x, y, generator)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()
        if loss.kind == "wasserstein":
            losses.clip_weights(energy.parameters(), loss.clip)
    if after is not None:
        after(steps)


def generator_of(seed: int, *words: object) -> torch.Generator:
    """A generator of our own for one purpose."""
    return torch.Generator().manual_seed(derive_seed(seed, *map(str, words)) % 2**63)
