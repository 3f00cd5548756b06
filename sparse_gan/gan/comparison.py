"""GAN against VAE on the same frames: the pipeline's V, and a GAN whose G is V's own decoder.

Compute is counted in floating-point operations of whole training steps, so that both get the same
whatever machine they run on, and a run can be repeated.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sparse_gan.gan import metrics
from sparse_gan.gan.data import PictureBatches, load_pictures, to_signed
from sparse_gan.gan.losses import LossConfig
from sparse_gan.gan.networks import DCGANConfig, DCGANEnergy, Generator
from sparse_gan.gan.train import GAN, GANTrainConfig, train_gan
from worldmodels.config import AtLeast, Channels, Config, Count, Limit, NotNegative, Seed, Size
from worldmodels.runs import FolderPath, Log, RunFolder, config_hash, derive_seed
from worldmodels.vision.train import VisionTrainConfig, train_vision
from worldmodels.vision.vae import ConvVAE, VAEConfig, to_float, vae_loss

Figures = dict[str, dict[str, float]]
"""Rows of a table: what, then the figure's name."""


@dataclass(frozen=True)
class ComparisonArgs(Config):
    """What to compare, on what."""

    data: tuple[Path, ...]
    """frames to learn: run folders, or folders of `worldmodels collect`"""
    out: FolderPath = Path("runs/gan-vae")
    """run folder"""
    vae_steps: Count = 3000
    """gradient steps of V; the GAN gets as many operations"""
    batch_size: Size = 64
    """frames a step, of both"""
    count: Annotated[int, AtLeast(2), Limit(2**31)] = 20_000
    """frames to learn from, at most"""
    evaluate: Annotated[int, AtLeast(10), Limit(2**31)] = 2000
    """frames on each side of the distances, at most"""
    energy_width: Channels = 32
    """channels after the first convolution of the GAN's energy; 32 is V's encoder's"""
    zero_penalty: NotNegative = 0.0
    """weight of the zero-centred penalty of the GAN; above 0 its energy gets group norm"""
    inverted: Count = 64
    """held-out frames to reconstruct, of both"""
    inversion_steps: Count = 300
    """gradient steps of a GAN's inversion, from each of its starts"""
    inversion_starts: Size = 4
    """random starts of an inversion; the best counts"""
    bfloat16: bool = True
    """autocast to bfloat16, of both, where the machine multiplies it fast"""
    seed: Seed = 0
    """random seed of data, weights, order and noise"""
    log: Log = field(default=(), metadata={"omit_default": True})
    """also write the metrics for tensorboard or wandb, or both, into the run folder; wandb stays
    offline unless WANDB_MODE=online"""


class VisionGenerator(Generator):
    """V's decoder as G: the same layers, from noise (B, Z) to frames (B, 3, 64, 64)."""

    def __init__(self, cfg: VAEConfig) -> None:
        """Build it; weights come from the global torch generator."""
        super().__init__()
        vae = ConvVAE(cfg)
        assert vae.decoder is not None, "it is built with one"
        self.noise_dim = cfg.z_dim
        self.from_z, self.decoder = vae.from_z, vae.decoder

    def forward(self, noise: Tensor) -> Tensor:
        """Noise (B, Z) to frames in [-1, 1]."""
        logits: Tensor = self.decoder(self.from_z(noise)[:, :, None, None])
        return 2 * torch.sigmoid(logits) - 1


@dataclass(frozen=True)
class Pair:
    """Both models, trained."""

    vae: ConvVAE
    gan: GAN
    train: NDArray[np.uint8]
    """(B, 64, 64, 3)"""
    test: NDArray[np.uint8]
    """(B', 64, 64, 3) of other episodes"""
    operations: dict[str, float]
    """steps and operations of both"""


def operations(step: Callable[[], Any]) -> int:
    """Floating-point operations of matrix products and convolutions in a call."""
    counter = FlopCounterMode(display=False)
    with counter:
        step()
    return int(counter.get_total_flops())


