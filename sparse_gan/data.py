"""Data that needs no download: synthetic codes, natural images, digits, frames, files of a folder.

The only file of this package that looks at the pipeline's frames.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparse_gan.preprocessing import Images, unit_rows
from worldmodels.experience.store import EpisodeStore
from worldmodels.protocols import UserError, install_extra
from worldmodels.runs import derive_seed

GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey value (ITU-R BT.601)."""
NATURAL = (
    "china",
    "flower",
    "astronaut",
    "brick",
    "camera",
    "chelsea",
    "coffee",
    "grass",
    "gravel",
)
"""Photographs inside scikit-learn (the first two) and scikit-image."""
PHOTOGRAPHS = tuple(name for name in NATURAL if name not in ("brick", "grass", "gravel"))
"""Those of them that show more than a texture."""


class SyntheticCodes:
    """Signals with known sparse codes, the benchmark of Gregor & LeCun 2010 and Chen et al. 2018.

    D has Gaussian entries and columns of length 1; an entry of z is not 0 with the given chance,
    and then Gaussian; x = D z, without noise unless asked for.
    """

    def __init__(
        self,
        features: int = 250,
        atoms: int = 500,
        density: float = 0.1,
        snr_db: float | None = None,
        seed: int = 0,
    ) -> None:
        """Draw the dictionary."""
        self.density, self.snr_db, self.seed = density, snr_db, seed
        generator = _generator(seed, "dictionary")
        d = torch.randn(features, atoms, generator=generator)
        self.dictionary = d / d.norm(dim=0)

    def batch(self, count: int, number: int, split: str = "train") -> tuple[Tensor, Tensor]:
        """Batch ``number`` of a split: signals (B, M) and codes (B, N), the same on every call."""
        generator = _generator(self.seed, split, number)
        size = (count, self.dictionary.shape[1])
        z = torch.randn(size, generator=generator)
        z = z * (torch.rand(size, generator=generator) < self.density)
        x = z @ self.dictionary.T
        if self.snr_db is not None:
            scale = x.std() * 10 ** (-self.snr_db / 20)
            x = x + scale * torch.randn(x.shape, generator=generator)
        return x, z


@dataclass(frozen=True)
class Labelled:
    """Pictures with classes, in a part to learn from and one to measure on."""

    train: Images
    """(B, M) flat pictures"""
    train_labels: NDArray[np.int64]
    """(B,)"""
    test: Images
    """(B', M)"""
    test_labels: NDArray[np.int64]
    """(B',)"""
    shape: tuple[int, int]
    """height and width of a picture"""

    @property
    def classes(self) -> int:
        """One more than the largest label."""
        return 1 + int(max(self.train_labels.max(), self.test_labels.max()))


