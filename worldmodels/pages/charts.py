"""Common parts of charts: training curves, rows of intervals, styles of series, axes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from worldmodels.metrics import Row, iteration_of
from worldmodels.pages.svg import COLOUR, DASHES, FULL, Chart, Ink, Key, chart, width_of
from worldmodels.pages.text import figure, number, power, score, short

Floats: TypeAlias = NDArray[np.float64]
Style: TypeAlias = dict[str, Any]
"""Keywords of a drawing function."""

DOTTED = (0, (2, 2))

MAX_POINTS = 240
"""Most points of a line; more are averaged over blocks."""
SERIES = ("real", "controller", "dream", "memory", "vision", "other")


def looks(names: Iterable[str]) -> dict[str, Key]:
    """How each series is drawn, in order: all colours first, then dashed, then dotted."""
    every = [(mark, colour) for mark in DASHES for colour in SERIES]
    return {name: Key(*every[k % len(every)], name) for k, name in enumerate(names)}


@dataclass(frozen=True)
class Interval:
    """A value on a line of its own."""

    label: str
    value: float
    low: float
    high: float
    colour: str
    """name of a CSS variable"""


def interval_height(rows: Sequence[object]) -> list[int]:
    """Heights of a chart of as many intervals."""
    return [70 + 46 * len(rows)]


def intervals(
    axes: Axes, rows: Sequence[Interval], diamonds: Sequence[float] = (), ink: Ink = COLOUR
) -> None:
    """Draw one line for each row, its label above it and a diamond at a second value, if any."""
    room = width_of(axes) // 8  # characters
    for place, row in enumerate(rows):
        colour = ink[row.colour]
        axes.plot([row.low, row.high], [place, place], color=colour, linewidth=5, alpha=0.4)
        axes.plot([row.value], [place], "o", color=colour, markersize=7)
        label = row.label if len(row.label) <= room else f"{row.label[: room - 1]}…"
        name_row(axes, label, place - 0.36, ink)
    axes.plot(diamonds, range(len(diamonds)), "D", color=ink["ink"], markersize=5)
    as_rows(axes, len(rows), 0.75)


def name_row(axes: Axes, label: str, y: float, ink: Ink = COLOUR) -> None:
    """Write a label at the left end of a row."""
    at = ("axes fraction", "data")
    axes.annotate(label, (0.0, y), xycoords=at, color=ink["ink"], va="center", in_layout=False)


def as_rows(axes: Axes, count: int, above: float) -> None:
    """Make y an axis of rows from the top, with no numbers."""
    axes.set(yticks=[], ylim=(count - 0.4, -above))
    axes.grid(True, axis="x")
    axes.spines["left"].set_visible(False)


def label(axis: Axis, say: Callable[[float], str] | None = None) -> None:
    """Write the numbers of an axis in a format of `worldmodels.pages.text`.

    The default is that of returns, with as many digits as tell neighbours apart.
    """

    def told(value: float, _: object) -> str:
        places = axis.get_majorticklocs()
        exact = (n for n in range(3) if np.allclose(places, np.round(places, n), rtol=0, atol=1e-6))
        return score(value, next(exact, 3))

    axis.set_major_formatter(told if say is None else lambda value, _: say(value))


def log_labels(axis: Axis) -> None:
    """Label a logarithmic axis with plain numbers, and powers of ten where those are too long."""
    label(axis, power)
    axis.set_minor_formatter(NullFormatter())


def log_axis(axes: Axes, values: Floats) -> None:
    """Use a logarithmic axis for finite values (N,), if they differ enough."""
    if not len(values) or values.min() <= 0 or values.max() < 1.3 * values.min():
        return
    axes.set_yscale("log")
    wide = values.max() / values.min() > 20
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    log_labels(axes.yaxis)


def thinned(x: Floats, y: Floats, limit: int = MAX_POINTS) -> tuple[Floats, Floats]:
    """Average x (N,) and y (N,) over equal blocks, without NaN, to ``limit`` points."""
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    starts = np.arange(0, len(x), -(-len(x) // limit) or 1)
    counts = np.diff(np.append(starts, len(x)))
    if not len(x):
        return x, y
    return np.add.reduceat(x, starts) / counts, np.add.reduceat(y, starts) / counts


def column(rows: Sequence[Row], key: str) -> Floats:
    """(N,) values of one key, NaN where a row lacks it."""
    values = [number(row.get(key)) for row in rows]
    return np.array([np.nan if value is None else value for value in values])


def iterations(rows: Sequence[Row]) -> dict[int, NDArray[np.bool_]]:
    """Iteration, in order -> (N,) which of the rows are its own."""
    owners = np.array([iteration_of(row) for row in rows])
    return {int(k): owners == k for k in np.unique(owners)}


def positions(rows: Sequence[Row], key: str) -> Floats:
    """(N,) places of the rows on one axis for all iterations.

    A counter that restarts in an iteration is shifted behind the previous one.
    """
    x = column(rows, key)
    shift, last = 0.0, -np.inf
    for mine in iterations(rows).values():
        own = x[mine & np.isfinite(x)]
        if len(own):
            shift += last if own.min() <= last else 0.0
            last = own.max()
        x[mine] += shift
    return x


def mark_iterations(axes: Axes, rows: Sequence[Row], key: str, named: bool = True) -> None:
    """Draw a line where a new iteration begins, if there is more than one, and name them below."""
    x, owners = positions(rows, key), iterations(rows)
    if len(owners) < 2:
        return
    if named:
        _make_room_below(axes)
    previous = None
    for iteration, mine in owners.items():
        low, high = x[mine].min(), x[mine].max()
        start = low if previous is None else (previous + low) / 2
        if previous is not None:
            axes.axvline(start, color=COLOUR["grid"], linewidth=1.4, zorder=0.5)
        if named:
            said = f"iteration {iteration}" if previous is None else f"{iteration}"
            at, muted = ("data", "axes fraction"), COLOUR["muted"]
            axes.annotate(said, (start, 0.0), (4, 5), at, "offset points", fontsize=12, color=muted)
        previous = high


def _make_room_below(axes: Axes, fraction: float = 0.13) -> None:
    """Lower the axis, so that a line of text fits below the data."""
    low, high = axes.get_ylim()
    if axes.get_yscale() == "log":
        axes.set_ylim(bottom=low * (low / high) ** fraction)
    else:
        axes.set_ylim(bottom=low - fraction * (high - low))


@dataclass(frozen=True)
class Line:
    """One figure of the metrics over a training."""

    key: str
    """of the metrics"""
    label: str
    colour: str
    """name of a CSS variable"""
    held_out: bool = False
    """measured now and then: thin, with dots"""


@dataclass(frozen=True)
class Panel:
    """Lines that share an axis."""

    label: str
    """of the axis, with the unit"""
    lines: Sequence[Line]
    log: bool = True
    """use a logarithmic axis if all values are positive and differ much"""
    band: tuple[str, str, str] | None = None
    """keys of a mean and a standard deviation around the first line, and what they are"""
    clipped: bool = False
    """let the first few values leave the frame, so that the rest can be read"""


def panels_of(rows: Sequence[Row], place: str, colour: str, most: int = 5) -> list[Panel]:
    """A panel for each figure that the rows have, in their order."""
    keys = dict.fromkeys(key for row in rows for key in row if number(row[key]) is not None)
    wanted = [key for key in keys if key not in ("time", "stage", "iteration", place)]
    changing = [key for key in wanted if np.nanstd(column(rows, key)) > 0]
    wanted = (changing or wanted)[:most]
    return [Panel(key.replace("_", " "), [Line(key, key, colour)]) for key in wanted]


def training_chart(
    name: str,
    rows: Sequence[Row],
    place: str,
    panels: Sequence[Panel],
    *,
    title: str = "Training",
    widths: Mapping[str, int] = FULL,
    top: int = 210,
    least: int = 2,
) -> Chart | None:
    """Draw metrics over a training, panels above each other; None if there is nothing to draw.

    Args:
        name: of the chart, unique on its page.
        rows: lines of metrics, oldest first.
        place: key that counts (step, epoch, generation); lines are numbered where it restarts.
        panels: from the top; lines without values are left out.
        title: of the text alternative.
        widths: screen classes -> width in CSS pixels.
        top: height of the first panel in CSS pixels.
        least: minimum number of rows.
    """
    there = [
        replace(panel, lines=[line for line in panel.lines if len(_values(rows, line.key))])
        for panel in panels
    ]
    shown = [panel for panel in there if panel.lines]
    if len(rows) < least or not shown:
        return None
    x = positions(rows, place)
    rises = bool((np.diff(x) > 0).all())
    x = x if rises else np.arange(1.0, len(rows) + 1)

    def draw(*places: Axes) -> None:
        for axes, panel in zip(places, shown, strict=True):
            _draw_panel(axes, panel, rows, x)
            if rises:
                mark_iterations(axes, rows, place, named=axes is places[0])
        counted = "training step" if place == "step" else place
        places[-1].set_xlabel(counted if rises else f"line of metrics, by {place}")
        ticks = MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10], integer=True)
        places[-1].xaxis.set_major_locator(ticks)
        label(places[-1].xaxis, short)

    last = "; ".join(
        f"{line.label} {figure(float(_values(rows, line.key)[-1]))}"
        for panel in shown
        for line in panel.lines
    )
    alt = f"{title} over {len(rows)} records, at the end: {last}."
    keys = dict.fromkeys(key for panel in shown for key in _keys(panel))
    return chart(name, alt, widths, [top, *[120] * (len(shown) - 1)], draw, list(keys))


def _draw_panel(axes: Axes, panel: Panel, rows: Sequence[Row], x: Floats) -> None:
    first = panel.lines[0]
    if panel.band:
        mean, std = (column(rows, key) for key in panel.band[:2])
        colour = COLOUR[first.colour]
        axes.fill_between(x, mean - std, mean + std, color=colour, alpha=0.18, linewidth=0)
    for line in panel.lines:
        y = column(rows, line.key)
        for mine in iterations(rows).values():
            points = thinned(x[mine], y[mine])
            marker = "o" if len(points[0]) <= (30 if line.held_out else 1) else ""
            width = 1.4 if line.held_out else 1.8
            colour = COLOUR[line.colour]
            axes.plot(*points, color=colour, linewidth=width, marker=marker, markersize=3.2)
    axes.yaxis.set_major_formatter("{x:,g}")
    values = _values(rows, first.key)
    if panel.clipped and len(values) >= 20:
        low, high = float(values.min()), float(np.percentile(values, 96))
        axes.set_ylim(low - 0.06 * (high - low), high + 0.1 * (high - low))
    elif panel.log and not panel.clipped:
        log_axis(axes, np.concatenate([_values(rows, line.key) for line in panel.lines]))
    axes.set_ylabel(panel.label)


def _keys(panel: Panel) -> list[Key]:
    """Keys of a panel with several marks; the label of its axis names a single one."""
    keys = [Key("line", line.colour, line.label) for line in panel.lines]
    keys += [Key("band", panel.lines[0].colour, panel.band[2])] if panel.band else []
    return keys if len(keys) > 1 else []


def _values(rows: Sequence[Row], key: str) -> Floats:
    values = column(rows, key)
    return values[np.isfinite(values)]
