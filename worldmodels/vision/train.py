"""Training of V: one visible loop over shuffled frame batches, resumable at every checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worldmodels.config import Config, Count, CountOrZero, NotNegative, Rate, Size
from worldmodels.protocols import UserError
from worldmodels.runs import (
    derive_seed,
    has_fast_bfloat16,
    load_checkpoint,
    mixed_precision,
    progress,
    save_checkpoint,
)
from worldmodels.vision.vae import ConvVAE, VAEConfig, to_float, vae_loss

Batches = Callable[[int], Iterator[NDArray[np.uint8]]]
"""From the number of batches already used to the batches that follow, each (B, 64, 64, 3)."""
Log = Callable[..., None]
"""Takes the metrics of one moment as keyword arguments."""


@dataclass(frozen=True)
class VisionTrainConfig(Config):
    """How V is trained."""

    steps: Count = 1200
    """gradient steps from a fresh start"""
    finetune_steps: CountOrZero = 300
    """gradient steps when V goes on from an earlier iteration's weights"""
    finetune_rounds: CountOrZero = 1
    """iterations of the pipeline, beyond the first, in which V is trained on; then it is kept"""
    batch_size: Size = 100
    """frames a step"""
    learning_rate: Rate = 1e-3
    """peak of Adam's one-cycle schedule (short warm-up, cosine to a hundredth)"""
    kl_tolerance: NotNegative = 0.5
    """nats per latent dimension that the KL term does not count (paper's code: 0.5)"""
    bfloat16: bool = True
    """autocast to bfloat16 where the machine multiplies it fast; about 2.5 times the speed"""
    checkpoint_every: Count = 200
    """steps between two checkpoints"""
    log_every: Count = 25
    """steps between two lines of metrics"""


def one_cycle(step: int, steps: int, peak: float, warmup: float = 0.05) -> float:
    """Learning rate at ``step`` of ``steps``: linear warm-up, then a cosine to ``peak / 100``."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return peak * (step + 1) / rise
    share = (step - rise) / max(1, steps - rise)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def train_vision(
    cfg: VisionTrainConfig,
    vae: VAEConfig,
    batches: Batches,
    holdout: NDArray[np.uint8],
    *,
    seed: int,
    init: dict[str, torch.Tensor] | None = None,
    checkpoint: Path | None = None,
    log: Log | None = None,
    device: str = "cpu",
) -> ConvVAE:
    """Train V, or go on with ``init``'s weights, and return it in evaluation mode.

    Args:
        cfg: the training's configuration.
        vae: V's shape.
        batches: ``batches(k)`` yields the shuffled batches from number k on, so that a resumed
            run sees exactly the batches an unbroken one would.
        holdout: (N, 64, 64, 3) uint8 frames for the validation loss.
        seed: fixes initial weights and posterior noise.
        init: state dict to go on from (``cfg.finetune_steps`` steps instead of ``cfg.steps``).
        checkpoint: file for the resume state; read if it is there.
        log: receives ``step, loss, reconstruction, kl, val_loss, images_per_second, ...``.
        device: torch device.

    Raises:
        UserError: a loss that is not finite, with its step.
    """
    torch.manual_seed(seed % 2**63)
    model = ConvVAE(vae).to(device)
    fast = cfg.bfloat16 and has_fast_bfloat16(torch.device(device))
    layout = torch.channels_last if fast else torch.contiguous_format  # the faster one of each
    model.to(memory_format=layout)  # type: ignore[call-overload]  # not in its types
    if init is not None:
        model.load_state_dict(init)
    steps = cfg.steps if init is None else cfg.finetune_steps
    optimiser = torch.optim.Adam(model.parameters(), lr=cfg.learning_rate, fused=True)
    noise = torch.Generator().manual_seed(derive_seed(seed, "posterior") % 2**63)
    begin = 0
    if checkpoint is not None and checkpoint.exists():
        begin = _restore(load_checkpoint(checkpoint), model, optimiser, noise)

    source = batches(begin)
    started, since = time.perf_counter(), begin
    for step in progress(range(begin, steps), "V", unit="step"):
        # one gradient step
        x = to_float(torch.from_numpy(next(source)).to(device)).contiguous(memory_format=layout)
        epsilon = torch.randn(x.shape[0], vae.z_dim, generator=noise).to(device)
        for group in optimiser.param_groups:
            group["lr"] = one_cycle(step, steps, cfg.learning_rate)
        with mixed_precision(x.device, cfg.bfloat16):
            out = model(x, epsilon)
        loss, metrics = vae_loss(out, x, cfg.kl_tolerance)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

        # metrics and checkpoint
        done = step + 1
        if done % cfg.log_every == 0 or done == steps:
            values = {name: float(value) for name, value in metrics.items()}
            if not math.isfinite(values["loss"]):
                raise UserError(
                    f"V's loss is {values['loss']} at step {step}: lower vision.learning_rate "
                    f"({cfg.learning_rate}) or set vision.bfloat16 to false"
                )
            rate = (done - since) * cfg.batch_size / (time.perf_counter() - started)
            if done % (4 * cfg.log_every) == 0 or done == steps:
                values |= validate(model, holdout, cfg.kl_tolerance, cfg.bfloat16)
            if log is not None:
                log(step=done, images=done * cfg.batch_size, images_per_second=rate, **values)
            started, since = time.perf_counter(), done
        if checkpoint is not None and (done % cfg.checkpoint_every == 0 or done == steps):
            save_checkpoint(checkpoint, _snapshot(done, model, optimiser, noise))
    return model.eval()


def validate(
    model: ConvVAE, frames: NDArray[np.uint8], kl_tolerance: float, bfloat16: bool
) -> dict[str, float]:
    """Loss of (N, 64, 64, 3) frames at the posterior's mean, as ``val_loss`` and its parts."""
    device = next(model.parameters()).device
    totals: dict[str, float] = {}
    with torch.inference_mode():
        for part in np.array_split(frames, max(1, len(frames) // 128)):
            x = to_float(torch.from_numpy(part).to(device))
            with mixed_precision(x.device, bfloat16):
                out = model(x)
            _, metrics = vae_loss(out, x, kl_tolerance)
            for name, value in metrics.items():
                totals[name] = totals.get(name, 0.0) + float(value) * len(part) / len(frames)
    return {f"val_{name}": value for name, value in totals.items()}


def _snapshot(
    step: int, model: ConvVAE, optimiser: torch.optim.Optimizer, noise: torch.Generator
) -> dict[str, Any]:
    return {
        "step": step,
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "noise": noise.get_state(),
    }


def _restore(
    state: dict[str, Any], model: ConvVAE, optimiser: torch.optim.Optimizer, noise: torch.Generator
) -> int:
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    noise.set_state(state["noise"])
    return int(state["step"])
