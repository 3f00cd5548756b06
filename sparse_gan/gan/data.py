"""Pictures to learn from and pictures to measure on, and batches of them by number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sparse_gan import data
from sparse_gan.image_files import find_images, read_image
from worldmodels.protocols import UserError
from worldmodels.runs import derive_seed

Source = Literal["frames", "faces", "digits", "images"]
TEST_SHARE = 10
"""One picture in so many is held out."""
FEWEST_HELD_OUT = 2
"""Pictures that the distances need on each side."""


@dataclass(frozen=True)
class PictureSet:
    """Pictures, some of them held out."""

    train: NDArray[np.uint8]
    """(B, S, S, C)"""
    test: NDArray[np.uint8]
    """(B', S, S, C)"""


class PictureBatches:
    """Batches of pictures by number: each epoch in its own order, the same on every call.

    A batch that would be cut by the end of an epoch is left out, so all are of one size.
    """

    def __init__(
        self, pictures: NDArray[Any], batch_size: int, seed: int, device: str = "cpu"
    ) -> None:
        """Keep the pictures as they are; each batch is converted when it is asked for.

        Args:
            pictures: (N, H, W, C) uint8, or floats in [-1, 1].
            batch_size: B, at most N.
            seed: fixes the order.
            device: where batches go.

        Raises:
            UserError: no pictures of that form, fewer than a batch, or values that are not finite
                or out of range.
        """
        check_pixels(pictures)
        if not 1 <= batch_size <= len(pictures):
            raise UserError(
                f"batch_size is {batch_size}; it must be between 1 and the number of pictures, "
                f"{len(pictures)}"
            )
        self.pictures, self.batch_size, self.seed, self.device = pictures, batch_size, seed, device
        self.per_epoch = len(pictures) // batch_size
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def __call__(self, number: int) -> Tensor:
        """Batch ``number`` (B, C, H, W) in [-1, 1], channels-last in memory."""
        return to_signed(self.raw(number)).to(self.device)

    def raw(self, number: int) -> NDArray[Any]:
        """Batch ``number`` (B, H, W, C) as the pictures are stored."""
        epoch, place = divmod(number, self.per_epoch)
        if epoch != self._epoch:
            rng = np.random.default_rng(derive_seed(self.seed, "epoch", epoch))
            self._epoch, self._order = epoch, rng.permutation(len(self.pictures))
        chosen = self._order[place * self.batch_size : (place + 1) * self.batch_size]
        return np.asarray(self.pictures[chosen])


def load_pictures(
    source: Source,
    size: int,
    *,
    folders: Sequence[Path] = (),
    count: int = 20_000,
    seed: int = 0,
    resize: bool = False,
) -> PictureSet:
    """Pictures of a source, a tenth held out.

    Args:
        source: frames takes those of the episodes in ``folders``, whole episodes held out; faces
            are scikit-image's 100 faces of 25x25 pixels, digits scikit-learn's 1,797 of 8x8, both
            enlarged; images takes the image files of ``folders``.
        size: S, height and width.
        folders: of frames (see `EpisodeStore`) and images.
        count: pictures to learn from, at most.
        seed: fixes the choice.
        resize: of images: cut other sizes to a square and scale them, instead of refusing them.

    Raises:
        UserError: no folder named, nothing in it, pictures of another size, or too few to hold some
            out.
    """
    if source in ("frames", "images") and not folders:
        what = "a run's folder" if source == "frames" else "folders"
        raise UserError(f"--source is {source}: name {what} with --data")
    if source == "frames":
        train = data.frames(folders, count, seed, "train")
        test = data.frames(folders, max(100, count // 5), seed, "test")
        check_size(train, size, "the frames")
        return PictureSet(train, test)
    if source == "images":
        pictures = read_folders(folders, size, resize)
    else:
        pictures = _enlarged(_faces() if source == "faces" else _digits(), size)
    order = np.random.default_rng(derive_seed(seed, "pictures")).permutation(len(pictures))
    if len(pictures) < 2 * FEWEST_HELD_OUT:
        where = ", ".join(map(str, folders))
        raise UserError(
            f"{where}: {len(pictures)} pictures are too few; at least {2 * FEWEST_HELD_OUT} are "
            f"needed, for {FEWEST_HELD_OUT} of them are held out"
        )
    cut = max(FEWEST_HELD_OUT, len(pictures) // TEST_SHARE)
    return PictureSet(pictures[order[cut:]][:count], pictures[order[:cut]])


def read_folders(folders: Sequence[Path], size: int, resize: bool = False) -> NDArray[np.uint8]:
    """All image files of folders and of their subfolders, as (N, S, S, 3); see `find_images`.

    Args:
        folders: a file that is reached through two of them counts once.
        size: S.
        resize: cut the middle square out and scale it, if a picture has another size.

    Raises:
        UserError: no folder, no image in it, a damaged image, or one of another size.
    """
    return np.stack([_fitted(path, size, resize) for path in find_images(folders)])


def _fitted(path: Path, size: int, resize: bool) -> NDArray[np.uint8]:
    pixels = read_image(path)
    height, width = pixels.shape[:2]
    if (width, height) == (size, size):
        return pixels
    if not resize:
        raise UserError(
            f"{path} is {width}x{height}; the network takes {size}x{size}: "
            "add --resize to cut and scale, or choose another --size"
        )
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = Image.fromarray(pixels[top : top + side, left : left + side])
    return np.asarray(square.resize((size, size), Image.Resampling.LANCZOS))


def check_size(pictures: NDArray[Any], size: int, what: str) -> None:
    """Refuse pictures (N, H, W, C) of another size than S x S."""
    if pictures.shape[1:3] != (size, size):
        height, width = pictures.shape[1:3]
        raise UserError(f"{what} are {width}x{height}; the network takes {size}x{size}")


def check_pixels(pictures: NDArray[Any]) -> None:
    """Refuse what is not (N, H, W, C) uint8, or finite floats in [-1, 1]."""
    if pictures.ndim != 4 or pictures.shape[-1] not in (1, 3) or not len(pictures):
        raise UserError(f"pictures are {pictures.shape}; expected (N, H, W, 1) or (N, H, W, 3)")
    if pictures.dtype == np.uint8:
        return
    if not np.issubdtype(pictures.dtype, np.floating):
        raise UserError(f"pictures are {pictures.dtype}; expected uint8 or floats in [-1, 1]")
    bad = ~np.isfinite(pictures)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise UserError(f"pictures have {pictures[where]} at {where}; all values must be finite")
    if np.abs(pictures).max() > 1:
        raise UserError(f"pictures reach {np.abs(pictures).max():g}; they must lie in [-1, 1]")


def to_signed(pictures: NDArray[Any]) -> Tensor:
    """Pictures (B, H, W, C), uint8 or in [-1, 1], to (B, C, H, W) in [-1, 1], channels-last."""
    x = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2)
    return x.float().div_(127.5).sub_(1) if x.dtype == torch.uint8 else x.float()


def to_bytes(x: Tensor) -> NDArray[np.uint8]:
    """Pictures (B, C, H, W) in [-1, 1] to uint8 (B, H, W, 3), grey ones repeated."""
    values = ((x.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    pictures: NDArray[np.uint8] = values.permute(0, 2, 3, 1).cpu().numpy()
    return np.repeat(pictures, 3, 3) if pictures.shape[-1] == 1 else pictures


def _faces() -> NDArray[np.float32]:
    load: Callable[[], NDArray[Any]] = data.library("skimage.data").lfw_subset
    return np.asarray(load()[:100], np.float32)  # the second hundred are no faces


def _digits() -> NDArray[np.float32]:
    pictures = data.library("sklearn.datasets").load_digits().images
    return np.asarray(pictures / 16, np.float32)


def _enlarged(pictures: NDArray[np.float32], size: int) -> NDArray[np.uint8]:
    """Grey pictures (N, H, W) in [0, 1] to uint8 (N, S, S, 1)."""
    x = torch.from_numpy(pictures)[:, None]
    scaled = torch.nn.functional.interpolate(x, (size, size), mode="bicubic", antialias=True)
    values: NDArray[np.uint8] = (scaled.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return values[:, 0, :, :, None]
