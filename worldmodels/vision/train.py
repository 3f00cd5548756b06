"""Training of V: one visible loop over shuffled frame batches, resumable at every checkpoint."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodels._threads import CoreThreads
from worldmodels._training import Options, TrainConfig, TrainingLoop
from worldmodels.config import Count, CountOrZero, NotNegative, Rate, Size
from worldmodels.protocols import UserError
from worldmodels.runs import has_fast_bfloat16, load_checkpoint, mixed_precision
from worldmodels.vision.pace import Pace
from worldmodels.vision.vae import (
    QUANTISATION,
    ConvVAE,
    FromPoint,
    VAEConfig,
    loss_of_sums,
    to_float,
    vae_loss,
    vae_sums,
)

STATISTICS_FRAMES = 2048
"""Frames, the first of the training, whose mean and deviation are taken."""
STILL = 1e-4
"""Standard deviation of values in [0, 1] below which frames count as never changing."""
ENOUGH_STEPS = 300
"""Gradient steps from which a V that explains nothing is an error; before, it is a warning."""
EXPLAINED, CLEARLY_DEAD = 0.02, -0.5
"""Fraction of the variance that V must explain at the end, and below which it is stopped before."""

FOLLOW = 0.05
"""Weight of the newest norm of the gradient in the usual one."""
LEAST_FRAMES = 16
"""Fewest frames that one thread computes in a step."""
TRIAL_STEPS, GAIN = 250, 0.02
"""Gradient steps of a trial of z's size, and how much more of what moves a z of twice the size has
to explain: TakeCover gains 0.03 by 64 numbers."""

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
    adaptive: bool = field(default=False, metadata={"omit_default": True})
    """stop when the held-out error of what moves no longer falls by 3% in 300 steps, after half as
    many again at a falling rate; `steps` is then the most there are. z is twice as large where that
    explains 2% more of what moves in short trials"""
    kl_tolerance: NotNegative = 0.5
    """nats per latent dimension that the KL term does not count (paper's code: 0.5)"""
    bfloat16: bool = True
    """autocast to bfloat16 where the machine multiplies it fast; about 2.5 times the speed"""


def fitting_size(
    cfg: VisionTrainConfig,
    vae: VAEConfig,
    batches: Batches,
    holdout: NDArray[np.uint8],
    neighbours: NDArray[np.uint8] | None,
    **options: Unpack[Options],
) -> VAEConfig:
    """V with z as it is, or twice as large where trials of both say so; prints the reason.

    After a kill it has the checkpoint's size. The arguments are those of `train_vision`.
    """
    checkpoint = options.get("checkpoint")
    if checkpoint is not None and checkpoint.exists():
        return replace(vae, z_dim=len(load_checkpoint(checkpoint)["model"]["to_mu.bias"]))
    short = replace(cfg, steps=min(TRIAL_STEPS, cfg.steps), adaptive=False)
    sizes = [vae, replace(vae, z_dim=2 * vae.z_dim)]
    errors = []
    for size in sizes:
        last: dict[str, float] = {}
        own: Options = {"seed": options["seed"], "log": last.update}
        if "device" in options:
            own["device"] = options["device"]
        train_vision(short, size, batches, holdout, neighbours, **own)
        errors.append(1 - last.get("val_explained_moving", 0.0))
    chosen = sizes[errors[1] <= errors[0] - GAIN]
    print(
        f"V: z has {chosen.z_dim} numbers: {errors[0]:.1%} of what moves is unexplained after "
        f"{short.steps:,} steps by {sizes[0].z_dim} and {errors[1]:.1%} by {sizes[1].z_dim}"
    )
    return chosen


class Clip:
    """Bounds the gradient's norm by what it usually is, whatever the loss's scale.

    Where most frames are alike, a rare one has a gradient that is many times as large, and one step
    of Adam's along it can undo the training. The usual norm is a moving geometric mean, which a few
    outliers hardly change.
    """

    def __init__(self, loop: TrainingLoop[ConvVAE], enabled: bool) -> None:
        """Begin without a norm, or resume with that of the loop's checkpoint."""
        self.loop, self.enabled = loop, enabled
        known = loop.resumed.get("usual_norm")
        self.usual = torch.tensor(
            math.inf if known is None else float(known), dtype=torch.float64, device=loop.device
        )
        """infinite before the first step"""

    def __call__(self) -> None:
        """Scale the gradients down, if they are larger."""
        if not self.enabled:
            return
        gradients = [weight.grad for weight in self.loop.trainable if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients).double()
        torch._foreach_mul_(gradients, (self.usual / (norm + 1e-6)).clamp_max(1.0).float())
        moved = self.usual * (norm / self.usual) ** FOLLOW
        moved = torch.where(torch.isfinite(self.usual), moved, norm)
        self.usual.copy_(torch.where((norm > 0) & torch.isfinite(norm), moved, self.usual))

    def state(self) -> dict[str, Any]:
        """What a resume needs."""
        return {"usual_norm": float(self.usual)} if self.enabled else {}


def _unexplained(measured: Mapping[str, float]) -> float | None:
    """The fraction of what moves that V does not explain, where it was measured."""
    explained = measured.get("val_explained_moving")
    return None if explained is None else 1 - explained


def train_vision(
    cfg: VisionTrainConfig,
    vae: VAEConfig,
    batches: Batches,
    holdout: NDArray[np.uint8],
    neighbours: NDArray[np.uint8] | None = None,
    **options: Unpack[Options],
) -> ConvVAE:
    """Train V and return it in evaluation mode.

    ``batches(k)`` yields the shuffled batches from number k on, so that a resumed run sees the
    batches of an unbroken one; the validation loss is of ``holdout`` (N, 64, 64, 3) uint8, and what
    moves in it is told by the frames (N, 64, 64, 3) just after or before, where they are given.

    Raises:
        UserError: the loss is not finite at a step, the frames never change, or V explains no more
            than their mean.
    """
    device = torch.device(options.get("device", "cpu"))
    fast = cfg.bfloat16 and has_fast_bfloat16(device)
    layout = torch.channels_last if fast else torch.contiguous_format  # the faster one of each

    def make() -> ConvVAE:
        model: ConvVAE = ConvVAE(vae).to(memory_format=layout)  # type: ignore[call-overload]  # not in its types
        for layer in model.modules():
            if isinstance(layer, FromPoint):  # a matrix product, which would copy it in every step
                layer.weight.data = layer.weight.data.contiguous()
        return model

    adaptive = cfg.adaptive and options.get("init") is None and neighbours is not None
    if adaptive:
        vae = fitting_size(cfg, vae, batches, holdout, neighbours, **options)
    loop = TrainingLoop("V", "posterior", make, cfg, options)
    source = batches(loop.begin)
    first = source if loop.begin == 0 else batches(0)
    seen = list(islice(first, math.ceil(STATISTICS_FRAMES / cfg.batch_size)))
    source = source if loop.begin else chain(seen, source)
    mean, std = statistics(seen)
    del seen
    if vae.standardized and options.get("init") is None and not loop.resumed:
        loop.model.mean.copy_(mean)
        loop.model.std.fill_(max(std, math.sqrt(QUANTISATION)))
    if std < STILL:
        _complain("the frames never change: look at what the environment draws", loop.steps)
    measured: dict[str, float] = {}
    pace, clip = Pace(loop, cfg.learning_rate, adaptive), Clip(loop, vae.standardized)

    def update(frames: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """One gradient step, and the metrics."""
        part = partial(_sums, loop.computing, cfg, layout, frames, noise)
        loss = partial(loss_of_sums, frames=len(frames), likelihood=vae.standardized)
        metrics, _ = loop.gradients(part, loss, len(frames), LEAST_FRAMES)
        clip()
        loop.optimiser.step()
        return metrics

    take_step = loop.replayed(update)

    def check() -> dict[str, float]:
        measured.update(validate(loop.model, holdout, cfg, mean, neighbours, loop.threads))
        return measured

    with loop.threads:
        for step in loop:
            # one gradient step
            frames = torch.from_numpy(next(source))
            noise = torch.randn(len(frames), vae.z_dim, generator=loop.noise)
            loop.set_rate(pace.rate(step))
            metrics = take_step(frames, noise)

            # metrics and checkpoint
            loop.report(
                step,
                metrics | {"images": (step + 1) * cfg.batch_size},
                (cfg.batch_size, "images"),
                f"lower vision.learning_rate ({cfg.learning_rate}) or set vision.bfloat16 to false",
                check,
            )
            _check_alive(measured, vae, step + 1, loop.steps)  # before a checkpoint could hide it
            pace.look(step + 1, _unexplained(measured))
            measured.clear()
            loop.keep(step, **pace.state(), **clip.state())
    return loop.model.eval()


def _sums(
    model: ConvVAE,
    cfg: VisionTrainConfig,
    layout: torch.memory_format,
    frames: Tensor,
    noise: Tensor,
    rows: slice,
) -> tuple[Tensor, None]:
    """`vae_sums` of some rows of a batch of frames (B, 64, 64, 3) uint8 and noise (B, Z)."""
    x = to_float(frames[rows]).contiguous(memory_format=layout)
    with mixed_precision(x.device, cfg.bfloat16):
        out = model(x, noise[rows])
    return vae_sums(out, x, cfg.kl_tolerance), None


def statistics(batches: Iterable[NDArray[np.uint8]]) -> tuple[Tensor, float]:
    """Mean frame (3, 64, 64) of batches (B, 64, 64, 3) uint8, and one deviation from it, in [0, 1].

    The sums are of whole numbers, so they do not depend on the order or the machine.
    """
    total, squares, count = np.zeros(()), 0, 0
    for batch in batches:
        total = total + batch.sum(0, dtype=np.int64)
        squares += int(np.square(batch, dtype=np.uint16).sum(dtype=np.int64))
        count += len(batch)
    mean = total / count
    variance = max(0.0, squares / (count * mean.size) - float(np.square(mean).mean()))
    return torch.from_numpy(mean / 255).float().permute(2, 0, 1), math.sqrt(variance) / 255


def validate(
    model: ConvVAE,
    frames: NDArray[np.uint8],
    cfg: VisionTrainConfig,
    mean: Tensor,
    neighbours: NDArray[np.uint8] | None = None,
    threads: CoreThreads | None = None,
) -> dict[str, float]:
    """Loss of (N, 64, 64, 3) frames at the posterior's mean, as ``val_loss`` and its parts.

    ``val_explained`` is the fraction of the variance around the mean frame (3, 64, 64) that V
    explains, and ``val_explained_moving`` the same where pixels count by their squared change to
    the frames' neighbours (N, 64, 64, 3). Either is left out where nothing changes.
    """
    device = next(model.parameters()).device
    mean = mean.to(device)

    def part(rows: NDArray[np.int64]) -> tuple[dict[str, float], NDArray[np.float64]]:
        squares = np.zeros((2, 2))  # (all pixels, moving ones) x (error, variance)
        with torch.inference_mode():
            x = to_float(torch.from_numpy(frames[rows]).to(device))
            with mixed_precision(x.device, cfg.bfloat16):
                out = model(x)
            _, metrics = vae_loss(out, x, cfg.kl_tolerance, model.cfg.standardized)
            shown = out.reconstruction.float().clamp(0, 1)
            apart = torch.stack([(x - other).square().sum(1) for other in (shown, mean)])
            squares[0] = apart.sum((1, 2, 3)).cpu().numpy()
            if neighbours is not None:
                near = to_float(torch.from_numpy(neighbours[rows]).to(device))
                moved = (x - near).square().sum(1)
                squares[1] = (apart * moved).sum((1, 2, 3)).cpu().numpy()
        share = len(rows) / len(frames)
        return {name: share * float(value) for name, value in metrics.items()}, squares

    rows = np.array_split(np.arange(len(frames)), max(1, len(frames) // 128))
    parts = list(map(part, rows) if threads is None else threads.map(part, rows))
    totals = {name: sum(part[name] for part, _ in parts) for name in parts[0][0]}
    squares = sum((part for _, part in parts), np.zeros((2, 2)))
    if squares[0, 1] > STILL**2 * frames.size:
        totals["explained"] = 1 - squares[0, 0] / squares[0, 1]
        if squares[1, 1] > 0:
            totals["explained_moving"] = 1 - squares[1, 0] / squares[1, 1]
    return {f"val_{name}": float(value) for name, value in totals.items()}


def _check_alive(measured: Mapping[str, float], vae: VAEConfig, step: int, steps: int) -> None:
    """Complain of a V that explains no more than the mean frame: at the end, or clearly before."""
    explained = measured.get("val_explained", 1.0)
    if explained >= (EXPLAINED if step == steps else CLEARLY_DEAD):
        return
    if step < min(ENOUGH_STEPS, steps):
        return
    if steps < ENOUGH_STEPS:
        remedy = "so short a training tells little"
    elif vae.standardized:
        remedy = "give it more frames or steps, or lower vision_training.learning_rate"
    else:
        remedy = "set vision.standardized to true"
    _complain(
        f"V explains {round(100 * explained)}% of what changes in held-out frames after {step:,} "
        f"steps, so it shows M and C no more than the mean frame would; {remedy}",
        steps,
    )


def _complain(message: str, steps: int) -> None:
    """Raise a `UserError`; after a training too short to tell, only warn."""
    if steps >= ENOUGH_STEPS:
        raise UserError(message)
    print(f"warning: {message}", file=sys.stderr)
