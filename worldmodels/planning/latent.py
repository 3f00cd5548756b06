"""The latent z of s' = g(s, a, z): what could not be known, inferred after it was seen.

A model with a latent gives each observation an energy ``E(y) = min_z D(y, g(z)) + R(z)``: the
distance that no z can explain away, and what the z costs that explains the rest. Without its price
R every observation would be explained by some z and none would surprise.

In M the latent is the mixture's noise: which component of each dimension of V's code, and how many
deviations from its mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from worldmodels.config import Config, Count, NotNegative, Positive
from worldmodels.memory.interface import MemoryOutput
from worldmodels.memory.mixture import mixture_mean
from worldmodels.planning.gradient import adam

LEARNING_RATE = 0.05
"""First one of Adam."""
START_STD = 2.0
"""Standard deviation of the points to descend from; above 1 they also cover what is rare."""
TOLERANCE = 0.01
"""Nats that a further step downhill may still gain from a latent that counts as converged."""


@dataclass(frozen=True)
class InferenceConfig(Config):
    """How a latent is inferred."""

    deviation: Positive = 0.1
    """of the observation around what the model says with the right latent: the unit of distance"""
    prior: NotNegative = 1.0
    """weight of the prior; 0 lets the latent explain everything"""
    iterations: Count = 300
    """steps of Adam (models that are given as functions)"""
    starts: Count = 32
    """descents of each observation (models that are given as functions), of which the best counts:
    from 0, and from points spread over the prior"""


class InferredLatent(NamedTuple):
    """A latent, and the energies with and without it, for B observations."""

    latent: Tensor  #: (B, L) the standard normal part; in M (B, Z)
    component: Tensor | None  #: (B, Z) component of the mixture; None for other models
    explained: Tensor  #: (B, Y) what the model says with the latent
    energy: Tensor  #: (B,) with the latent: distance and prior, in nats up to a constant
    energy_without: Tensor
    """(B,) without: the distance to what the model says on average, or at latent 0"""
    converged: Tensor  #: (B,) whether the descent has come to its end; an exact solution always has


def infer_latent(
    model: Callable[[Tensor], Tensor], observed: Tensor, size: int, cfg: InferenceConfig
) -> InferredLatent:
    """Find the latent that best explains an observation, by descent; the result has no graph.

    Minimises ``|y - g(z)|^2 / (2 d^2) + w |z|^2 / 2``, the negative log posterior of a standard
    normal z (times w) and a Gaussian observation. The energy may have several minima, so Adam
    descends from `InferenceConfig.starts` points: 0, and a Sobol sequence brought to a normal
    distribution. The least of the minima that they reach is returned; there may be a smaller one.

    Args:
        model: g, from latents (starts x B, L) to observations (starts x B, Y), each row by itself.
        observed: y (B, Y).
        size: L.
        cfg: deviation d, weight w and the descent.
    """
    observed = observed.detach()
    target = observed.repeat(cfg.starts, 1)

    def energy_of(latent: Tensor) -> Tensor:
        distance = (target - model(latent)).square().sum(-1) / (2 * cfg.deviation**2)
        return distance + cfg.prior * latent.square().sum(-1) / 2

    def slope(latent: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = latent.detach().requires_grad_(True)
            return torch.autograd.grad(energy_of(leaf).sum(), leaf)[0]

    @torch.no_grad()
    def better(latent: Tensor) -> tuple[Tensor, Tensor]:
        energy = energy_of(latent)
        less = energy < best_energy
        return torch.where(less[:, None], latent, best), torch.where(less, energy, best_energy)

    sobol = torch.quasirandom.SobolEngine(size, scramble=True, seed=0)
    drawn = sobol.draw(cfg.starts, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)
    starts = START_STD * torch.special.ndtri(drawn)
    starts[0] = 0
    latent = starts.to(observed).repeat_interleave(len(observed), 0)
    with torch.no_grad():
        best, best_energy = latent, energy_of(latent)
    without = best_energy[: len(observed)]
    first, second = torch.zeros_like(latent), torch.zeros_like(latent)
    for step in range(cfg.iterations):
        direction, first, second = adam(-slope(latent), first, second, step)
        shrink = 0.5 * (1 + math.cos(math.pi * step / cfg.iterations))
        latent = latent + LEARNING_RATE * shrink * direction
        best, best_energy = better(latent)
    reached, end = best_energy, best
    downhill = torch.nn.functional.normalize(-slope(best), dim=-1)
    for power in range(24):  # steps of length 1, 1/2, ...: what is still to be gained
        best, best_energy = better(end + downhill * 2.0**-power)
    converged = reached - best_energy <= TOLERANCE
    row = best_energy.reshape(cfg.starts, -1).argmin(0) * len(observed)
    row = row + torch.arange(len(observed), device=observed.device)
    with torch.no_grad():
        explained = model(best[row])
    return InferredLatent(best[row], None, explained, best_energy[row], without, converged[row])


def infer_mixture_latent(
    output: MemoryOutput, observed: Tensor, cfg: InferenceConfig
) -> InferredLatent:
    """The mixture's noise that best explains the observed next z (B, Z), exactly.

    For component k of a dimension the best noise is ``e = D s_k / (s_k^2 + w d^2)`` with
    ``D = y - mu_k``; of the components the one with the least energy is taken, where choosing it
    costs ``-w log pi_k``. Of ``cfg`` only d (deviation) and w (prior) are used.
    """
    sigma, d2 = output.log_sigma.exp(), cfg.deviation**2
    away = observed.unsqueeze(-1) - output.mu
    noise = away * sigma / (sigma.square() + cfg.prior * d2).clamp_min(1e-12)
    distance = (away - sigma * noise).square() / (2 * d2)
    energy = distance + cfg.prior * (noise.square() / 2 - output.log_pi)
    least, component = energy.min(-1)
    at = component.unsqueeze(-1)
    latent = noise.gather(-1, at).squeeze(-1)
    explained = (output.mu + sigma * noise).gather(-1, at).squeeze(-1)
    mean = mixture_mean(output.log_pi, output.mu)
    without = (observed - mean).square().sum(-1) / (2 * d2)
    exact = torch.ones(len(observed), dtype=torch.bool, device=observed.device)
    return InferredLatent(latent, component, explained, least.sum(-1), without, exact)
