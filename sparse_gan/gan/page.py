"""Common parts of the pages about GANs: tables of figures and pictures of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from worldmodels.pages import text
from worldmodels.pages.charts import (
    Interval,
    Line,
    Panel,
    interval_height,
    intervals,
    log_labels,
)
from worldmodels.pages.document import Figures, Media, Table, drawn
from worldmodels.pages.svg import FULL, Chart, chart

DEVIATION = "_deviation"
"""In the name of a figure: the standard error of the figure without it."""

PANELS = (
    Panel(
        "energy",
        [Line("energy_real", "real pictures", "real"), Line("energy_fake", "samples", "dream")],
        log=False,
    ),
    Panel("loss of F", [Line("energy_loss", "loss of F", "memory")], log=False),
    Panel("loss of G", [Line("generator_loss", "loss of G", "controller")], log=False),
)
"""Charts of a training: see `sparse_gan.gan.train.GANStep`."""
NAMES = {"frechet_distance": "Fréchet distance", "kid": "KID", "kl": "KL", "auroc": "AUROC"}
"""Figures that are not called what their words are."""
MOST_IN_ONE_LINE = 4
"""Columns in which an error has room beside its figure."""
DISTANCE = (
    "Distance to held-out pictures. That of training pictures is the best that can be expected of "
    "samples. Figures of different extractors cannot be compared."
)
ENERGY = (
    "Mean energy of pictures that F was not trained on, and the probability that it is above that "
    "of a real held-out picture. F has only seen data and samples of G."
)
GROWTH = "The same noise throughout, used for nothing else."


def conclusion(distances: Mapping[str, Mapping[str, float]]) -> str:
    """Distances of samples to real pictures, beside those of training pictures."""
    name = next(key for key in distances["samples"] if key.startswith("frechet_distance["))
    ours, mark = (row[name] for row in distances.values())
    return (
        f"The samples are at a Fréchet distance of {text.figure(ours)} from held-out pictures; "
        f"training pictures are at {text.figure(mark)}."
    )


def figures(
    rows: Mapping[str, Mapping[str, float]], label: str, head: str = "", note: str = ""
) -> Figures:
    """A table of figures by name; errors stand beside their figure, in many columns below it.

    The longer of both lists makes the rows, so that the table is high and not wide.
    """
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    shown = [name for name in columns if DEVIATION not in name]
    extractors = {name.partition("[")[2] for name in shown} - {""}
    heads = [words(column, len(extractors) > 1).replace(" (", "\n(") for column in shown]
    if len(shown) > len(rows):
        error = "\n± " if len(rows) > MOST_IN_ONE_LINE else " ± "
        lines = [
            [title, *(_cell(row, column).replace(" ± ", error) for row in rows.values())]
            for title, column in zip(heads, shown, strict=True)
        ]
        return Figures(Table([head, *rows], lines), label, note)
    lines = [[name, *(_cell(row, column) for column in shown)] for name, row in rows.items()]
    return Figures(Table([head, *heads], lines), label, note)


def _cell(row: Mapping[str, float], column: str) -> str:
    if column not in row:
        return text.MISSING
    name, bracket, extractor = column.partition("[")
    error = row.get(f"{name}{DEVIATION}{bracket}{extractor}")
    return text.figure(row[column]) if error is None else text.spread(row[column], error)


def words(name: str, whole: bool = True) -> str:
    """A figure such as ``kid[random-conv-64-0]`` in words, ``whole`` with its extractor."""
    kind, _, extractor = name.rstrip("]").partition("[")
    kind = NAMES.get(kind, kind.replace("_", " "))
    return f"{kind} ({extractor})" if extractor and whole else kind


def distance_chart(found: Mapping[str, Mapping[str, float]]) -> Chart:
    """Fréchet distance of sets of pictures by the first extractor, on a logarithmic axis.

    Sets are coloured by the word that their name begins with.
    """
    name = next(k for row in found.values() for k in row if k.startswith("frechet_distance["))
    values = {what: row[name] for what, row in found.items() if row.get(name, 0) > 0}
    colours = {"GAN": "dream", "samples": "dream", "VAE": "vision"}
    rows = [
        Interval(what, value, value, value, colours.get(what.split()[0], "real"))
        for what, value in values.items()
    ]

    def draw(axes: Axes) -> None:
        intervals(axes, rows)
        axes.set(xscale="log", xlabel="Fréchet distance, logarithmic; lower is better")
        log_labels(axes.xaxis)

    said = ", ".join(f"{what} {text.figure(value)}" for what, value in values.items())
    alt = f"Fréchet distance to held-out pictures: {said}."
    return chart("distance", alt, FULL, interval_height(rows), draw)


def sheets(
    pictures: Sequence[tuple[str, str, NDArray[np.uint8]]],
    layout: Literal["stack", "beside"] = "stack",
) -> Media:
    """Pictures (H, W, 3), each with its title and caption."""
    return Media([drawn(picture, title, said) for title, said, picture in pictures], layout)