def vae_step_operations(cfg: VAEConfig, batch: int) -> int:
    """Operations of one gradient step of V."""
    vae, x = ConvVAE(cfg), torch.zeros(batch, 3, 64, 64)

    def step() -> None:
        out = vae(x, torch.zeros(batch, cfg.z_dim))
        vae_loss(out, x)[0].backward()

    return operations(step)


def new_gan(args: ComparisonArgs, steps: int) -> GAN:
    """The GAN at its start."""
    loss = LossConfig("log", zero_penalty=args.zero_penalty)
    norm = DCGANConfig(
        energy_width=args.energy_width, norm="group" if loss.has_penalty else "batch"
    )
    torch.manual_seed(derive_seed(args.seed, "gan") % 2**63)
    generator, energy = VisionGenerator(VAEConfig()), DCGANEnergy(norm)
    for module in (generator, energy):
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its types
    cfg = GANTrainConfig(
        loss,
        steps,
        bfloat16=args.bfloat16,
        ema=max(0.0, 1 - 20 / steps) if steps < 20_000 else 0.999,
        checkpoint_every=250,
    )
    return GAN(cfg, generator, energy, args.seed)


def train_pair(args: ComparisonArgs) -> Pair:
    """Train both with the same operations; each resumes where it stopped."""
    run = RunFolder(args.out, log=args.log)
    pictures = load_pictures("frames", 64, folders=args.data, count=args.count, seed=args.seed)
    batches = PictureBatches(pictures.train, args.batch_size, args.seed)
    cfg = VisionTrainConfig(args.vae_steps, batch_size=args.batch_size, bfloat16=args.bfloat16)

    def frames(first: int) -> Iterator[NDArray[np.uint8]]:
        for number in itertools.count(first):
            yield batches.raw(number)

    run.checkpoints.mkdir(parents=True, exist_ok=True)
    vae = train_vision(
        cfg,
        VAEConfig(),
        frames,
        pictures.test[:500],
        seed=args.seed,
        checkpoint=run.checkpoints / "vae.safetensors",
        log=lambda **values: run.log("vae", **values),
    )
    one_vae = vae_step_operations(VAEConfig(), args.batch_size)
    trial = new_gan(args, 1)
    one_gan = operations(lambda: trial.train_step(batches))
    steps = max(1, round(args.vae_steps * one_vae / one_gan))
    gan = train_gan(
        new_gan(args, steps),
        batches,
        checkpoint=run.checkpoints / "gan.safetensors",
        log=lambda **values: run.log("gan", **values),
    )
    counted = {
        "vae steps": float(args.vae_steps),
        "gan steps": float(steps),
        "operations of a vae step": float(one_vae),
        "operations of a gan step": float(one_gan),
    }
    return Pair(vae, gan, pictures.train, pictures.test, counted)


def invert(
    generator: Generator, target: Tensor, steps: int, starts: int, seed: int, rate: float = 0.05
) -> Tensor:
    """Noise (B, Z) whose picture is nearest to a target (B, C, H, W), by Adam from random starts.

    A GAN has no encoder, so this search is all there is; each frame keeps its best start.

    Args:
        generator: G, in evaluation mode.
        target: pictures in [-1, 1].
        steps: of Adam, each.
        starts: how many.
        seed: fixes them.
        rate: Adam's learning rate.
    """
    source = torch.Generator().manual_seed(derive_seed(seed, "inversion") % 2**63)
    best = torch.full((len(target),), float("inf"))
    found = torch.zeros(len(target), generator.noise_dim)
    for _ in range(starts):
        z = generator.noise(len(target), source).requires_grad_(True)
        optimiser = torch.optim.Adam([z], lr=rate)
        for _ in range(steps):
            error = (generator(z) - target).square().flatten(1).sum(1)
            optimiser.zero_grad(set_to_none=True)
            error.sum().backward()
            optimiser.step()
        with torch.no_grad():
            error = (generator(z) - target).square().flatten(1).sum(1)
        better = error < best
        best, found = torch.where(better, error, best), torch.where(better[:, None], z, found)
    return found.detach()


