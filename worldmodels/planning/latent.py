"""The latent z of s' = g(s, a, z): what could not be known, inferred after it was seen.

A model with a latent gives each observation an energy ``E(y) = min_z D(y, g(z)) + R(z)``: the
distance that no z can explain away, and what the z costs that explains the rest. Without its price
R every observation would be explained by some z and none would surprise.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from worldmodels.config import NotNegative, Positive, require
from worldmodels.memory.interface import MemoryOutput
from worldmodels.memory.mixture import mixture_mean


class InferredLatent(NamedTuple):
    """A latent, and the energies with and without it, for B observations."""

    latent: Tensor  #: (B, Z) noise, in standard deviations of the component
    component: Tensor  #: (B, Z) of the mixture
    energy: Tensor  #: (B,) with the latent: distance and price, in nats up to a constant
    energy_without: Tensor  #: (B,) distance to the mixture's mean


def infer_mixture_latent(
    output: MemoryOutput, observed: Tensor, std: float = 0.1, prior: float = 1.0
) -> InferredLatent:
    """The mixture's noise that best explains the observed next z (B, Z), exactly.

    For component k of a dimension the best noise is ``e = D s_k / (s_k^2 + w d^2)`` with
    ``D = y - mu_k``; of the components the one with the least energy is taken, where choosing it
    costs ``-w log pi_k``.

    Args:
        output: of M, (B, Z, K).
        observed: y.
        std: d, of the observation around what M says with the right latent: the unit of distance.
        prior: w, weight of the latent's price; 0 lets the latent explain everything.
    """
    require("std", std, Positive)
    require("prior", prior, NotNegative)
    sigma, d2 = output.log_sigma.exp(), std**2
    away = observed.unsqueeze(-1) - output.mu
    noise = away * sigma / (sigma.square() + prior * d2).clamp_min(1e-12)
    distance = (away - sigma * noise).square() / (2 * d2)
    energy = distance + prior * (noise.square() / 2 - output.log_pi)
    least, component = energy.min(-1)
    latent = noise.gather(-1, component.unsqueeze(-1)).squeeze(-1)
    mean = mixture_mean(output.log_pi, output.mu)
    without = (observed - mean).square().sum(-1) / (2 * d2)
    return InferredLatent(latent, component, least.sum(-1), without)
