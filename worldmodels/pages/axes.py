"""Numbers of metric lines as arrays, and how iterations share one axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from worldmodels.metrics import Row
from worldmodels.pages import text
from worldmodels.pages.data import iteration_of, number, offsets
from worldmodels.pages.svg import COLOUR

MAX_POINTS = 240
"""A line with more points is averaged over blocks; a screen cannot show more."""


def thinned(
    x: NDArray[np.float64], y: NDArray[np.float64], limit: int = MAX_POINTS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Leave out the points where y is NaN, and average the others over blocks of equal size.

    Args:
        x: (N,) places.
        y: (N,) values.
        limit: most points to return.

    Returns:
        (M,) places and values, M <= limit.
    """
    there = np.isfinite(y)
    x, y = x[there], y[there]
    block = -(-len(x) // limit) if len(x) > limit else 1
    starts = np.arange(0, len(x), block)
    if block == 1:
        return x, y
    counts = np.diff(np.append(starts, len(x)))
    return np.add.reduceat(x, starts) / counts, np.add.reduceat(y, starts) / counts


def column(rows: Sequence[Row], key: str) -> NDArray[np.float64]:
    """Values of one key, NaN where a row lacks it."""
    values = [number(row.get(key)) for row in rows]
    return np.array([np.nan if value is None else value for value in values])


def positions(rows: Sequence[Row], key: str) -> NDArray[np.float64]:
    """Places of the rows on an axis that puts all iterations in a row."""
    shift = offsets(rows, key)
    starts = [shift.get(iteration_of(row), 0.0) for row in rows]
    return np.add(column(rows, key), starts, dtype=np.float64)


def mark_iterations(axes: Axes, rows: Sequence[Row], key: str, label: bool = True) -> None:
    """Draw a line where a new iteration begins, if there is more than one, and name them below."""
    ends: dict[int, tuple[float, float]] = {}
    for row, spot in zip(rows, positions(rows, key), strict=True):
        iteration = iteration_of(row)
        low, high = ends.get(iteration, (spot, spot))
        ends[iteration] = min(low, spot), max(high, spot)
    if len(ends) < 2:
        return
    if label:
        _make_room_below(axes)
    previous = None
    for iteration, (low, high) in sorted(ends.items()):
        start = low if previous is None else (previous + low) / 2
        if previous is not None:
            axes.axvline(start, color=COLOUR["grid"], linewidth=1.4, zorder=0.5)
        if label:
            axes.annotate(
                f"iteration {iteration}" if previous is None else f"{iteration}",
                (start, 0.0),
                xycoords=("data", "axes fraction"),
                xytext=(4, 5),
                fontsize=12,
                textcoords="offset points",
                color=COLOUR["muted"],
            )
        previous = high


def _make_room_below(axes: Axes, share: float = 0.13) -> None:
    """Lower the axis, so that a line of text fits below the data."""
    low, high = axes.get_ylim()
    if axes.get_yscale() == "log":
        axes.set_ylim(bottom=low * (low / high) ** share)
    else:
        axes.set_ylim(bottom=low - share * (high - low))


def log_labels(axis: Axis) -> None:
    """Label a logarithmic axis with plain numbers, and powers of ten where those are too long."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: text.power(value)))
    axis.set_minor_formatter(NullFormatter())


def log_axis(axes: Axes, *series: NDArray[np.float64]) -> None:
    """Use a logarithmic axis with plain numbers for positive values that differ enough."""
    values = np.concatenate([y[np.isfinite(y)] for y in series])
    if not len(values) or values.min() <= 0 or values.max() < 1.3 * values.min():
        return
    axes.set_yscale("log")
    wide = values.max() / values.min() > 20
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    log_labels(axes.yaxis)
