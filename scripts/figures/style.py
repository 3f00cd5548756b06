"""One look for all figures: colours, axes, and the same bytes for the same picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from numpy.typing import NDArray

from worldmodels.evaluation.statistics import bootstrap_interval
from worldmodels.runs import atomic_path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results"
INK, MUTED, BLUE, ORANGE, PURPLE, GREEN, PALE = (
    "#1a1f26",
    "#7a828e",
    "#0b6b95",
    "#c05a05",
    "#6a3cc4",
    "#2c7a3f",
    "#eef2f6",
)
Point: TypeAlias = tuple[float, float]
DARK = (
    "<style>@media (prefers-color-scheme: dark) "
    "{svg {filter: invert(0.93) hue-rotate(180deg)}}</style>"
)
"""Browsers tell a picture if its page is dark: then paper is dark, ink light, and hues stay."""


def canvas(width: float, height: float) -> tuple[Figure, Any]:
    """A figure without axes' lines, whose coordinates are its own inches."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def chart(width: float = 8.2, height: float = 4.2) -> tuple[Figure, Axes]:
    """A figure with one pair of axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    plain(axes)
    return figure, axes


def plain(axes: Axes) -> None:
    """Leave out what is above and to the right."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#e4e8ed", linewidth=0.8)
    axes.set_axisbelow(True)


def box(axes: Any, centre: Point, size: Point, text: str, colour: str = INK) -> None:
    """A labelled box with round corners."""
    (x, y), (w, h) = centre, size
    corner, style = (x - w / 2, y - h / 2), "round,pad=0.02,rounding_size=0.1"
    axes.add_patch(FancyBboxPatch(corner, w, h, style, fc="white", ec=colour, lw=1.6))
    axes.text(x, y, text, ha="center", va="center", color=colour, size=10.5, linespacing=1.35)


def arrow(axes: Any, start: Point, end: Point, colour: str = INK, **look: Any) -> None:
    """An arrow; ``look`` goes to matplotlib."""
    given = {"arrowstyle": "-|>", "mutation_scale": 13, "color": colour, "lw": 1.5, **look}
    axes.add_patch(FancyArrowPatch(start, end, shrinkA=0, shrinkB=0, **given))


def save(figure: Figure, path: Path) -> None:
    """Write an SVG, the same bytes for the same picture."""
    with atomic_path(path) as temporary, mpl.rc_context({"svg.hashsalt": "worldmodels"}):
        figure.savefig(temporary, format="svg", facecolor="white", metadata={"Date": None})
    # Matplotlib ends some lines in a space.
    lines = path.read_text(encoding="utf-8").splitlines()
    lines.insert(next(i for i, line in enumerate(lines) if line.startswith("<svg ")) + 1, DARK)
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")


def returns(name: str) -> NDArray[np.float64]:
    """Returns (E,) of a committed evaluation, by its path below benchmarks/results."""
    found = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return np.array([episode["return"] for episode in found["episodes"]])


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The 95% interval of the mean, as in every table."""
    found = bootstrap_interval(values)
    assert found is not None
    return found[0], found[-1]
