"""Charts of any training: one panel for each figure, above each other, over the steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from worldmodels.metrics import Row
from worldmodels.pages import text
from worldmodels.pages.axes import column, log_axis, thinned
from worldmodels.pages.data import number
from worldmodels.pages.svg import COLOUR, FULL, Chart, Key, chart, stacked

_NOT_FIGURES = ("time", "stage", "iteration")


@dataclass(frozen=True)
class Panel:
    """Lines that share an axis."""

    label: str
    """of the axis, with the unit"""
    lines: Sequence[tuple[str, str, str]]
    """(key of the metrics, label, name of a CSS variable)"""
    log: bool = True
    """use a logarithmic axis where all values are positive and differ much"""


def panels_of(rows: Sequence[Row], place: str, colour: str, most: int = 5) -> list[Panel]:
    """A panel for each figure that the rows have, in their order."""
    keys = dict.fromkeys(key for row in rows for key in row if number(row[key]) is not None)
    wanted = [key for key in keys if key not in (*_NOT_FIGURES, place)]
    changing = [key for key in wanted if np.nanstd(column(rows, key)) > 0]
    wanted = (changing or wanted)[:most]
    return [Panel(key.replace("_", " "), [(key, key, colour)]) for key in wanted]


def training_chart(
    name: str, rows: Sequence[Row], place: str, panels: Sequence[Panel]
) -> Chart | None:
    """Draw metrics over a training; None where there are fewer than two rows.

    Args:
        name: of the chart, unique on its page.
        rows: lines of metrics, oldest first.
        place: key that counts: step or epoch. Where it starts again, the lines are numbered.
        panels: what to draw, from the top.
    """
    shown = [p for p in panels if any(np.isfinite(column(rows, k)).any() for k, _, _ in p.lines)]
    if len(rows) < 2 or not shown:
        return None
    x = column(rows, place)
    rises = bool((np.diff(x) > 0).all())
    x = x if rises else np.arange(1.0, len(rows) + 1)

    def draw(width: int) -> Figure:
        figure, places = stacked(width, [200, *[130] * (len(shown) - 1)])
        for axes, panel in zip(places, shown, strict=True):
            series = [column(rows, key) for key, _, _ in panel.lines]
            for y, (_, _, colour) in zip(series, panel.lines, strict=True):
                axes.plot(*thinned(x, y), color=COLOUR[colour], linewidth=1.8)
            if panel.log:
                log_axis(axes, *series)
            axes.set_ylabel(panel.label)
        places[-1].set_xlabel(place if rises else f"line of metrics, by {place}")
        places[-1].xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        places[-1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: text.count(value)))
        return figure

    last = "; ".join(
        f"{label} {text.figure(_last(rows, key))}" for p in shown for key, label, _ in p.lines
    )
    keys = [
        Key("line", colour, label)
        for p in shown
        if len(p.lines) > 1
        for _, label, colour in p.lines
    ]
    return chart(name, f"Training over {len(rows)} records, at the end: {last}.", FULL, draw, keys)


def _last(rows: Sequence[Row], key: str) -> float | None:
    values = column(rows, key)
    values = values[np.isfinite(values)]
    return float(values[-1]) if len(values) else None
