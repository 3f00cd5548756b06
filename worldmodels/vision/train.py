"""Training of V: one visible loop over shuffled frame batches, resumable at every checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from worldmodels._training import Options, TrainConfig, TrainingLoop
from worldmodels.config import Count, CountOrZero, NotNegative, Rate, Size
from worldmodels.runs import has_fast_bfloat16, mixed_precision
from worldmodels.vision.vae import ConvVAE, VAEConfig, to_float, vae_loss

Batches = Callable[[int], Iterator[NDArray[np.uint8]]]
"""From the number of batches already used to the batches that follow, each (B, 64, 64, 3)."""


@dataclass(frozen=True)
class VisionTrainConfig(TrainConfig):
    """How V is trained: Adam with a one-cycle schedule (short warm-up, cosine to a hundredth)."""

    steps: Count = 1200
    finetune_steps: CountOrZero = 300
    learning_rate: Rate = 1e-3
    finetune_iterations: CountOrZero = 1
    """iterations of the pipeline, beyond the first, in which V is fine-tuned; then it is kept"""
    batch_size: Size = 100
    """frames per step"""
    kl_tolerance: NotNegative = 0.5
    """nats per latent dimension that the KL term does not count (paper's code: 0.5)"""
    bfloat16: bool = True
    """autocast to bfloat16 where the machine multiplies it fast; about 2.5 times the speed"""


def one_cycle(step: int, steps: int, peak: float, warmup: float = 0.05) -> float:
    """Learning rate at ``step`` of ``steps``: linear warm-up, then a cosine to ``peak / 100``."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return peak * (step + 1) / rise
    fraction = (step - rise) / max(1, steps - rise)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fraction)))


def train_vision(
    cfg: VisionTrainConfig,
    vae: VAEConfig,
    batches: Batches,
    holdout: NDArray[np.uint8],
    **options: Unpack[Options],
) -> ConvVAE:
    """Train V and return it in evaluation mode.

    ``batches(k)`` yields the shuffled batches from number k on, so that a resumed run sees the
    batches of an unbroken one; the validation loss is of ``holdout`` (N, 64, 64, 3) uint8. Raises a
    `UserError` that names the step where the loss is not finite.
    """
    device = torch.device(options.get("device", "cpu"))
    fast = cfg.bfloat16 and has_fast_bfloat16(device)
    layout = torch.channels_last if fast else torch.contiguous_format  # the faster one of each

    def make() -> ConvVAE:
        return ConvVAE(vae).to(memory_format=layout)  # type: ignore[call-overload,no-any-return]  # not in its types

    loop = TrainingLoop("V", "posterior", make, cfg, options)
    source = batches(loop.begin)
    for step in loop:
        # one gradient step
        x = to_float(torch.from_numpy(next(source)).to(device)).contiguous(memory_format=layout)
        epsilon = torch.randn(x.shape[0], vae.z_dim, generator=loop.noise).to(device)
        for group in loop.optimiser.param_groups:
            group["lr"] = one_cycle(step, loop.steps, cfg.learning_rate)
        with mixed_precision(device, cfg.bfloat16):
            out = loop.model(x, epsilon)
        loss, metrics = vae_loss(out, x, cfg.kl_tolerance)
        loop.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        loop.optimiser.step()

        # metrics and checkpoint
        loop.report(
            step,
            metrics | {"images": (step + 1) * cfg.batch_size},
            (cfg.batch_size, "images"),
            f"lower vision.learning_rate ({cfg.learning_rate}) or set vision.bfloat16 to false",
            lambda: validate(loop.model, holdout, cfg),
        )
        loop.keep(step)
    return loop.model.eval()


def validate(model: ConvVAE, frames: NDArray[np.uint8], cfg: VisionTrainConfig) -> dict[str, float]:
    """Loss of (N, 64, 64, 3) frames at the posterior's mean, as ``val_loss`` and its parts."""
    device = next(model.parameters()).device
    totals: dict[str, float] = {}
    with torch.inference_mode():
        for part in np.array_split(frames, max(1, len(frames) // 128)):
            x = to_float(torch.from_numpy(part).to(device))
            with mixed_precision(x.device, cfg.bfloat16):
                out = model(x)
            for name, value in vae_loss(out, x, cfg.kl_tolerance)[1].items():
                totals[name] = totals.get(name, 0.0) + float(value) * len(part) / len(frames)
    return {f"val_{name}": value for name, value in totals.items()}
