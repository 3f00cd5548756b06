"""Parts of the training loops: shuffled batches, a falling rate, and a stop at a broken loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from worldmodels.protocols import UserError

Log = Callable[..., None]
"""Takes the metrics of one moment as keyword arguments."""


def generator_of(seed: int) -> torch.Generator:
    """Return a generator of our own, on the CPU so that a seed means the same on every device."""
    return torch.Generator().manual_seed(seed % 2**63)


def shuffled(count: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the indices of one epoch in random batches, the last one shorter if need be."""
    yield from torch.randperm(count, generator=generator).split(batch)


def cosine(step: int, steps: int, last: float = 0.01) -> float:
    """Factor on the learning rate: 1 at the first step, falling along a cosine to ``last``."""
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * step / max(1, steps)))


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameters."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def finite(loss: Tensor, model: str, step: int) -> float:
    """Return a loss as a number.

    Raises:
        UserError: it is not finite.
    """
    value = float(loss.detach())
    if not math.isfinite(value):
        raise UserError(
            f"the loss of {model} is {value} at step {step}; the learning rate is too high for "
            "these data, or their values are too large"
        )
    return value
