"""Samples of the same noise over the steps of a training: sheets, a growing grid, a film."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparse_gan.image_files import read_image
from worldmodels.runs import make_folder
from worldmodels.video import VideoConfig, grid, write_picture, write_video

Pictures = NDArray[np.uint8]
"""(N, S, S, 3)"""


def sheet(pictures: Pictures, columns: int = 8, scale: int = 1) -> Pictures:
    """One picture of all, row by row; the last row is filled up with black."""
    count, side = len(pictures), pictures.shape[1]
    rows = -(-count // columns)
    full = np.zeros((rows * columns, side, side, 3), np.uint8)
    full[:count] = pictures
    joined = full.reshape(rows, columns, side, side, 3).swapaxes(1, 2)
    large = joined.reshape(rows * side, columns * side, 3)
    return np.asarray(large.repeat(scale, 0).repeat(scale, 1))


class Gallery:
    """Sheets of one training, one file for each step that was drawn."""

    def __init__(self, folder: Path, side: int, columns: int = 8) -> None:
        """Open the folder, or make it.

        Args:
            folder: of step_000000.png and so on; what lies there already is kept.
            side: of a picture, in pixels.
            columns: pictures in a row.
        """
        self.folder, self.side, self.columns = make_folder(folder), side, columns

    @property
    def scale(self) -> int:
        """How much small pictures are enlarged in the film and the growing grid."""
        return max(1, 64 // self.side)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the film in pixels."""
        height, width = read_image(next(iter(self.steps().values()))).shape[:2]
        return width * self.scale, height * self.scale

    def add(self, step: int, pictures: Pictures) -> Path:
        """Draw the sheet of a step."""
        path = self.folder / f"step_{step:06d}.png"
        return write_picture(path, sheet(pictures, self.columns))

    def steps(self) -> dict[int, Path]:
        """Sheets by step, in order."""
        found = {}
        for path in sorted(self.folder.glob("step_*.png")):
            if match := re.fullmatch(r"step_(\d+)\.png", path.name):
                found[int(match[1])] = path
        return found

    def growing(self, rows: int = 8) -> Pictures:
        """The first row of evenly picked steps, one under the other: how each sample grew."""
        sheets = list(self.steps().items())
        picked = np.unique(np.linspace(0, len(sheets) - 1, rows).round().astype(int))
        lines, names = [], []
        for number in picked:
            step, path = sheets[number]
            row = read_image(path)[: self.side]
            lines.append(row.reshape(self.side, self.columns, self.side, 3).swapaxes(0, 1))
            names.append(f"step {step}")
        return grid(lines, names, self.scale)

    def film(self, path: Path, fps: int = 8) -> Path:
        """All sheets one after the other, as mp4."""
        scale = self.scale
        frames = [read_image(p).repeat(scale, 0).repeat(scale, 1) for p in self.steps().values()]
        return write_video(path, frames, VideoConfig(fps=fps, max_bytes=4_000_000))
