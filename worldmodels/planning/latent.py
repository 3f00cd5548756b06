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
from worldmodels.memory.mdn_rnn import MemoryOutput
from worldmodels.memory.mixture import mixture_mean
from worldmodels.planning.gradient import adam


@dataclass(frozen=True)
class InferenceConfig(Config):
    """How a latent is inferred."""

    deviation: Positive = 0.1
    """of the observation around what the model says with the right latent: the unit of distance"""
    prior: NotNegative = 1.0
    """weight of the prior; 0 lets the latent explain everything"""
    iterations: Count = 300
    """steps of Adam (models that are given as functions)"""
    learning_rate: Positive = 0.05
    """of Adam"""


class InferredLatent(NamedTuple):
    """A latent, and the energies with and without it, for B observations."""

    latent: Tensor
    """(B, L) the standard normal part; in M (B, Z)"""
    component: Tensor | None
    """(B, Z) component of the mixture; None for other models"""
    explained: Tensor
    """(B, Y) what the model says with the latent"""
    energy: Tensor
    """(B,) with the latent: distance and prior, in nats up to a constant"""
    energy_without: Tensor
    """(B,) without: the distance to what the model says on average, or at latent 0"""


def infer_latent(
    model: Callable[[Tensor], Tensor], observed: Tensor, size: int, cfg: InferenceConfig
) -> InferredLatent:
    """Find the latent that best explains an observation, by descent.

    Minimises ``|y - g(z)|^2 / (2 d^2) + w |z|^2 / 2``, the negative log posterior of a standard
    normal z (times w) and a Gaussian observation, from z = 0.

    Args:
        model: g, from latents (B, L) to observations (B, Y), differentiable.
        observed: y (B, Y).
        size: L.
        cfg: deviation d, weight w and the descent.
    """

    def energy_of(latent: Tensor) -> Tensor:
        distance = (observed - model(latent)).square().sum(-1) / (2 * cfg.deviation**2)
        return distance + cfg.prior * latent.square().sum(-1) / 2

    latent = observed.new_zeros(len(observed), size)
    best, best_energy = latent, energy_of(latent).detach()
    without = best_energy
    first, second = torch.zeros_like(latent), torch.zeros_like(latent)
    for step in range(cfg.iterations):
        with torch.enable_grad():
            leaf = latent.requires_grad_(True)
            energy = energy_of(leaf)
        (gradient,) = torch.autograd.grad(-energy.sum(), leaf)
        direction, first, second = adam(gradient, first, second, step)
        shrink = 0.5 * (1 + math.cos(math.pi * step / cfg.iterations))
        latent = leaf.detach() + cfg.learning_rate * shrink * direction
        now = energy_of(latent).detach()
        better = now < best_energy
        best = torch.where(better[:, None], latent, best)
        best_energy = torch.where(better, now, best_energy)
    return InferredLatent(best, None, model(best).detach(), best_energy, without)


def infer_mixture_latent(
    output: MemoryOutput, observed: Tensor, cfg: InferenceConfig
) -> InferredLatent:
    """The mixture's noise that best explains the next z, exactly.

    For component k of a dimension the best noise is ``e = D s_k / (s_k^2 + w d^2)`` with
    ``D = y - mu_k``; of the components the one with the least energy is taken, where choosing it
    costs ``-w log pi_k``.

    Args:
        output: M's prediction (B, Z, K).
        observed: the z that came, (B, Z).
        cfg: deviation d and weight w.
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
    return InferredLatent(latent, component, explained, least.sum(-1), without)


__all__ = ["InferenceConfig", "InferredLatent", "infer_latent", "infer_mixture_latent"]
