"""Gaussian mixtures over each latent dimension, in log space (the paper's appendix A.2).

Shapes: ``log_pi``, ``mu`` and ``log_sigma`` are (..., Z, K): every latent dimension has K
components of its own. ``log_pi`` is normalised over K.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


def mixture_log_prob(log_pi: Tensor, mu: Tensor, log_sigma: Tensor, target: Tensor) -> Tensor:
    """Log density of ``target`` (..., Z) under each dimension's mixture; returns (..., Z), in nats.

    ``log sum_k exp(log_pi_k + log N(target; mu_k, sigma_k))`` by logsumexp, so that a component
    far from the target underflows to nothing instead of to log 0.
    """
    assert target.shape == mu.shape[:-1], f"target {tuple(target.shape)}, mixture {tuple(mu.shape)}"
    log_prob: Tensor = _MixtureLogProb.apply(log_pi, mu, log_sigma, target)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return log_prob


class _MixtureLogProb(torch.autograd.Function):
    """The density with its gradient by responsibilities, in a third of autograd's passes.

    With r_k the posterior of component k and d_k the standardised distance, the gradients are r_k
    (log_pi), r_k d_k / sigma_k (mu) and r_k (d_k^2 - 1) (log_sigma).
    """

    @staticmethod
    def forward(ctx: Any, log_pi: Tensor, mu: Tensor, log_sigma: Tensor, target: Tensor) -> Tensor:
        precision = torch.exp(-log_sigma)
        distance = (target.unsqueeze(-1) - mu) * precision
        joint = torch.addcmul(log_pi - log_sigma, distance, distance, value=-0.5)
        total = torch.logsumexp(joint, dim=-1)
        ctx.save_for_backward(precision, distance, joint, total)
        return total - LOG_SQRT_2PI

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        precision, distance, joint, total = ctx.saved_tensors
        weight = torch.exp(joint - total.unsqueeze(-1)) * grads[0].unsqueeze(-1)
        d_mu = weight * distance * precision
        return weight, d_mu, weight * (distance.square() - 1), -d_mu.sum(-1)


def mixture_mean(log_pi: Tensor, mu: Tensor) -> Tensor:
    """Mean of each dimension's mixture: (..., Z, K) to (..., Z)."""
    return (log_pi.exp() * mu).sum(-1)


def mixture_variance(log_pi: Tensor, mu: Tensor, log_sigma: Tensor) -> Tensor:
    """Variance of each dimension's mixture: (..., Z, K) to (..., Z)."""
    pi = log_pi.exp()
    mean = (pi * mu).sum(-1, keepdim=True)
    return (pi * ((2 * log_sigma).exp() + (mu - mean).square())).sum(-1)


def component_posterior(log_pi: Tensor, mu: Tensor, log_sigma: Tensor, target: Tensor) -> Tensor:
    """Log probability (..., Z, K), not normalised, that a component made ``target`` (..., Z)."""
    distance = (target.unsqueeze(-1) - mu) * torch.exp(-log_sigma)
    return torch.addcmul(log_pi - log_sigma, distance, distance, value=-0.5)


def select_component(log_pi: Tensor, uniform: Tensor, tau: float = 1.0) -> Tensor:
    """Component (..., Z), int64 in [0, K), by the inverse CDF of ``softmax(log_pi / tau)``.

    ``log_pi`` need not be normalised; ``uniform`` is (..., Z) in [0, 1), and tau above 0.
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
    ``softmax(log_pi / tau)`` and its sigma is multiplied by ``sqrt(tau)``. ``uniform`` (..., Z) in
    [0, 1) chooses the component; ``normal`` is (..., Z). At tau 0 the sample is the mean of the
    likeliest component.
    """
    if tau <= 0:
        return mu.gather(-1, log_pi.argmax(-1, keepdim=True)).squeeze(-1)
    component = select_component(log_pi, uniform, tau).unsqueeze(-1)
    mean = mu.gather(-1, component).squeeze(-1)
    sigma = log_sigma.gather(-1, component).squeeze(-1).exp()
    return mean + math.sqrt(tau) * sigma * normal


def mixture_noise(z: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Uniform and normal noise for one sample like ``z``, whose device has the generator."""
    uniform = torch.rand(z.shape, generator=generator, device=z.device)
    return uniform, torch.randn(z.shape, generator=generator, device=z.device)
