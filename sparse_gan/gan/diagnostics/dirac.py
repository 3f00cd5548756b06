"""Dirac-GAN (Mescheder et al. 2018): one number against one number, and whether they settle.

Data are the point 0, G makes the point theta, and F(x) = psi x. The only equilibrium is (0, 0).
With sigma of instance noise, both points become Gaussians.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sparse_gan.gan import losses
from sparse_gan.gan.losses import LossConfig
from worldmodels.config import Config, Count, Positive, Size

PLAIN: dict[str, LossConfig] = {
    "saturating": LossConfig("saturating"),
    "wasserstein": LossConfig("wasserstein", clip=10.0),
    "wasserstein-gp": LossConfig("wasserstein-gp", gradient_penalty=1.0),
}
"""Forms that circle."""
SLOW: dict[str, LossConfig] = {"log": LossConfig("log")}
"""The non-saturating form alone: its orbit shrinks, ever more slowly the smaller it is."""
PENALTY, NOISE = " + zero-centred penalty", " + instance noise"
TREATED: dict[str, LossConfig] = {
    name + suffix: treated
    for name, loss in (PLAIN | SLOW).items()
    for suffix, treated in (
        (PENALTY, replace(loss, zero_penalty=1.0)),
        (NOISE, replace(loss, instance_noise=1.0)),
    )
}
"""Each of them with each of two remedies. The penalty cures all but wasserstein-gp, whose own
penalty holds the slope away from 0. Noise cures the losses that bend, saturating and log: a loss
that is linear in F is the same with noise of mean 0 and without."""
CURED = tuple(name for name in TREATED if "gp" not in name and name != f"wasserstein{NOISE}")
"""Names of those that settle, at a linear rate."""


@dataclass(frozen=True)
class DiracConfig(Config):
    """Size of the experiment."""

    steps: Count = 1000
    """of G"""
    rate: Positive = 0.1
    """learning rate of plain gradient descent, of both"""
    energy_steps: Count = 1
    """steps of F for each of G"""
    nodes: Size = 33
    """points that stand for a Gaussian where there is instance noise"""


def run(cfg: DiracConfig, loss: LossConfig, start: tuple[float, float]) -> Tensor:
    """Play the game with the very losses of the training loop, F and G in turn.

    Args:
        cfg: size.
        loss: its instance noise stays as it is instead of falling to 0.
        start: theta and psi.

    Returns:
        (steps + 1, 2) theta and psi over time.
    """
    theta, psi = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in start)
    quantile = (torch.arange(cfg.nodes, dtype=torch.float64) + 0.5) / cfg.nodes
    spread = torch.special.ndtri(quantile)[:, None] * loss.instance_noise
    if loss.instance_noise == 0:
        spread = torch.zeros(1, 1, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)

    def energy(x: Tensor) -> Tensor:
        return (psi * x).flatten()

    path = [(theta.item(), psi.item())]
    for _ in range(cfg.steps):
        for _ in range(cfg.energy_steps):
            fake = theta.detach() + spread
            value = losses.energy_loss(loss, energy(spread), energy(fake))
            value = value + losses.penalty(loss, energy, spread, fake, generator)
            (slope,) = torch.autograd.grad(value, psi)
            with torch.no_grad():
                psi -= cfg.rate * slope
                if loss.kind == "wasserstein":
                    psi.clamp_(-loss.clip, loss.clip)
        high = energy(theta + spread)
        (slope,) = torch.autograd.grad(losses.generator_loss(loss, high), theta)
        with torch.no_grad():
            theta -= cfg.rate * slope
        path.append((theta.item(), psi.item()))
    return torch.tensor(path, dtype=torch.float64)


def shrinkage(path: Tensor) -> float:
    """Largest radius in the last quarter of a path (T, 2) over the radius at the start.

    About 1 or more for an orbit, towards 0 for one that settles at the equilibrium.
    """
    radius = path.norm(dim=1)
    return float(radius[-(len(radius) // 4) :].max() / radius[0])


__all__ = [
    "CURED",
    "NOISE",
    "PENALTY",
    "PLAIN",
    "SLOW",
    "TREATED",
    "DiracConfig",
    "run",
    "shrinkage",
]
