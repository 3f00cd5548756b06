"""Charts of a comparison, for the page (colours of its style sheet) and for paper (SVG, PNG)."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

from baselines.comparison import Comparison, Method
from baselines.results import Point
from baselines.statistics import Estimate
from worldmodels.pages.charts import (
    Interval,
    interval_height,
    intervals,
    label,
    looks,
)
from worldmodels.pages.svg import COLOUR, FULL, HALF, PAPER, Chart, Ink, Key, chart, grid, style
from worldmodels.pages.text import interval, percent, score, short
from worldmodels.runs import atomic_write

Draw = Callable[[Axes, Ink], None]
Line = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class Picture:
    """A chart before it is drawn."""

    name: str
    alt: str
    widths: Mapping[str, int]
    heights: Sequence[int]
    draw: Draw
    keys: tuple[Key, ...]

    def on_page(self) -> Chart:
        """For the template, in the colours of its style sheet."""

        def draw(axes: Axes) -> None:
            self.draw(axes, COLOUR)

        return chart(self.name, self.alt, self.widths, self.heights, draw, self.keys)

    def save(self, folder: Path) -> None:
        """As `name.svg` and `name.png` for a paper; the legend is drawn into them."""
        with matplotlib.rc_context({**style(PAPER), "svg.fonttype": "path"}):
            figure, (axes,) = grid(520, self.heights)
            self.draw(axes, PAPER)
            _legend(figure, self.keys)
            vector, pixels = io.BytesIO(), io.BytesIO()
            FigureCanvasSVG(figure).print_svg(vector, metadata={"Date": None})
            figure.set_facecolor("white")
            figure.set_dpi(220)
            FigureCanvasAgg(figure).print_png(pixels, metadata={"Software": None})
        atomic_write(folder / f"{self.name}.svg", vector.getvalue())
        atomic_write(folder / f"{self.name}.png", pixels.getvalue())


def _legend(figure: Figure, keys: Sequence[Key]) -> None:
    from matplotlib.lines import Line2D

    if not keys:
        return
    handles = []
    for key in keys:
        handle = Line2D([], [], color=PAPER[key.colour], label=key.label)
        if key.mark == "diamond":
            handle.set(marker="D", linestyle="")
        else:
            handle.set_linestyle(key.dash)
        handles.append(handle)
    figure.legend(handles=handles, loc="outside upper left", ncols=2, frameon=False)


def _looks(found: Comparison) -> dict[str, Key]:
    return looks(method.name for method in found.methods)


def pictures(found: Comparison) -> list[Picture]:
    """All charts that the results allow, in the order of the page."""
    drawn = [_curves(found, "frames"), _curves(found, "seconds"), _intervals(found)]
    drawn += [_profiles(found), _improvements(found), _differences(found)]
    return [picture for picture in drawn if picture is not None]


def _keys(found: Comparison, methods: Sequence[Method]) -> tuple[Key, ...]:
    every = _looks(found)
    return tuple(every[method.name] for method in methods)


def _place(point: Point, by: str) -> float | None:
    """Where a point lies: in frames, or in hours if its time was recorded."""
    if by == "frames":
        return float(point.real_frames)
    return None if point.seconds is None else point.seconds / 3600


def _curves(found: Comparison, by: str) -> Picture | None:
    """Mean return on selection tracks against real frames or seconds, a thin line per run."""
    lines = _lines(found, by)
    ends = _ends(found, set(lines)) if by == "frames" else {}
    if not lines and not ends:
        return None
    styles = _looks(found)

    def draw(axes: Axes, ink: Ink) -> None:
        for name, runs in lines.items():
            colour, dash = ink[styles[name].colour], styles[name].dash
            for x, y in runs:
                axes.plot(x, y, color=colour, linestyle=dash, linewidth=1, alpha=0.55)
            x, y = _average(runs)
            axes.plot(x, y, color=colour, linestyle=dash, linewidth=2.4)
        for name, points in ends.items():
            axes.plot(*np.array(points).T, color=ink[styles[name].colour], marker="D", linestyle="")
        axes.set_ylabel("return")
        label(axes.yaxis)
        axes.set_xlim(left=0)
        axes.set_xlabel("real frames" if by == "frames" else "hours of training")
        if by == "frames":
            label(axes.xaxis, short)
        axes.locator_params(axis="x", nbins=6)

    shown = [m for m in found.methods if m.name in lines or m.name in ends]
    keys = _keys(found, shown)
    if ends:
        keys += (Key("diamond", "ink", "no curve recorded: the final test"),)
    what = "real frames" if by == "frames" else "wall-clock time"
    text = "; ".join(f"{name} ends at {score(_average(r)[1][-1])}" for name, r in lines.items())
    return Picture(f"curves-{by}", f"Return against {what}. {text}.", FULL, [330], draw, keys)


def _lines(found: Comparison, by: str) -> dict[str, list[Line]]:
    """Method -> (places, means) of each run that recorded a curve."""
    lines: dict[str, list[Line]] = {}
    for method in found.methods:
        for run in method.runs:
            points = [(x, p.mean) for p in run.curve if (x := _place(p, by)) is not None]
            if points:
                x, y = np.array(points).T
                lines.setdefault(method.name, []).append((x, y))
    return lines


def _ends(found: Comparison, drawn: set[str]) -> dict[str, list[tuple[float, float]]]:
    """Method -> (cost, mean return of the test) of each run, for methods without any curve."""
    ends: dict[str, list[tuple[float, float]]] = {}
    for method in found.methods:
        for run in method.runs if method.name not in drawn else ():
            if run.cost and run.returns:
                mean = float(np.mean(list(run.returns.values())))
                ends.setdefault(method.name, []).append((run.cost, mean))
    return ends


def _average(runs: Sequence[Line]) -> Line:
    """Mean of curves over the stretch that all of them have, linear between their points."""
    low, high = max(x[0] for x, _ in runs), min(x[-1] for x, _ in runs)
    places = np.unique(np.concatenate([x for x, _ in runs]))
    places = places[(places >= low) & (places <= high)]
    if not len(places):  # stretches that do not meet: the longest run alone
        return max(runs, key=lambda run: len(run[0]))
    return places, np.mean([np.interp(places, x, y) for x, y in runs], axis=0)


def _interval(label: str, found: Estimate, look: Key) -> Interval:
    return Interval(label, found.value, found.low, found.high, look.colour)


def _intervals(found: Comparison) -> Picture | None:
    """Mean of each method with its hierarchical interval, and its IQM beside it."""
    if not found.tested:
        return None
    styles = _looks(found)
    rows = [_interval(m.name, m.figures["mean"], styles[m.name]) for m in found.tested]
    middles = [m.figures["iqm"].value for m in found.tested]

    def draw(axes: Axes, ink: Ink) -> None:
        intervals(axes, rows, middles, ink)
        axes.set_xlabel("mean return")
        label(axes.xaxis)

    text = "; ".join(f"{row.label} {interval(row.value, row.low, row.high)}" for row in rows)
    keys = (Key("diamond", "ink", "IQM: without the lowest and the highest quarter"),)
    return Picture("means", f"Mean returns: {text}.", HALF, interval_height(rows), draw, keys)


def _profiles(found: Comparison) -> Picture | None:
    """Fraction of episodes above each return."""
    if not found.profiles:
        return None
    styles = _looks(found)

    def draw(axes: Axes, ink: Ink) -> None:
        for name, (value, low, high) in found.profiles.items():
            colour = ink[styles[name].colour]
            axes.fill_between(found.thresholds, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(found.thresholds, value, color=colour, linestyle=styles[name].dash)
        axes.set(xlabel="return τ", ylabel="episodes above τ", ylim=(-0.02, 1.02))
        label(axes.xaxis)
        label(axes.yaxis, percent)

    text = "Performance profiles: the fraction of episodes above each return, method by method."
    return Picture("profiles", text, HALF, [300], draw, _keys(found, found.tested))


def _improvements(found: Comparison) -> Picture | None:
    """Chance that a run of one method beats one of another."""
    if not found.pairs:
        return None
    styles = _looks(found)
    rows = [
        _interval(f"{p.ours} over {p.theirs}", p.improvement, styles[p.ours]) for p in found.pairs
    ]

    def draw(axes: Axes, ink: Ink) -> None:
        intervals(axes, rows, ink=ink)
        axes.axvline(0.5, color=ink["muted"], linewidth=1.2, linestyle=(0, (2, 2)))
        axes.set(xlim=(-0.02, 1.02), xlabel="probability of improvement")

    text = "; ".join(f"{row.label} {row.value:.2f}" for row in rows)
    alt = f"Probability of improvement: {text}."
    return Picture("improvement", alt, HALF, interval_height(rows), draw, ())


def _differences(found: Comparison) -> Picture | None:
    """Difference on each track, for the best method against each other one."""
    if not found.pairs:
        return None
    best, styles = found.tested[0].name, _looks(found)
    pairs = [pair for pair in found.pairs if pair.ours == best]

    def draw(axes: Axes, ink: Ink) -> None:
        for pair in pairs:
            ranked = np.sort(pair.difference.differences)[::-1]
            fraction = (np.arange(len(ranked)) + 0.5) / len(ranked)
            look = styles[pair.theirs]
            axes.plot(fraction, ranked, color=ink[look.colour], linestyle=look.dash, marker=".")
        axes.axhline(0, color=ink["muted"], linewidth=1.2)
        axes.set(xlabel="tracks, sorted", ylabel="difference in return")
        label(axes.yaxis)
        label(axes.xaxis, percent)

    others = [m for m in found.methods if any(pair.theirs == m.name for pair in pairs)]
    text = f"Return of {best} less that of each other method, track by track, sorted."
    return Picture("differences", text, HALF, [300], draw, _keys(found, others))
