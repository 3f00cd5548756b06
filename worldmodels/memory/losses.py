"""M's losses: pure functions of predictions and targets, averaged over the steps that count.

``valid`` (B, T) is 1 for a step of the episode and 0 after its end. Every loss is a sum over the
valid steps divided by their number, so padding changes nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from worldmodels.memory.interface import MemoryOutput
from worldmodels.memory.mixture import mixture_log_prob


def masked_mean(value: Tensor, valid: Tensor) -> Tensor:
    """Mean of ``value`` (B, T) over the steps where ``valid`` (B, T) is not 0; 0 if there is none.

    Values at steps that do not count may be anything, NaN included.
    """
    kept = torch.where(valid.bool(), value, torch.zeros_like(value))
    return kept.sum() / valid.sum().clamp_min(1)


def mixture_nll(output: MemoryOutput, target: Tensor, valid: Tensor) -> Tensor:
    """Negative log-likelihood of z_{t+1}, in nats per step and **latent dimension**.

    Args:
        output: predictions (B, T, Z, K).
        target: z_{t+1} (B, T, Z).
        valid: (B, T).
    """
    log_prob = mixture_log_prob(output.log_pi, output.mu, output.log_sigma, target)
    return masked_mean(-log_prob.mean(-1), valid)


def hit_loss(logit: Tensor, hit: Tensor, valid: Tensor, pos_weight: float = 1.0) -> Tensor:
    """Binary cross-entropy of the event, in nats per step.

    Args:
        logit: (B, T).
        hit: (B, T), 0 or 1.
        valid: (B, T).
        pos_weight: factor on the loss of the events; other than 1 it biases the probability, so a
            dream reward read from it is biased too.
    """
    weight = torch.as_tensor(pos_weight, dtype=logit.dtype, device=logit.device)
    loss = functional.binary_cross_entropy_with_logits(
        logit, hit.to(logit.dtype), pos_weight=weight, reduction="none"
    )
    return masked_mean(loss, valid)


def count_loss(output: Tensor, count: Tensor, valid: Tensor) -> Tensor:
    """Poisson negative log-likelihood of the number of events, in nats per step, up to a constant.

    As a quasi-likelihood it fits the expected number whatever the distribution, and for fractions.

    Args:
        output: (B, T) raw; softplus of it is the rate.
        count: (B, T), 0 or more.
        valid: (B, T).
    """
    rate = functional.softplus(output)
    log_rate = torch.log(rate.clamp_min(1e-8))
    return masked_mean(rate - count.to(rate.dtype) * log_rate, valid)


def raw_reward_loss(output: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Squared error of the scaled reward (B, T), averaged over the valid steps."""
    return masked_mean((output - target.to(output.dtype)).square(), valid)


def termination_loss(
    logit: Tensor, terminated: Tensor, valid: Tensor, pos_weight: float = 1.0
) -> Tensor:
    """Binary cross-entropy of the episode ending at this step, in nats per step.

    A truncated episode's last step counts as not terminated. Shapes as in `hit_loss`.
    """
    return hit_loss(logit, terminated, valid, pos_weight)
