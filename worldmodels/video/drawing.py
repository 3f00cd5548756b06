"""Panels, grids and files: what films and pictures are made of."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from worldmodels import runs
from worldmodels.config import EVEN, AtLeast, Config, Count, Few, Limit, NotNegative
from worldmodels.protocols import UserError

Frames: TypeAlias = NDArray[np.uint8]
"""(..., H, W, 3) uint8; an environment's own frames may be grey, (..., H, W, 1)."""
_GAP, _HEAD = 4, 18
INK, PAPER, ACCENT = (236, 236, 236), (17, 19, 24), (240, 171, 60)


@dataclass(frozen=True)
class VideoConfig(Config):
    """Size and speed of films, and how they dream."""

    panel: Annotated[int, EVEN, AtLeast(16), Limit(4096)] = 224
    """height and width of one panel, in pixels; even"""
    every: Count = 2
    """steps per frame of the film"""
    fps: Few = 25
    """frames of the film per second"""
    sync: Count = 50
    """steps of open-loop dreaming between two looks at reality"""
    temperature: NotNegative = 1.0
    """temperature of the dream; 0 for the mean of the likeliest component"""
    max_bytes: Count = 600_000
    """approximate maximum size of a film, in bytes"""

    def at(self, rate: float) -> VideoConfig:
        """The same at the speed of an environment with ``rate`` steps per second."""
        every = max(1, round(rate / self.fps))
        return replace(self, every=every, fps=max(1, round(rate / every)))


def compose(
    pictures: Sequence[Frames],
    labels: Sequence[str],
    line: Sequence[str],
    panel: int,
    fraction: float | None = None,
) -> Frames:
    """Put pictures side by side, with a label under each and a line of facts below.

    Pictures are (H, W, 3), or grey (H, W, 1), of any sizes. A fraction in [0, 1) is drawn as a bar
    under the last panel: how long the dream has been open-loop.
    """
    width, size = len(pictures) * (panel + _GAP) + _GAP, max(11, panel // 16)
    caption = 2 * size
    height = panel + 2 * (caption + _GAP)
    sheet = Image.new("RGB", (width + width % 2, height + height % 2), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        left = _GAP + i * (panel + _GAP)
        tile = _fit(picture, panel)
        sheet.paste(tile, (left + (panel - tile.width) // 2, _GAP + (panel - tile.height) // 2))
        sheet.paste(INK, (left, _GAP + panel + 4), _letters(label, size))
    if fraction is not None:
        end = left + round(fraction * (panel - 1))
        draw.line([(left, _GAP + panel + 1), (end, _GAP + panel + 1)], ACCENT, 2)
    for i, fact in enumerate(line):
        place = _GAP + i * (width - _GAP) // len(line)
        sheet.paste(ACCENT, (place, _GAP + panel + caption + 2), _letters(fact, size))
    return np.asarray(sheet)


@functools.lru_cache(1024)
def _letters(text: str, size: int) -> Image.Image:
    """A text as a mask; most labels of a film come again and again."""
    font = ImageFont.load_default(size)
    mask = Image.new("L", (max(1, round(font.getlength(text))), 2 * size))
    ImageDraw.Draw(mask).text((0, 0), text, 255, font)
    return mask


def grid(
    rows: Sequence[Frames], names: Sequence[str], scale: int, columns: Sequence[str] = ()
) -> Frames:
    """Rows of frames, each (n, S, S, 3), with a name above each row and one over each column."""
    size = rows[0].shape[1] * scale
    width = len(rows[0]) * (size + _GAP) + _GAP
    sheet = Image.new("RGB", (width, len(rows) * (size + _HEAD) + _GAP), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for r, (row, name) in enumerate(zip(rows, names, strict=True)):
        top = r * (size + _HEAD)
        draw.text((_GAP, top + 2), name, ACCENT, font)
        for i, picture in enumerate(row):
            left = _GAP + i * (size + _GAP)
            sheet.paste(_fit(picture, size), (left, top + _HEAD))
            if columns and r == 0 and i > 0:
                draw.text((left, top + 2), columns[i], INK, font)
    return np.asarray(sheet)


def _fit(picture: Frames, panel: int) -> Image.Image:
    """Enlarge or shrink a picture so that its longer side fills the panel; in RGB."""
    image = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).convert("RGB")
    scale = panel / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)


def write_picture(path: Path, picture: Frames) -> Path:
    """Write a PNG, atomically."""
    with runs.atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG", optimize=True)
    return path


def write_animation(path: Path, frames: Iterable[Frames], rate: float, quality: int = 60) -> Path:
    """Write an animated WebP that repeats, at ``rate`` frames per second, atomically."""
    first, *rest = (Image.fromarray(frame) for frame in frames)
    options: dict[str, Any] = {"duration": round(1000 / rate), "loop": 0, "method": 4}
    with runs.atomic_path(path) as temporary:
        first.save(temporary, "WEBP", save_all=True, append_images=rest, quality=quality, **options)
    return path


def write_video(
    path: Path, frames: Iterable[Frames], cfg: VideoConfig, count: int | None = None
) -> Path:
    """Write an mp4 (H.264, playable everywhere), atomically.

    With the ``count`` of frames, or the most that there can be, they need not fit into memory.

    Raises:
        UserError: there are no frames, no ffmpeg, another suffix than .mp4, or a full disk.
    """
    runs.check_output(path, "the film", runs.FILM)
    import imageio_ffmpeg

    if count is None:
        frames = list(frames)
        count = len(frames)
    pictures = iter(frames)
    if (first := next(pictures, None)) is None:
        raise UserError(f"{path}: a film needs at least one frame")
    height, width = first.shape[:2]
    rate = max(16, int(0.9 * cfg.max_bytes * 8 / (count / cfg.fps) / 1000))  # kbit/s
    options = ["-crf", "26", "-preset", "veryfast"]
    options += ["-maxrate", f"{rate}k", "-bufsize", f"{rate}k", "-movflags", "+faststart"]
    with runs.atomic_path(path) as temporary:
        writer = imageio_ffmpeg.write_frames(
            os.fspath(temporary.absolute()),  # "a:b.mp4" would be a protocol
            (width, height),
            fps=cfg.fps,
            codec="libx264",
            quality=None,
            macro_block_size=2,
            output_params=options,
            ffmpeg_log_level="error",
        )
        with contextlib.closing(writer):
            writer.send(None)
            for picture in itertools.chain([first], pictures):
                writer.send(np.ascontiguousarray(picture))
    return path
