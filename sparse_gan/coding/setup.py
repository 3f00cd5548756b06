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
from worldmodels.runs import FolderPath, Log, require_device

Method = Literal["dictionary", "lista", "psd", "drsae", "topographic", "convolutional", "local"]
Source = Literal["natural", "digits", "mnist", "cifar10", "frames"]
Pictures = dict[str, NDArray[np.float32]]
"""Arrays that the page draws: filters (N, H, W) and curves (lines, points), by name."""


@dataclass(frozen=True)
class SparseArgs(Config):
    """Which method, on what."""

    method: Method
    """what to train"""
    source: Source | None = None
    """pictures to learn from (default: frames where --data is given, else digits for drsae and
    natural images for the others)"""
    data: Path | None = None
    """of frames: a run's folder, or one of `worldmodels collect`; of mnist and cifar10: the folder
    of their files"""
    out: FolderPath | None = None
    """run folder; a finished run in it is only drawn again (default: runs/sparse-METHOD-SOURCE)"""
    count: Annotated[int, AtLeast(2), Limit(2**31)] = 20_000
    """patches or pictures to learn from, at most"""
    size: Annotated[int, AtLeast(2), Limit(4096)] = 12
    """side of a patch, in pixels"""
    units: Size = 256
    """atoms or hidden units; a topographic map has the next smaller square"""
    lam: NotNegative | None = None
    """weight of the sparsity (default: the method's own)"""
    epochs: Count | None = None
    """passes over the data (default: the method's own)"""
    seed: Seed = 0
    """random seed of data, split, weights and order"""
    device: str = "cpu"
    """where to compute; cuda for a GPU"""
    log: Log = field(default=(), metadata={"omit_default": True})
    """also write the metrics for tensorboard or wandb, or both, into the run folder; wandb stays
    offline unless WANDB_MODE=online"""

    def _check(self) -> None:
        if self.method == "topographic" and self.units < 9:
            self.refuse("units", "at least 9 for a topographic map")
        require_device(self.device)
        if self.kind in ("mnist", "cifar10", "frames") and self.data is None:
            raise UserError(f"--source is {self.kind}: name its folder with --data")

    @property
    def kind(self) -> Source:
        """The source, chosen."""
        own: Source = "digits" if self.method == "drsae" else "natural"
        return self.source or ("frames" if self.data else own)

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.out or Path("runs") / f"sparse-{self.method}-{self.kind}"

    def settings(self, **defaults: Any) -> dict[str, Any]:
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
    if args.kind in ("digits", "mnist"):
        pictures = labelled(args)
        train, test, shape = pictures.train, pictures.test, pictures.shape
        return Patches(on_device(args, train[: args.count]), on_device(args, test), shape)
    source = map_images(args) if whiten else images(args)
    rows, back = data.patches(source, args.count, args.size, args.seed), None
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
    if args.kind == "natural":
        return data.natural_images()
    if args.kind == "frames" and args.data is not None:
        return list(data.grey(data.frames([args.data], 1000, args.seed)))
    if args.kind == "cifar10" and args.data is not None:
        return list(data.grey(cifar10(args.data)[0][:5000]))
    raise UserError(f"{args.method} needs images; {args.kind} has small pictures only")


def map_images(args: SparseArgs) -> list[data.Images]:
    """Grey images that a map learns from: without textures, and without the camera's noise."""
    if args.kind != "natural":
        return images(args)
    return [preprocessing.halve(image) for image in data.natural_images(data.PHOTOGRAPHS)]


def labelled(args: SparseArgs) -> data.Labelled:
    """Pictures with classes; `UserError` where the data have none."""
    if args.kind == "digits":
        return data.digits(args.seed)
    if args.kind == "mnist" and args.data is not None:
        return mnist(args.data)
    raise UserError(f"{args.method} needs classes; {args.kind} has none: take digits or mnist")


def on_device(args: SparseArgs, rows: NDArray[Any]) -> Tensor:
    """Rows in single precision on the device that was asked for."""
    return torch.from_numpy(np.ascontiguousarray(rows, np.float32)).to(args.device)
