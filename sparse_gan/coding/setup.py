"""What a training is told, and the data that it asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparse_gan import data, preprocessing
from sparse_gan.files import cifar10, mnist
from worldmodels.config import AtLeast, Config, Count, Limit, NotNegative, Seed, Size
from worldmodels.protocols import UserError
from worldmodels.runs import Log, require_device

Method = Literal["dictionary", "lista", "psd", "drsae", "topographic", "convolutional", "local"]
Source = Literal["natural", "digits", "mnist", "cifar10", "frames"]
Pictures = dict[str, NDArray[np.float32]]
"""Arrays that the page draws: filters (N, H, W) and curves (lines, points), by name."""


@dataclass(frozen=True)
class SparseArgs(Config):
    """Which method, on what."""

    method: Method
    """what to train"""
    data: Source | None = None
    """what on; None takes digits for drsae and natural images for the others"""
    folder: Path | None = None
    """of mnist, cifar10 or collected frames"""
    out: Path | None = None
    """run folder; None takes runs/sparse-METHOD-DATA"""
    samples: Annotated[int, AtLeast(2), Limit(2**31)] = 20_000
    """patches or pictures to learn from, at most"""
    size: Annotated[int, AtLeast(2), Limit(4096)] = 12
    """side of a patch, in pixels"""
    units: Size = 256
    """atoms or hidden units; a topographic map has the next smaller square"""
    lam: NotNegative | None = None
    """weight of the sparsity; None takes the method's own"""
    epochs: Count | None = None
    """passes over the data; None takes the method's own"""
    seed: Seed = 0
    """fixes data, split, start and order"""
    device: str = "cpu"
    """torch device"""
    log: Log = field(default=(), metadata={"omit_default": True})
    """also write the metrics for tensorboard or wandb, or both, into the run folder; wandb stays
    offline unless WANDB_MODE=online"""

    def _check(self) -> None:
        if self.method == "topographic" and self.units < 9:
            self.refuse("units", "at least 9 for a topographic map")
        require_device(self.device)
        if self.source in ("mnist", "cifar10", "frames") and self.folder is None:
            raise UserError(f"data is {self.source}: name its folder with --folder")

    @property
    def source(self) -> Source:
        """The data, chosen."""
        return self.data or ("digits" if self.method == "drsae" else "natural")

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.out or Path("runs") / f"sparse-{self.method}-{self.source}"

    def chosen(self, **defaults: Any) -> dict[str, Any]:
        """Settings of a method, with those that were given in place of its own."""
        given = {"lam": self.lam, "epochs": self.epochs}
        return {**defaults, **{name: v for name, v in given.items() if v is not None}}


@dataclass(frozen=True)
class Patches:
    """Rows to learn from and rows to measure on, and the way back to pixels."""

    train: Tensor
    """(B, M)"""
    test: Tensor
    """(B', M)"""
    shape: tuple[int, int]
    """height and width of a row's picture"""
    to_pixels: NDArray[np.float32] | None = None
    """(M, pixels) from whitened rows to pixels"""

    def pictures(self, atoms: Tensor) -> NDArray[np.float32]:
        """Pictures (N, H, W) of atoms (M, N)."""
        rows = atoms.detach().cpu().numpy().T
        if self.to_pixels is not None:
            rows = rows @ self.to_pixels
        return np.asarray(rows.reshape(-1, *self.shape), np.float32)


def load(args: SparseArgs, whiten: bool = False) -> Patches:
    """Rows for the methods that need no labels, 10% of them to measure on."""
    if args.source in ("digits", "mnist"):
        pictures = labelled(args)
        train, test, shape = pictures.train, pictures.test, pictures.shape
        return Patches(on_device(args, train[: args.samples]), on_device(args, test), shape)
    source = map_images(args) if whiten else images(args)
    rows, back = data.patches(source, args.samples, args.size, args.seed), None
    if whiten:
        rows = rows[preprocessing.has_contrast(rows)]
        prepare = preprocessing.PatchWhitening.fit(rows)
        flat, back = prepare(rows), prepare.whitening.inverse
    else:
        flat = preprocessing.normalise_contrast(rows)
    cut = max(1, len(flat) // 10)
    learn, measure = on_device(args, flat[cut:]), on_device(args, flat[:cut])
    return Patches(learn, measure, (args.size, args.size), back)


def images(args: SparseArgs) -> list[data.Images]:
    """Grey images to take patches from."""
    if args.source == "natural":
        return data.natural_images()
    if args.source == "frames" and args.folder is not None:
        return list(data.grey(data.frames([args.folder], 1000, args.seed)))
    if args.source == "cifar10" and args.folder is not None:
        return list(data.grey(cifar10(args.folder)[0][:5000]))
    raise UserError(f"{args.method} needs images; {args.source} has small pictures only")


def map_images(args: SparseArgs) -> list[data.Images]:
    """Grey images that a map learns from: without textures, and without the camera's noise."""
    if args.source != "natural":
        return images(args)
    return [preprocessing.halve(image) for image in data.natural_images(data.PHOTOGRAPHS)]


def labelled(args: SparseArgs) -> data.Labelled:
    """Pictures with classes; `UserError` where the data have none."""
    if args.source == "digits":
        return data.digits(args.seed)
    if args.source == "mnist" and args.folder is not None:
        return mnist(args.folder)
    raise UserError(f"{args.method} needs classes; {args.source} has none: take digits or mnist")


def on_device(args: SparseArgs, rows: NDArray[Any]) -> Tensor:
    """Rows in single precision on the device that was asked for."""
    return torch.from_numpy(np.ascontiguousarray(rows, np.float32)).to(args.device)
