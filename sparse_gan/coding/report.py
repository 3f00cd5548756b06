"""The page about a run: its figures, its filters as pictures, LISTA's race against FISTA."""

from __future__ import annotations

import base64
import io
import json
import math
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from worldmodels.runs import RunFolder, atomic_write, read_json

MOST_TILES = 576
"""Filters that a picture shows at most, evenly picked."""
_TITLES = {
    "dictionary": "Dictionary: what each unit stands for",
    "encoder": "Encoder: what each unit looks for, in the order of the dictionary",
    "map": "Topographic map: neighbours on the torus, whose edges meet",
    "angles": "Angle between encoder and decoder, of the units that are used",
    "iterations": "LISTA, ISTA and FISTA at equal iterations",
    "time": "LISTA, ISTA and FISTA at equal time",
}
_ORDER = ("map", "dictionary", "encoder", "angles", "iterations", "time")


def build_page(folder: Path) -> Path:
    """Write ``report.html`` into a run folder and return its path.

    Raises:
        UserError: a file of the run is missing or damaged.
    """
    run = RunFolder(folder, create=False)
    figures = read_json(folder / "figures.json")
    with np.load(folder / "pictures.npz", allow_pickle=False) as stored:
        drawn = draw({name: stored[name] for name in stored.files})
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sparse_gan.coding"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    record = run.read_config()
    method, data = record["config"]["method"], record["config"]["data"]
    data = data or ("digits" if method == "drsae" else "natural images")
    page = environment.get_template("report.html.j2").render(
        title=f"{method} on {data}",
        figures={name.replace("_", " "): as_text(value) for name, value in figures.items()},
        pictures=[(_TITLES[name], drawn[name]) for name in _ORDER if name in drawn],
        log=run.metrics("train")[-1:],
        config=json.dumps(record["config"], indent=2),
        versions=record["versions"],
        machine=record["machine"],
    )
    atomic_write(run.report, page)
    return run.report


def as_text(value: Any) -> str:
    """A figure as the page shows it, four digits if it has a fraction."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def draw(arrays: dict[str, NDArray[np.float32]]) -> dict[str, str]:
    """Pictures as data addresses, by name."""
    pictures: dict[str, str] = {}
    for name in ("map", "dictionary", "encoder"):
        if name in arrays:
            pictures[name] = _png(_tile_figure(tiles(arrays[name])))
    if "angles" in arrays:
        pictures["angles"] = _png(_angle_figure(arrays["angles"]))
    if "curve_lista" in arrays:
        curves = {name.removeprefix("curve_"): a for name, a in arrays.items() if "curve" in name}
        pictures["iterations"] = _png(_race_figure(curves, by_time=False))
        pictures["time"] = _png(_race_figure(curves, by_time=True))
    return pictures


def tiles(filters: NDArray[np.float32], limit: int = MOST_TILES) -> NDArray[np.float32]:
    """One picture of filters (N, H, W) row by row, each scaled to [-1, 1] with 0 in the middle.

    A square number of filters makes a square, so a map keeps its neighbours.
    """
    if len(filters) > limit:
        filters = filters[np.linspace(0, len(filters) - 1, limit).astype(int)]
    count, h, w = filters.shape
    columns = math.ceil(count**0.5)
    rows = -(-count // columns)
    scale = np.abs(filters).max((1, 2), keepdims=True)
    scaled = filters / np.where(scale > 0, scale, 1)
    sheet = np.ones((rows * (h + 1) + 1, columns * (w + 1) + 1), np.float32)
    for number, picture in enumerate(scaled):
        top, left = (number // columns) * (h + 1) + 1, (number % columns) * (w + 1) + 1
        sheet[top : top + h, left : left + w] = picture
    return sheet


def _tile_figure(sheet: NDArray[np.float32]) -> Figure:
    h, w = sheet.shape
    figure = Figure(figsize=(8, 8 * h / w), dpi=110)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(sheet, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    axes.axis("off")
    return figure


def _angle_figure(angles: NDArray[np.float32]) -> Figure:
    figure = Figure(figsize=(8, 3), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.hist(angles, bins=list(np.linspace(0, np.pi / 2, 48)), color="#4666a8")
    for edge in (0.5, 0.7):
        axes.axvline(edge, color="#888", linewidth=1, linestyle=":")
    axes.set(xlabel="angle in radians; below 0.5 a part, above 0.7 a category", ylabel="units")
    return figure


def _race_figure(curves: dict[str, NDArray[np.float32]], by_time: bool) -> Figure:
    figure = Figure(figsize=(8, 4), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    layers = curves["lista"].shape[1]
    for name, (seconds, gap) in sorted(curves.items()):
        x = 1000 * seconds if by_time else np.arange(1, layers + 1)
        y = np.maximum(gap if by_time else gap[:layers], 1e-7)
        axes.plot(x, y, marker=".", label=name.upper())
    axes.set(yscale="log", ylabel="(E - E*) / E*")
    axes.set_xlabel("milliseconds for the test rows" if by_time else "iterations or layers")
    if by_time:
        axes.set_xscale("log")
    axes.legend(frameon=False)
    return figure


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