@torch.no_grad()
def vae_samples(vae: ConvVAE, count: int, seed: int) -> Tensor:
    """Frames (count, 3, 64, 64) in [-1, 1] that V decodes from its prior."""
    source = torch.Generator().manual_seed(derive_seed(seed, "prior") % 2**63)
    z = torch.randn(count, vae.cfg.z_dim, generator=source)
    return torch.cat([2 * vae.decode(part) - 1 for part in z.split(256)])


@torch.no_grad()
def reconstruct(vae: ConvVAE, frames: NDArray[np.uint8]) -> Tensor:
    """What V keeps of frames (B, 64, 64, 3): (B, 3, 64, 64) in [-1, 1]."""
    parts = np.array_split(frames, max(1, len(frames) // 256))
    return torch.cat([2 * vae(to_float(torch.from_numpy(p))).reconstruction - 1 for p in parts])


def sharpness(x: Tensor) -> float:
    """Mean absolute difference of neighbouring pixels of pictures (B, C, H, W); blur lowers it."""
    across, down = x.diff(dim=3).abs().mean(), x.diff(dim=2).abs().mean()
    return float((across + down) / 2)


def measure(args: ComparisonArgs, pair: Pair) -> Figures:
    """Samples, reconstructions and midpoints of both, beside real against real.

    Two extractors: one is random and favours neither, the other is the encoder of the very VAE
    that is compared, and favours it.
    """
    seed, count = args.seed, min(args.evaluate, len(pair.test), len(pair.train))
    test = to_signed(pair.test[:count])
    sets = {
        "training frames": to_signed(pair.train[:count]),
        "GAN samples": pair.gan.sample(count, seed),
        "VAE samples": vae_samples(pair.vae, count, seed),
        "VAE reconstructions": reconstruct(pair.vae, pair.test[:count]),
    }
    with torch.no_grad():
        noise = pair.gan.average.noise(count, torch.Generator().manual_seed(seed))
        sets["GAN midpoints"] = pair.gan.average(_midpoint(noise))
        mu = pair.vae.encode((test + 1) / 2)[0]
        sets["VAE midpoints"] = 2 * pair.vae.decode((mu + mu.roll(1, 0)) / 2) - 1
    own = metrics.Extractor("v-encoder", lambda x: pair.vae.encode((x + 1) / 2)[0])
    k = min(5, count - 1)
    figures: Figures = {"held-out frames": {"sharpness": sharpness(test)}}
    for name, x in sets.items():
        row = metrics.compare(test, x, metrics.random_extractor(), k)
        row |= metrics.compare(test, x, own, k)
        figures[name] = {"sharpness": sharpness(x), **row}
    target = test[: args.inverted]
    z = invert(pair.gan.average, target, args.inversion_steps, args.inversion_starts, seed)
    with torch.no_grad():
        for name, x in (
            ("VAE reconstructions", reconstruct(pair.vae, pair.test[: args.inverted])),
            ("GAN inversions", pair.gan.average(z)),
        ):
            # in units of [0, 1], as V's own loss has them
            error = float((x - target).square().mean() / 4)
            figures.setdefault(name, {})["squared error a pixel"] = error
    figures["VAE reconstructions"]["passes a frame"] = 1.0
    passes = float(args.inversion_steps * args.inversion_starts)
    figures["GAN inversions"]["passes a frame"] = passes
    return figures


def compare(args: ComparisonArgs) -> Path:
    """Train both, measure, draw the page, and return its path.

    Raises:
        UserError: no frames, or a folder of other settings.
    """
    from sparse_gan.gan.comparison_page import build_page

    run = RunFolder(args.out)
    with run.lock():
        inputs = config_hash(replace(args, log=()))
        run.write_config(args)
        pair = train_pair(args)
        if not run.stage_done("compare", inputs):
            figures = measure(args, pair)
            run.mark_done("compare", inputs, {"figures": figures, "operations": pair.operations})
        return build_page(args, run, pair)


def _midpoint(noise: Tensor) -> Tensor:
    """Half-way between neighbours (B, Z), on the sphere where normal noise lies."""
    middle = (noise + noise.roll(1, 0)) / 2
    length: Tensor = middle.norm(dim=1, keepdim=True)
    return middle * math.sqrt(noise.shape[1]) / length
