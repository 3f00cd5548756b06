"""A GAN as a command: data and loss -> a run folder with both networks, figures and a page.

The same command resumes an interrupted run, and redraws the page of a finished one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from sparse_gan.energy import EnergyModel
from sparse_gan.gan import metrics, tools
from sparse_gan.gan.data import (
    PictureBatches,
    PictureSet,
    Source,
    load_pictures,
    to_bytes,
    to_signed,
)
from sparse_gan.gan.ebgan import AutoencoderEnergy
from sparse_gan.gan.losses import LossConfig, LossKind
from sparse_gan.gan.networks import SIZES, DCGANConfig, DCGANEnergy, DCGANGenerator, Norm
from sparse_gan.gan.page import (
    DISTANCE,
    ENERGY,
    GROWTH,
    PANELS,
    conclusion,
    distance_chart,
    figures,
    sheets,
)
from sparse_gan.gan.pictures import Gallery, sheet
from sparse_gan.gan.train import GAN, GANTrainConfig, train_gan
from worldmodels.config import (
    AtLeast,
    Channels,
    Config,
    Count,
    Limit,
    NotNegative,
    OneOf,
    Positive,
    Rate,
    Seed,
    Size,
)
from worldmodels.pages import text
from worldmodels.pages.charts import training_chart
from worldmodels.pages.document import (
    Document,
    Media,
    Medium,
    Plot,
    Section,
    data_uri,
    drawn,
    setup,
)
from worldmodels.protocols import UserError
from worldmodels.runs import (
    FolderPath,
    Log,
    RunFolder,
    config_hash,
    derive_seed,
    load_checkpoint,
    require_device,
    write_json,
)

SHOWN = 64
"""Samples on a sheet."""


@dataclass(frozen=True)
class GANArgs(Config):
    """What to train, on what."""

    source: Source | None = None
    """pictures to learn: frames (of episodes), faces, digits or images (files) (default: frames
    where --data is given, else digits)"""
    loss: LossKind = "log"
    """loss of the energy and of G"""
    data: tuple[Path, ...] = ()
    """of frames: run folders, or folders of `worldmodels collect`; of images: folders of image
    files"""
    out: FolderPath | None = None
    """run folder; an interrupted training in it is resumed (default: runs/gan-SOURCE-LOSS)"""
    size: Annotated[int, OneOf(*SIZES)] | None = None
    """height and width: 28, 32 or 64 (default: 64; for faces and digits 32)"""
    resize: bool = False
    """crop and scale pictures of other sizes instead of refusing them; for images only"""
    count: Annotated[int, AtLeast(2), Limit(2**31)] = 20_000
    """maximum number of training pictures"""
    steps: Count = 2400
    """training steps of G"""
    batch_size: Size = 64
    """pictures in a batch"""
    width: Channels = 32
    """base number of channels of both networks; the paper has 64"""
    norm: Norm | None = None
    """normalisation in the energy (default: batch; group where the loss has a penalty)"""
    margin: Positive = 10.0
    """margin of the losses margin and ebgan"""
    zero_penalty: NotNegative = 0.0
    """weight of the zero-centred penalty at real pictures (R1)"""
    instance_noise: NotNegative = 0.0
    """initial standard deviation of the noise on the energy's input, annealed to 0"""
    generator_rate: Rate | None = None
    """learning rate of G (default: the loss's own)"""
    energy_rate: Rate | None = None
    """learning rate of the energy (default: the loss's own)"""
    bfloat16: bool = True
    """autocast to bfloat16 where the machine multiplies it fast"""
    evaluate: Annotated[int, AtLeast(10), Limit(10**9)] = 2000
    """maximum number of pictures on each side of a distance"""
    seed: Seed = 0
    """random seed of data, weights, order and noise"""
    device: str = "cpu"
    """where to compute; cuda for a GPU"""
    log: Log = field(default=(), metadata={"omit_default": True})
    """also write the metrics for tensorboard or wandb, or both, into the run folder; wandb stays
    offline unless WANDB_MODE=online"""

    def _check(self) -> None:
        if self.norm == "batch" and self.loss_config().has_penalty:
            raise UserError(
                "--norm is batch, and the loss has a penalty on the slope at single pictures; "
                "it must be group, spectral or none"
            )
        require_device(self.device)

    @property
    def kind(self) -> Source:
        """The source, chosen."""
        return self.source or ("frames" if self.data else "digits")

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.out or Path("runs") / f"gan-{self.kind}-{self.loss}"

    @property
    def side(self) -> int:
        """Height and width of a picture."""
        return self.size or (32 if self.kind in ("faces", "digits") else 64)

    def loss_config(self) -> LossConfig:
        """The loss with its weights."""
        return LossConfig(
            self.loss,
            margin=self.margin,
            zero_penalty=self.zero_penalty,
            instance_noise=self.instance_noise,
        )

    def train_config(self) -> GANTrainConfig:
        """How to train, the papers' own settings where none are given."""
        own: dict[str, Any] = {"generator_rate": 2e-4, "energy_rate": 2e-4}
        if self.loss == "wasserstein":
            own = {"generator_rate": 5e-5, "energy_rate": 5e-5, "optimiser": "rmsprop"}
        elif self.loss == "wasserstein-gp":
            own = {"generator_rate": 1e-4, "energy_rate": 1e-4, "beta1": 0.0, "beta2": 0.9}
        if self.loss.startswith("wasserstein"):
            own["energy_steps"] = 5
        given = {"generator_rate": self.generator_rate, "energy_rate": self.energy_rate}
        own |= {name: value for name, value in given.items() if value is not None}
        return GANTrainConfig(
            self.loss_config(),
            self.steps,
            bfloat16=self.bfloat16,
            ema=min(0.999, max(0.0, 1 - 20 / self.steps)),
            sample_every=max(1, self.steps // 48),
            checkpoint_every=max(1, min(250, self.steps // 4)),
            **own,
        )


def networks(args: GANArgs, channels: int) -> tuple[DCGANGenerator, EnergyModel]:
    """G and F of a run, channels-last, at their start."""
    loss = args.loss_config()
    norm = args.norm or ("group" if loss.has_penalty else "batch")
    cfg = DCGANConfig(
        args.side,
        channels,
        generator_width=args.width,
        energy_width=args.width,
        norm=norm,
        nonnegative=loss.needs_floor,
    )
    torch.manual_seed(derive_seed(args.seed, "networks") % 2**63)
    generator = DCGANGenerator(cfg)
    energy = AutoencoderEnergy(cfg) if args.loss == "ebgan" else DCGANEnergy(cfg)
    for module in (generator, energy):
        module.to(args.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its types
    return generator, energy


def train(args: GANArgs) -> Path:
    """Train, measure on held-out pictures, draw the page, and return its path.

    Raises:
        UserError: data that is missing or does not fit, or a folder of another loss.
    """
    pictures = load_pictures(
        args.kind,
        args.side,
        folders=args.data,
        count=args.count,
        seed=args.seed,
        resize=args.resize,
    )
    if args.batch_size > len(pictures.train):
        raise UserError(
            f"--batch-size is {args.batch_size}; there are {len(pictures.train)} pictures to "
            "learn from"
        )
    run = RunFolder(args.run, log=args.log)
    with run.lock():
        gan = GAN(args.train_config(), *networks(args, pictures.train.shape[-1]), args.seed)
        gallery = Gallery(run.path / "samples", args.side)
        inputs = config_hash(replace(args, log=()))
        checkpoint = run.checkpoints / "gan.safetensors"
        if not run.stage_done("train", inputs):
            run.write_config(args)
            batches = PictureBatches(pictures.train, args.batch_size, args.seed, args.device)
            train_gan(
                gan,
                batches,
                checkpoint=checkpoint,
                log=lambda **values: run.log("train", **values),
                on_sample=lambda now: _draw(now, gallery, args.seed),
            )
            figures = evaluate(args, gan, pictures)
            write_json(run.path / "figures.json", figures)
            run.mark_done("train", inputs, figures, [checkpoint, run.path / "figures.json"])
        else:
            gan.restore(load_checkpoint(checkpoint), str(checkpoint))
        return build_page(args, run, gan, gallery, pictures)


def evaluate(args: GANArgs, gan: GAN, pictures: PictureSet) -> dict[str, dict[str, float]]:
    """Distances of samples and of training pictures to held-out ones, and energies.

    Returns:
        ``samples`` and ``real`` with the figures of `metrics.compare`, ``anomaly/NAME`` with those
        of `tools.anomaly_table`.
    """
    test = to_signed(pictures.test[: args.evaluate])
    fake = gan.sample(len(test), args.seed).cpu()
    real = to_signed(pictures.train[: len(test)])
    extractor = metrics.random_extractor(test.shape[1])
    k = min(5, len(test) - 1, len(real) - 1)
    found = {
        "samples": metrics.compare(test, fake, extractor, k),
        "real": metrics.compare(test, real, extractor, k),
    }
    few = test[:500]
    odd: dict[str, Tensor] = {"own samples": fake[:500], **tools.corruptions(few, args.seed)}
    rows = tools.anomaly_table(gan.energy.cpu(), few, odd)
    return found | {f"anomaly/{name}": row for name, row in rows.items()}


def build_page(
    args: GANArgs, run: RunFolder, gan: GAN, gallery: Gallery, pictures: PictureSet
) -> Path:
    """Draw the page of a finished run and return its path."""
    found = run.stage_outputs("train")
    odd = {k.removeprefix("anomaly/"): v for k, v in found.items() if k.startswith("anomaly/")}
    fresh = to_bytes(gan.sample(SHOWN, derive_seed(args.seed, "page")))
    real = to_bytes(to_signed(pictures.test[:SHOWN]))
    scale = max(1, 64 // args.side)
    samples = [
        ("Samples of fresh noise", "", sheet(fresh, scale=scale)),
        ("Held-out pictures", "", sheet(real, scale=scale)),
    ]
    growing = drawn(gallery.growing(), "Samples over time", "One column is one noise.")
    film = gallery.film(run.path / "samples.mp4")
    moving = Medium(
        film.name, data_uri(film.read_bytes(), film.suffix), "The same, moving", size=gallery.size
    )
    learning = training_chart("training", run.metrics("train"), "step", PANELS)
    distances = {"samples": found["samples"], "training pictures": found["real"]}
    page = Document(
        f"GAN on {args.kind}, loss {args.loss}",
        "GAN",
        [conclusion(distances)],
        [
            Section(
                "Result",
                [Plot(distance_chart(distances)), sheets(samples, layout="beside")],
                f"After {text.count(gan.step)} steps, {text.duration(gan.seconds)} of training.",
            ),
            Section("Distance", [figures(distances, "Distance to held-out pictures")], DISTANCE),
            Section("Training", [Plot(learning)] if learning else []),
            Section("Energy", [figures(odd, "Energy as a score of oddity")], ENERGY),
            Section("Growth", [Media([growing, moving], layout="beside")], GROWTH),
            setup(run.read_config()),
        ],
        "worldmodels gan",
    )
    return page.write(run.report)


@torch.no_grad()
def _draw(gan: GAN, gallery: Gallery, seed: int) -> None:
    """A sheet of the fixed noise, which training never sees."""
    source = torch.Generator().manual_seed(derive_seed(seed, "fixed noise") % 2**63)
    gallery.add(gan.step, to_bytes(gan.average(gan.average.noise(SHOWN, source))))
