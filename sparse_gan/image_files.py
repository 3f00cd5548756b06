"""Image files of any kind as RGB bytes: read rightly, or refused in one line that names the file.

The only place that opens image files.
"""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from worldmodels.protocols import UserError

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")
"""Files of a folder that are taken for images; of animated ones the first frame."""
MOST_PIXELS = 178_956_970
"""Pixels of the largest image that is opened, where Pillow too sees a decompression bomb."""
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    AttributeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow raises for files that are damaged, each format in its own way."""


def find_images(folders: Sequence[Path]) -> list[Path]:
    """Image files of folders and of all below them, folder by folder, in the order of their paths.

    Hidden files and folders (such as ``._x.jpg``, which macOS writes) are left out. Links to
    folders are followed, and a file that is reached twice is listed once, at its first place.

    Raises:
        UserError: no folder, no image in one, or a name like an image's that is no file.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}")
        files = sorted(_walk(folder))
        if not files:
            raise UserError(f"{folder} has no images; allowed endings: {', '.join(ENDINGS)}")
        for path in files:
            if not path.is_file():
                raise UserError(f"{path} is not a file that can be read (a broken link?)")
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def _walk(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        true_place = os.path.realpath(place)
        if true_place in seen:  # a link that leads back, or to where another has led
            folders.clear()
            continue
        seen.add(true_place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if not name.startswith(".") and name.lower().endswith(ENDINGS):
                yield Path(place, name)


def read_image(path: Path) -> NDArray[np.uint8]:
    """One image as RGB (H, W, 3), turned upright as its EXIF orientation says.

    Transparent parts show white, whatever colour hides below them. Of 16 bits the upper 8 are kept;
    grey, palettes and CMYK become RGB.

    Raises:
        UserError: names the file: damaged, empty, too large, or with pixels whose range is unknown.
    """
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path} is an empty file, not an image")
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            if image.width * image.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            rgb = _rgb(ImageOps.exif_transpose(image), path)
    except Image.DecompressionBombError as error:
        raise UserError(
            f"{path} has too many pixels to be opened; at most {MOST_PIXELS:,} are allowed"
        ) from error
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is not a readable image (of no known format)") from error
    except _BROKEN as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"{path} is not a readable image ({reason})") from error
    return rgb


def _rgb(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    """RGB (H, W, 3) of an image of any mode."""
    if image.mode.startswith("I;16"):
        return _of_16_bits(image)
    if image.mode in ("I", "F"):
        kind = "32-bit integers" if image.mode == "I" else "floating-point numbers"
        raise UserError(
            f"{path} has {kind} as pixels, whose range is unknown; save it with 8 or 16 bits"
        )
    if image.has_transparency_data:
        above = image.convert("RGBA")
        white = Image.new("RGBA", above.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, above)
    return np.asarray(image.convert("RGB"))


def _of_16_bits(image: Image.Image) -> NDArray[np.uint8]:
    values: NDArray[Any] = np.asarray(image).astype(np.int64)
    grey = (values // 256).astype(np.uint8)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey[values == clear] = 255
    return np.repeat(grey[:, :, None], 3, axis=2)
