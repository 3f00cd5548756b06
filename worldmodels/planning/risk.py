"""Risk and its two causes: what nobody can know (aleatoric), and what M does not (epistemic)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodels.memory.interface import Memory, MemoryOutput, MemoryState
from worldmodels.memory.mixture import mixture_mean, mixture_variance


def conditional_value_at_risk(returns: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Mean of the worst ``share`` of the returns (N, E), at least of one: (N,); 1 is the mean.

    CVaR of Rockafellar and Uryasev (2000), estimated from equally likely samples.
    """
    worst = np.sort(returns, axis=1)[:, : worst_count(returns.shape[1], share)]
    mean: NDArray[np.float64] = worst.mean(1)
    return mean


def worst_count(particles: int, share: float) -> int:
    """Number of the worst of so many dreams that count."""
    return max(1, math.ceil(share * particles - 1e-9))


class Uncertainty(NamedTuple):
    """Variance of the next z by its cause; the two add up to the variance of the ensemble."""

    aleatoric: Tensor
    """(B, Z) mean over memories of each one's own variance"""
    epistemic: Tensor
    """(B, Z) variance over memories of their means; 0 where there is one memory"""


def decompose(outputs: Sequence[MemoryOutput]) -> Uncertainty:
    """Split what several memories predict (B, Z, K), by the law of total variance."""
    own = torch.stack([mixture_variance(o.log_pi, o.mu, o.log_sigma) for o in outputs])
    means = torch.stack([mixture_mean(o.log_pi, o.mu) for o in outputs])
    return Uncertainty(own.mean(0), means.var(0, correction=0))


@torch.inference_mode()
def along(
    memories: Sequence[Memory],
    z: Tensor,
    states: Sequence[MemoryState],
    actions: Tensor,
) -> list[Uncertainty]:
    """Uncertainty at every step of a plan, along the mean of all memories' predictions.

    Args:
        memories: M of them.
        z: (B, Z) now.
        states: M states (B, H).
        actions: (B, T, A) as M sees them.

    Returns:
        T records of (B, Z).
    """
    states, found = list(states), []
    for action in actions.unbind(1):
        steps = [m.step(z, action, s) for m, s in zip(memories, states, strict=True)]
        outputs, states = [out for out, _ in steps], [state for _, state in steps]
        found.append(decompose(outputs))
        z = torch.stack([mixture_mean(o.log_pi, o.mu) for o in outputs]).mean(0)
    return found
