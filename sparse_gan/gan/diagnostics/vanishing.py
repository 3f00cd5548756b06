"""The vanishing gradient: how much G learns as F grows sure, with both forms of its loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch

from sparse_gan.gan.diagnostics.toys import fit_energy, mixture
from sparse_gan.gan.losses import LossConfig, LossKind, generator_loss
from sparse_gan.gan.networks import MLPEnergy, MLPGenerator
from worldmodels.config import NOT_EMPTY, Config, CountOrZero, Size
from worldmodels.runs import derive_seed

FORMS: tuple[LossKind, LossKind] = ("saturating", "log")


@dataclass(frozen=True)
class VanishingConfig(Config):
    """Size of the experiment."""

    strengths: Annotated[tuple[CountOrZero, ...], NOT_EMPTY] = (0, 25, 50, 100, 200, 400, 800)
    """steps of F at which G's gradient is measured"""
    batch: Size = 256
    """samples a step, and in the measurement"""
    width: Size = 128
    """units of a hidden layer"""


@dataclass(frozen=True)
class VanishingCurve:
    """G's gradient at growing strength of F; all lists are as long as ``strengths``."""

    strengths: list[int]
    """steps of F"""
    certainty: list[float]
    """mean probability sigmoid(F) with which F calls fakes fake"""
    saturating: list[float]
    """norm of the gradient of log(1 - D) over all of G's parameters"""
    nonsaturating: list[float]
    """the same of -log D"""

    @property
    def starved(self) -> tuple[float, float]:
        """Last over first norm, of the saturating and of the non-saturating loss."""
        pair = (self.saturating, self.nonsaturating)
        first, second = (norms[-1] / max(norms[0], 1e-30) for norms in pair)
        return first, second


def run(cfg: VanishingConfig, seed: int) -> VanishingCurve:
    """Train F against a G that stands still, and measure what G would be taught.

    This is what happens to G whenever F gets ahead of it (Arjovsky and Bottou 2017, theorem 2.4).
    """
    torch.manual_seed(derive_seed(seed, "vanishing") % 2**63)
    g, energy = MLPGenerator(2, cfg.width), MLPEnergy(cfg.width)
    source = torch.Generator().manual_seed(derive_seed(seed, "noise") % 2**63)
    curve = VanishingCurve([], [], [], [])

    def fake(_: int) -> torch.Tensor:
        with torch.no_grad():
            made: torch.Tensor = g(g.noise(cfg.batch, source))
        return made

    probe = g.noise(cfg.batch, source)

    def measure(step: int) -> None:
        if step not in cfg.strengths:
            return
        high = energy.energy(g(probe))
        norms = []
        for kind in FORMS:
            loss = generator_loss(LossConfig(kind), high)
            slopes = torch.autograd.grad(loss, list(g.parameters()), retain_graph=True)
            norms.append(float(torch.stack([s.square().sum() for s in slopes]).sum().sqrt()))
        curve.strengths.append(step)
        curve.certainty.append(float(torch.sigmoid(high.detach()).mean()))
        curve.saturating.append(norms[0])
        curve.nonsaturating.append(norms[1])

    real = mixture("ring").batches(cfg.batch, seed)
    fit_energy(energy, LossConfig("log"), real, fake, max(cfg.strengths), after=measure)
    return curve
