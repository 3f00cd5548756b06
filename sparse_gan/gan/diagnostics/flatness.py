"""The energy off the manifold: what G is taught far from the data, for each loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_gan.gan.diagnostics.toys import Mixture, fit_energy, generator_of, ring
from sparse_gan.gan.losses import LossConfig, generator_loss, slopes
from sparse_gan.gan.networks import MLPEnergy
from worldmodels.config import Config, Count, Positive, Size
from worldmodels.runs import derive_seed

LOSSES: dict[str, LossConfig] = {
    "saturating": LossConfig("saturating"),
    "log": LossConfig("log"),
    "margin": LossConfig("margin", margin=5.0),
    "regression": LossConfig("regression"),
    "wasserstein": LossConfig("wasserstein", clip=0.1),
    "wasserstein-gp": LossConfig("wasserstein-gp"),
    "log + zero-centred penalty": LossConfig("log", zero_penalty=1.0, zero_penalty_fake=1.0),
}
"""Losses whose energies are laid side by side; the last two limit the slope of F."""
NEAR, FAR = (0.1, 0.5), (1.5, 3.0)
"""Distances from the data that count as near and as far; modes lie 2 from the middle."""


@dataclass(frozen=True)
class FlatnessConfig(Config):
    """Size of the experiment."""

    steps: Count = 2000
    """of F, alone"""
    batch: Size = 256
    """samples a step"""
    width: Size = 128
    """units of a hidden layer"""
    rays: Size = 64
    """lines that leave the data"""
    points: Size = 61
    """on each, from 0 to `FAR`'s end"""
    half: Positive = 6.0
    """contrastive samples fill the square from -half to half"""


@dataclass(frozen=True)
class Profile:
    """Along lines that leave the data outwards, averaged over the lines."""

    distance: list[float]
    """from the data"""
    energy: list[float]
    """F"""
    lesson: list[float]
    """length of the gradient of G's own loss with respect to the sample"""

    @property
    def far_over_near(self) -> float:
        """What G is taught far away over what it is taught near by; towards 0 is flat."""

        def mean(low: float, high: float) -> float:
            inside = [
                v for d, v in zip(self.distance, self.lesson, strict=True) if low <= d <= high
            ]
            return sum(inside) / len(inside)

        return mean(*FAR) / max(mean(*NEAR), 1e-30)


def train(cfg: FlatnessConfig, loss: LossConfig, seed: int) -> MLPEnergy:
    """Train F alone on the ring, against samples from the whole square."""
    torch.manual_seed(derive_seed(seed, "flatness") % 2**63)
    energy = MLPEnergy(cfg.width, nonnegative=loss.needs_floor)

    def anywhere(step: int) -> Tensor:
        generator = generator_of(seed, "anywhere", step)
        return cfg.half * (2 * torch.rand(cfg.batch, 2, generator=generator) - 1)

    fit_energy(energy, loss, ring().batches(cfg.batch, seed), anywhere, cfg.steps, seed=seed)
    return energy


def profile(energy: MLPEnergy, loss: LossConfig, cfg: FlatnessConfig, seed: int) -> Profile:
    """Follow F and G's lesson along lines from the ring's modes outwards.

    A line leaves at up to 45 degrees from the radius, so that it leads away from all modes.
    """
    truth: Mixture = ring()
    generator = generator_of(seed, "rays")
    which = torch.randint(len(truth.centres), (cfg.rays,), generator=generator)
    start = truth.centres[which]
    turn = (torch.rand(cfg.rays, generator=generator) - 0.5) * (math.pi / 2)
    angle = torch.atan2(start[:, 1], start[:, 0]) + turn
    direction = torch.stack([angle.cos(), angle.sin()], 1)
    distance = torch.linspace(0, FAR[1], cfg.points)
    x = start[:, None] + distance[None, :, None] * direction[:, None]
    flat = x.reshape(-1, 2)

    def taught(points: Tensor) -> Tensor:
        # G's loss is a mean over the batch; times the batch it is a sum over its samples
        return len(points) * generator_loss(loss, energy.energy(points))[None]

    lesson = slopes(taught, flat).detach().reshape(cfg.rays, cfg.points).mean(0)
    with torch.no_grad():
        height = energy.energy(flat).reshape(cfg.rays, cfg.points).mean(0)
    return Profile(distance.tolist(), height.tolist(), lesson.tolist())


__all__ = ["FAR", "LOSSES", "NEAR", "FlatnessConfig", "Profile", "profile", "train"]
