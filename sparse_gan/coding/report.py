"""The page about a run: its figures, its filters as pictures, LISTA's race against FISTA."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from worldmodels.pages import text
from worldmodels.pages.charts import log_labels, looks, panels_of, training_chart
from worldmodels.pages.document import (
    Block,
    Document,
    Figures,
    Media,
    Pair,
    Plot,
    Section,
    Table,
    drawn,
    setup,
)
from worldmodels.pages.svg import COLOUR, FULL, HALF, Chart, chart, width_of
from worldmodels.runs import RunFolder, read_json

Arrays = Mapping[str, NDArray[np.float32]]

NAMES = {
    "dictionary": "Dictionary learning",
    "lista": "LISTA",
    "psd": "PSD",
    "drsae": "DrSAE",
    "topographic": "Topographic map",
    "convolutional": "Convolutional sparse coding",
    "local": "Local sparse auto-encoder",
}
"""What each method is called."""
WORDS = {
    "reconstruction_snr_db": "reconstruction, signal to noise (dB)",
    "encoder_snr_db": "reconstruction by the encoder alone, signal to noise (dB)",
    "active_fraction": "active units",
    "seconds": "time",
}
"""Figures whose names are not plain words."""
MOST_TILES = 576
"""Filters that a picture shows at most, evenly picked."""
SHEETS = {
    "map": ("Topographic map", "Neighbours on the torus, whose edges meet."),
    "dictionary": ("Dictionary", "Decoder filter of each unit; 0 is mid-grey."),
    "encoder": ("Encoder", "Encoder filter of each unit, in the order of the dictionary."),
}
"""Filters by name: title and caption."""


def build_page(folder: Path) -> Path:
    """Write ``report.html`` into a run folder and return its path.

    Raises:
        UserError: a file of the run is missing or damaged.
    """
    run = RunFolder(folder, create=False)
    figures = read_json(folder / "figures.json")
    with np.load(folder / "pictures.npz", allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    record = run.read_config()
    method, source = record["config"]["method"], record["config"]["source"]
    own = "digits" if method == "drsae" else "natural images"
    source = source or ("frames" if record["config"]["data"] else own)
    sheets = [
        drawn(tiles(arrays[name]), *words) for name, words in SHEETS.items() if name in arrays
    ]
    learning = _learning(run.metrics("train"))
    page = Document(
        f"{NAMES.get(method, method)} on {source}",
        "sparse coding",
        [conclusion(method, figures)],
        [
            Section(
                "Result", [*_charts(arrays), *([Media(sheets, layout="beside")] if sheets else [])]
            ),
            Section("Figures", [Figures(_table(figures), "Figures of the run")]),
            Section("Training", [Plot(learning)] if learning else []),
            setup(record),
        ],
        "worldmodels sparse",
    )
    return page.write(run.report)


def conclusion(method: str, figures: Mapping[str, Any]) -> str:
    """The result of the run in a sentence."""
    if "test_error" in figures:
        return f"{said('test_error', figures)} of the held-out pictures are classified wrongly."
    if "lista_gap" in figures:
        (name,) = (key for key in figures if key.startswith("fista_gap"))
        return (
            f"After {name.rpartition('_')[2]} iterations, LISTA is {said('lista_gap', figures)} "
            f"above the least energy, FISTA {said(name, figures)}."
        )
    quality = f"a signal to noise of {said('reconstruction_snr_db', figures)} dB"
    if "active_fraction" in figures:
        quality += f", with {said('active_fraction', figures)} of the units active"
    return f"Held-out data are reconstructed with {quality}."


def said(name: str, figures: Mapping[str, Any]) -> str:
    """A figure to the digits that its error allows, where that is known."""
    value = figures[name]
    if name == "test_error" and figures.get("test_samples"):
        error = math.sqrt(max(value * (1 - value), 1e-9) / figures["test_samples"])
        return f"{text.spread(100 * value, 100 * error)}%"
    if name == "seconds":
        return text.duration(value)
    if name == "active_fraction" or "_gap" in name:
        return f"{float(f'{100 * value:.2g}'):g}%"
    return text.figure(value)


def _table(figures: Mapping[str, Any]) -> Table:
    rows = [[WORDS.get(name, name.replace("_", " ")), said(name, figures)] for name in figures]
    return Table(["figure", "value"], rows)


def _learning(rows: Sequence[Mapping[str, Any]]) -> Chart | None:
    place = "epoch" if rows and "epoch" in rows[0] else "step"
    return training_chart("training", rows, place, panels_of(rows, place, "vision"))


def _charts(arrays: Arrays) -> list[Block]:
    if "angles" in arrays:
        return [Plot(angle_chart(arrays["angles"]), "Angle between encoder and decoder")]
    if "curve_lista" not in arrays:
        return []
    curves = {name.removeprefix("curve_"): a for name, a in arrays.items() if "curve" in name}
    at_equal = (("iterations", False), ("time", True))
    return [Pair([Plot(race_chart(curves, by), f"At equal {what}") for what, by in at_equal])]


def tiles(filters: NDArray[np.float32], limit: int = MOST_TILES) -> NDArray[np.uint8]:
    """One grey picture of filters (N, H, W) row by row, each scaled so that 0 is mid-grey.

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
    return np.asarray(np.round(127.5 * (1 + sheet)), np.uint8)


def angle_chart(angles: NDArray[np.float32]) -> Chart:
    """Histogram of the angles (N,), in radians, of the units that are used."""

    def draw(axes: Axes) -> None:
        bins = list(np.linspace(0, np.pi / 2, 24 if width_of(axes) < 400 else 48))
        axes.hist(angles, bins=bins, color=COLOUR["vision"], alpha=0.75, rwidth=0.92)
        for edge in (0.5, 0.7):
            axes.axvline(edge, color=COLOUR["muted"], linewidth=1.2, linestyle=(0, (2, 2)))
        axes.set(xlabel="radians; below 0.5 a part, above 0.7 a category", ylabel="units")

    alt = f"Angles of {len(angles)} units, median {np.median(angles):.2f} radians."
    return chart("angles", alt, FULL, [240], draw)


def race_chart(curves: Arrays, by_time: bool) -> Chart:
    """Gap to the least energy by iterations, or by time.

    Args:
        curves: (2, points) of seconds and gap, by solver.
        by_time: or by iterations, up to LISTA's layers.
    """
    styles = looks(sorted(curves))
    layers = curves["lista"].shape[1]

    def draw(axes: Axes) -> None:
        for name, look in styles.items():
            seconds, gap = curves[name]
            x = 1000 * seconds if by_time else np.arange(1, layers + 1)
            y = np.maximum(gap if by_time else gap[:layers], 1e-7)
            axes.plot(x, y, marker=".", color=COLOUR[look.colour], linestyle=look.dash)
        axes.set(yscale="log", ylabel="(E − E*) / E*")
        axes.set_xlabel("ms for the test rows" if by_time else "iterations or layers")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        if by_time:
            axes.set_xscale("log")
            log_labels(axes.xaxis)
        log_labels(axes.yaxis)

    what = "time" if by_time else "iterations"
    ends = ", ".join(f"{name} {text.figure(float(curves[name][1][-1]))}" for name in styles)
    alt = f"Gap to the least energy at equal {what}; at the end: {ends}."
    keys = looks(name.upper() for name in styles).values()
    return chart(f"race-{what}", alt, HALF, [300], draw, keys)
