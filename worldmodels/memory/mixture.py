"""Gaussian mixtures over each latent dimension, in log space (the paper's appendix A.2).

Shapes: ``log_pi``, ``mu`` and ``log_sigma`` are (..., Z, K): every latent dimension has K
components of its own. ``log_pi`` is normalised over K.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


def mixture_log_prob(log_pi: Tensor, mu: Tensor, log_sigma: Tensor, target: Tensor) -> Tensor:
    """Log density of ``target`` (..., Z) under each dimension's mixture; returns (..., Z), in nats.

    ``log sum_k exp(log_pi_k + log N(target; mu_k, sigma_k))`` by logsumexp, so that a component
    far from the target underflows to nothing instead of to log 0.
    """
    assert target.shape == mu.shape[:-1], f"target {tuple(target.shape)}, mixture {tuple(mu.shape)}"
    standardised = (target.unsqueeze(-1) - mu) * torch.exp(-log_sigma)
    log_normal = -0.5 * standardised.square() - log_sigma - LOG_SQRT_2PI
    return torch.logsumexp(log_pi + log_normal, dim=-1)


def mixture_mean(log_pi: Tensor, mu: Tensor) -> Tensor:
    """Mean of each dimension's mixture: (..., Z, K) to (..., Z)."""
    return (log_pi.exp() * mu).sum(-1)


def mixture_variance(log_pi: Tensor, mu: Tensor, log_sigma: Tensor) -> Tensor:
    """Variance of each dimension's mixture: (..., Z, K) to (..., Z)."""
    pi = log_pi.exp()
    mean = (pi * mu).sum(-1, keepdim=True)
    return (pi * ((2 * log_sigma).exp() + (mu - mean).square())).sum(-1)


def select_component(log_pi: Tensor, uniform: Tensor, tau: float = 1.0) -> Tensor:
    """Component drawn by inverting the distribution function of ``softmax(log_pi / tau)``.

    Args:
        log_pi: (..., Z, K); need not be normalised.
        uniform: (..., Z) in [0, 1).
        tau: temperature, above 0.

    Returns:
        (..., Z) int64 in [0, K).
    """
    weight = torch.exp((log_pi - log_pi.amax(-1, keepdim=True)) / tau)
    cumulative = weight.cumsum(-1)
    threshold = (uniform.unsqueeze(-1) * cumulative[..., -1:]).to(cumulative.dtype)
    return (cumulative[..., :-1] <= threshold).sum(-1)


def mixture_from_noise(
    log_pi: Tensor, mu: Tensor, log_sigma: Tensor, uniform: Tensor, normal: Tensor, tau: float = 1.0
) -> Tensor:
    """Sample (..., Z) as a deterministic function of given noise.

    The paper's temperature (appendix A.2 and its code): the component is drawn from
    ``softmax(log_pi / tau)`` and its sigma is multiplied by ``sqrt(tau)``.

    Args:
        log_pi: (..., Z, K).
        mu: (..., Z, K).
        log_sigma: (..., Z, K).
        uniform: (..., Z) in [0, 1), chooses the component.
        normal: (..., Z) standard normal.
        tau: temperature, at least 0; at 0 the result is the mean of the likeliest component.
    """
    if tau <= 0:
        component = log_pi.argmax(-1, keepdim=True)
        return mu.gather(-1, component).squeeze(-1)
    component = select_component(log_pi, uniform, tau).unsqueeze(-1)
    mean = mu.gather(-1, component).squeeze(-1)
    sigma = log_sigma.gather(-1, component).squeeze(-1).exp()
    return mean + math.sqrt(tau) * sigma * normal


def sample_mixture(
    log_pi: Tensor,
    mu: Tensor,
    log_sigma: Tensor,
    tau: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sample (..., Z) with temperature ``tau``; ``generator`` must live on the tensors' device."""
    shape, device = mu.shape[:-1], mu.device
    uniform = torch.rand(shape, generator=generator, device=device)
    normal = torch.randn(shape, generator=generator, device=device)
    return mixture_from_noise(log_pi, mu, log_sigma, uniform, normal, tau)


__all__ = [
    "mixture_from_noise",
    "mixture_log_prob",
    "mixture_mean",
    "mixture_variance",
    "sample_mixture",
    "select_component",
]
