"""Charts of the result: returns on every test track, and dream returns against real ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from worldmodels.metrics import Row
from worldmodels.pages import text
from worldmodels.pages.axes import column, mark_iterations, positions
from worldmodels.pages.data import Score, iteration_of, number
from worldmodels.pages.svg import COLOUR, FULL, Chart, Key, chart, stacked


def swarm(values: Sequence[float], bin_width: float) -> NDArray[np.float64]:
    """Vertical places, in dot diameters around 0, that keep dots of similar value apart.

    Args:
        values: (N,) horizontal places.
        bin_width: diameter of a dot in the unit of the values.

    Returns:
        (N,) offsets: 0, 1, -1, 2, -2, ... within each bin.
    """
    taken: dict[int, int] = {}
    places = np.zeros(len(values))
    for index in np.argsort(values, kind="stable"):
        column = int(values[index] // bin_width)
        count = taken.get(column, 0)
        places[index] = (count + 1) // 2 * (1 if count % 2 else -1)
        taken[column] = count + 1
    return places


def tracks_chart(
    score: Score, others: Sequence[Score], solved: float | None, episode: str
) -> Chart:
    """Histogram of the test returns above one dot for each episode, against other agents.

    Args:
        score: of the run's agent.
        others: what it is compared with.
        solved: return that counts as solved, for a line; None for no line.
        episode: what one episode is called.
    """
    drivers = [score, *others]
    alt = f"Return of each test {episode}. " + " ".join(
        f"{driver.name}: {len(driver.returns)} {episode}s from {min(driver.returns):.0f} to "
        f"{max(driver.returns):.0f}, mean {driver.mean:.0f}."
        for driver in drivers
    )
    tooltips = {
        f"driver{index}": [
            f"seed {seed}: {value:.1f}"
            for seed, value in zip(driver.seeds, driver.returns, strict=True)
        ]
        for index, driver in enumerate(drivers)
    }
    keys = [Key("dot", "real", f"one {episode}"), Key("diamond", "ink", "mean and its interval")]

    def draw(width: int) -> Figure:
        return _tracks(width, drivers, solved, f"{episode}s")

    return chart("tracks", alt, FULL, draw, keys, tooltips)


def _tracks(width: int, drivers: Sequence[Score], solved: float | None, episodes: str) -> Figure:
    figure, (top, bottom) = stacked(width, [110, 50 + 84 * len(drivers)])
    values = np.concatenate([driver.returns for driver in drivers])
    low, high = _padded(values.min(), max(values.max(), -np.inf if solved is None else solved))
    bins = np.linspace(low, high, 22 if width < 400 else 45)
    top.hist(drivers[0].returns, bins=list(bins), color=COLOUR["real"], alpha=0.75, rwidth=0.92)
    top.set_ylabel(episodes)
    top.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    size = 5.0 if width < 400 else 6.5
    diameter = (high - low) / width * (size + 2)
    for index, driver in enumerate(drivers):
        _driver_row(bottom, driver, index, swarm(driver.returns, diameter), size)
    if solved is not None:
        for axes in (top, bottom):
            axes.axvline(solved, color=COLOUR["muted"], linewidth=1.2, linestyle=(0, (2, 2)))
        bottom.annotate(
            f"solved: {text.score(solved)}",
            (solved, 0.0),
            xycoords=("data", "axes fraction"),
            xytext=(-5, 5),
            textcoords="offset points",
            ha="right",
            color=COLOUR["muted"],
            fontsize=12,
        )
    bottom.set(xlim=(low, high), ylim=(len(drivers) - 0.4, -0.65), yticks=[], xlabel="return")
    bottom.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text.score(value)))
    bottom.grid(True, axis="x")
    bottom.spines["left"].set_visible(False)
    return figure


def _driver_row(
    axes: Axes, driver: Score, row: int, places: NDArray[np.float64], size: float
) -> None:
    colour = COLOUR["real"] if row == 0 else COLOUR["other"]
    step = min(0.085, 0.3 / max(1.0, float(np.abs(places).max())))
    axes.scatter(
        driver.returns,
        row + step * places,
        s=size**2,
        color=colour,
        alpha=0.7,
        linewidths=0,
        gid=f"driver{row}",
    )
    axes.plot(
        [driver.mean],
        [row],
        marker="D",
        markersize=7,
        color=COLOUR["ink"],
        markeredgecolor=COLOUR["surface"],
        zorder=4,
    )
    if driver.ci95:
        axes.plot(driver.ci95, [row, row], color=COLOUR["ink"], linewidth=2.5, zorder=3)
    axes.annotate(
        f"{driver.name}: {text.score(driver.mean)}",
        (0.0, row - 0.46),
        va="center",
        xycoords=("axes fraction", "data"),
        color=COLOUR["ink"],
    )


def _padded(low: float, high: float) -> tuple[float, float]:
    pad = 0.03 * max(high - low, 1.0)
    return float(low - pad), float(high + pad)


def dream_chart(rows: Sequence[Row], bound: float | None) -> Chart:
    """Dream return and real return of each checkpoint, with the gap between them shaded.

    Args:
        rows: lines of the stage "selection", without repetitions.
        bound: a return that reality cannot exceed, if known.
    """
    final = final_selection(rows)
    alt = f"Dream return and real return of {len(rows)} checkpoints." + (
        f" The selected one has {final['dream_return']:.0f} in the dream and "
        f"{final['real_mean']:.0f} in reality."
        if final and number(final.get("dream_return"))
        else ""
    )
    keys = [
        Key("dashed", "dream", "in the dream"),
        Key("line", "real", "in reality"),
        Key("band", "dream", "the gap"),
        Key("ring", "ink", "selected"),
    ]
    if any(row.get("alarm") for row in rows):
        keys.append(Key("cross", "alarm", "alarm"))
    return chart("dream", alt, FULL, lambda width: _dream(width, rows, bound), keys)


def final_selection(rows: Sequence[Row]) -> Row | None:
    """Return the checkpoint that the run ended with: the last one that was selected."""
    chosen = [
        row for row in rows if row.get("selected") and number(row.get("real_mean")) is not None
    ]
    return chosen[-1] if chosen else None


def _dream(width: int, rows: Sequence[Row], bound: float | None) -> Figure:
    figure, (axes,) = stacked(width, [390 if width > 400 else 350])
    x, dream, real = (
        positions(rows, "generation"),
        column(rows, "dream_return"),
        column(rows, "real_mean"),
    )
    low, high = np.nanmin([dream, real]), np.nanmax([dream, real])
    limits = _padded(low, high)
    if bound is not None and bound < limits[1] + 0.6 * (high - low):
        limits = _padded(low, max(high, bound))
        axes.axhspan(bound, limits[1], color=COLOUR["alarm"], alpha=0.1, linewidth=0)
        axes.axhline(bound, color=COLOUR["alarm"], linewidth=1.4, linestyle=(0, (5, 3)))
        axes.annotate(
            f"reality ends at {text.score(bound)}",
            (1.0, bound),
            xytext=(-4, -5),
            textcoords="offset points",
            xycoords=("axes fraction", "data"),
            va="top",
            ha="right",
            color=COLOUR["alarm"],
            fontsize=12,
        )
    errors = np.nan_to_num(
        column(rows, "real_std") / np.sqrt(np.maximum(column(rows, "episodes"), 1.0))
    )
    iterations = np.array([iteration_of(row) for row in rows])
    for iteration in np.unique(iterations):
        mine = iterations == iteration
        axes.fill_between(
            x[mine], real[mine], dream[mine], color=COLOUR["dream"], alpha=0.13, linewidth=0
        )
        axes.plot(
            x[mine],
            dream[mine],
            color=COLOUR["dream"],
            linestyle=(0, (4, 1.5)),
            marker="s",
            markersize=4.5,
        )
        axes.errorbar(
            x[mine],
            real[mine],
            yerr=errors[mine],
            color=COLOUR["real"],
            marker="o",
            markersize=5,
            elinewidth=1.2,
        )
    _mark_checkpoints(axes, rows, x, dream, real)
    axes.set(ylim=limits, ylabel="return", xlabel="generation")
    if np.ptp(x) == 0:
        axes.set_xlim(x[0] - 1.5, x[0] + 1.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: text.score(value)))
    mark_iterations(axes, rows, "generation")
    return figure


def _mark_checkpoints(
    axes: Axes,
    rows: Sequence[Row],
    x: NDArray[np.float64],
    dream: NDArray[np.float64],
    real: NDArray[np.float64],
) -> None:
    """Cross out the dream returns that raised an alarm, and ring the selected checkpoint."""
    alarms = [index for index, row in enumerate(rows) if row.get("alarm")]
    axes.plot(
        x[alarms],
        dream[alarms],
        linestyle="",
        marker="X",
        markersize=10,
        zorder=5,
        color=COLOUR["alarm"],
        markeredgecolor=COLOUR["surface"],
    )
    final = final_selection(rows)
    if final is not None:
        place = rows.index(final)
        axes.plot(
            [x[place]],
            [real[place]],
            marker="o",
            markersize=14,
            markerfacecolor="none",
            markeredgecolor=COLOUR["ink"],
            markeredgewidth=2,
            linestyle="",
            zorder=6,
        )