def library(name: str) -> Any:
    """A module of the extra `sparse`; `UserError` where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"pictures that need no download are part of {name.partition('.')[0]}, which is not "
            f"installed: {install_extra('sparse')}"
        ) from error


def digits(seed: int, test_share: float = 0.25) -> Labelled:
    """scikit-learn's 1,797 digits of 8x8 pixels, rows scaled to length 1, in a stratified split.

    Args:
        seed: fixes the split.
        test_share: fraction of every class in the test part.
    """
    pictures, labels = library("sklearn.datasets").load_digits(return_X_y=True)
    train, test = stratified(labels, test_share, seed)
    x = unit_rows(pictures)
    return Labelled(x[train], labels[train], x[test], labels[test], (8, 8))


def stratified(
    labels: NDArray[np.int64], test_share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of a training and a test part that have the same fraction of every class."""
    if not 0 < test_share < 1:
        raise UserError(f"test_share is {test_share}; it must be between 0 and 1")
    rng = np.random.default_rng(derive_seed(seed, "split"))
    train, test = [], []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        cut = round(test_share * len(members))
        test.append(members[:cut])
        train.append(members[cut:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(test))


def natural_images(names: Sequence[str] = NATURAL) -> list[Images]:
    """Grey photographs (H, W) in [0, 1], out of scikit-learn's and scikit-image's own files.

    Raises:
        UserError: an unknown name.
    """
    unknown = sorted(set(names) - set(NATURAL))
    if unknown:
        raise UserError(f"there is no picture {unknown[0]}; allowed: {', '.join(NATURAL)}")
    return [grey(_natural(name)) for name in names]


def _natural(name: str) -> NDArray[np.uint8]:
    if name in ("china", "flower"):
        return np.asarray(library("sklearn.datasets").load_sample_image(f"{name}.jpg"))
    return np.asarray(getattr(library("skimage.data"), name)())


def grey(picture: NDArray[np.uint8]) -> Images:
    """Grey values (..., H, W) in [0, 1] of pictures (..., H, W, 3) or (H, W), uint8.

    Raises:
        UserError: another type, whose range is not 0 to 255, or another number of channels.
    """
    if picture.dtype != np.uint8 or not (picture.ndim == 2 or picture.shape[2:][-1:] == (3,)):
        raise UserError(
            f"pictures are {picture.dtype} of shape {picture.shape}; they must be uint8, "
            "(..., height, width, 3) or (height, width)"
        )
    values = np.asarray(picture, np.float32) / 255
    if values.ndim >= 3:
        values = values @ np.asarray(GREY, np.float32)
    return np.asarray(values, np.float32)


def patches(images: Sequence[Images], count: int, size: int, seed: int) -> Images:
    """Random square patches (count, size, size), as many from each pixel of each image.

    Args:
        images: grey (H, W); of a batch (B, H, W), give its members.
        count: how many.
        size: their side, in pixels.
        seed: fixes which.

    Raises:
        UserError: no image, or one smaller than a patch.
    """
    if not len(images):
        raise UserError("there are no images to take patches from; give at least one")
    small = [image.shape for image in images if min(image.shape) < size]
    if small:
        raise UserError(f"an image of shape {small[0]} is smaller than a patch of {size} pixels")
    rng = np.random.default_rng(derive_seed(seed, "patches"))
    places = np.array([(h - size + 1) * (w - size + 1) for h, w in (i.shape for i in images)])
    chosen = rng.choice(len(images), count, p=places / places.sum())
    result = np.empty((count, size, size), np.float32)
    for number, which in enumerate(chosen):
        h, w = images[which].shape
        top, left = rng.integers(h - size + 1), rng.integers(w - size + 1)
        result[number] = images[which][top : top + size, left : left + size]
    return result


def frames(
    folders: Sequence[Path | str],
    count: int,
    seed: int,
    part: Literal["all", "train", "test"] = "all",
) -> NDArray[np.uint8]:
    """Random frames (count, S, S, 3) of collected episodes; all, shuffled, if there are fewer.

    Args:
        folders: see `EpisodeStore`.
        count: at most.
        seed: fixes which.
        part: of the episodes, every tenth being kept for testing: frames of one episode are too
            alike to be split among themselves.

    Raises:
        UserError: a folder without episodes, or fewer than ten of them where a part is asked for.
    """
    store = EpisodeStore(folders)
    if part != "all":
        if len(store) < 10:
            raise UserError(
                f"there are {len(store)} episodes; at least 10 are needed, to hold some out"
            )
        every = [n for n in range(len(store)) if (n % 10 == 9) == (part == "test")]
        store = store.subset(every)
    rng = np.random.default_rng(derive_seed(seed, "frames"))
    wanted = np.sort(rng.permutation(store.num_frames)[:count])
    found = []
    for record in store.episodes:
        first, stop = np.searchsorted(
            wanted, (record.first_frame, record.first_frame + record.num_frames)
        )
        if stop > first:
            episode = store.read_frames(record.index)
            found.append(episode[wanted[first:stop] - record.first_frame])
    return np.asarray(rng.permutation(np.concatenate(found)))


def _generator(*words: object) -> torch.Generator:
    seed, *rest = words
    return torch.Generator().manual_seed(derive_seed(int(str(seed)), *map(str, rest)) % 2**63)


__all__ = [
    "NATURAL",
    "PHOTOGRAPHS",
    "Images",
    "Labelled",
    "SyntheticCodes",
    "digits",
    "frames",
    "grey",
    "natural_images",
    "patches",
    "stratified",
]
