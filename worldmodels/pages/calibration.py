"""Charts of how well M is calibrated: its errors, rewards and ends against what was recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from worldmodels.metrics import Row
from worldmodels.pages.charts import DOTTED, Floats, Style, column, label
from worldmodels.pages.svg import COLOUR, HALF, Chart, Key, chart
from worldmodels.pages.text import percent, short

RAREST = 1e-4
"""Smallest chance of an end on its chart; smaller ones are drawn there."""
RELIABILITY = (
    Key("dot", "memory", "M; the larger, the more steps"),
    Key("dotted", "muted", "perfect"),
)


def newest(lines: Sequence[Row], key: str) -> Row:
    """The last line that has the key; empty without one."""
    return next((row for row in reversed(lines) if row.get(key)), {})


def open_loop_chart(lines: Sequence[Row]) -> Chart | None:
    """Open-loop error of M, and the standard deviation that it predicts."""
    row = newest(lines, "error")
    if not row.get("horizon"):
        return None
    horizon, error, sigma = (_numbers(row, key) for key in ("horizon", "error", "sigma"))

    def draw(axes: Axes) -> None:
        axes.plot(horizon, error, color=COLOUR["memory"], marker="o")
        if len(sigma) == len(horizon):
            axes.plot(horizon, sigma, "s--", color=COLOUR["ink"], markersize=5, linewidth=1.6)
        axes.set_xscale("log")
        axes.set_xticks(list(horizon), [f"{value:g}" for value in horizon])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="x", which="minor", bottom=False)
        axes.set(xlabel="steps of M ahead, open loop", ylabel="error in z")
        axes.set_ylim(bottom=0)

    pairs = ", ".join(f"{e:.2f} after {h:g}" for h, e in zip(horizon, error, strict=True))
    keys = [Key("line", "memory", "error"), Key("dashed", "ink", "std that M predicts")]
    return chart("open-loop", f"Open-loop error of M: {pairs} steps.", HALF, [300], draw, keys)


def _numbers(row: Row, key: str) -> Floats:
    return column([{key: value} for value in row.get(key) or ()], key)


@dataclass(frozen=True, eq=False)
class Bins:
    """A line's table of reliability."""

    predicted: Floats
    observed: Floats
    steps: Floats

    @classmethod
    def of(cls, table: Row) -> Bins | None:
        """None where it is empty; without counts all bins have the same."""
        names = ("predicted", "observed", "count")
        predicted, observed, steps = (_numbers(table, name) for name in names)
        if not len(predicted):
            return None
        same = len(steps) != len(predicted)
        return cls(predicted, observed, np.ones(len(predicted)) if same else steps)

    @property
    def areas(self) -> Floats:
        """Of the dots: the larger, the more steps."""
        areas: Floats = 20 + 160 * np.sqrt(self.steps / max(float(np.nanmax(self.steps)), 1.0))
        return areas

    def tips(self, say: Callable[[float], str]) -> list[str]:
        """A text for each dot."""
        rows = zip(self.predicted, self.observed, np.nan_to_num(self.steps), strict=True)
        return [f"predicted {say(p)}, observed {say(o)}, {int(n):,} steps" for p, o, n in rows]


def reliability_chart(lines: Sequence[Row]) -> Chart | None:
    """Observed number of events by their predicted number in a step; or of rewards, like this."""
    events = Bins.of(newest(lines, "event_reliability").get("event_reliability") or {})
    bins = events or Bins.of(newest(lines, "reward_reliability").get("reward_reliability") or {})
    if bins is None:
        return None
    what, ends = ("events", [0.0, 1.0]) if events else ("reward", [])
    seen = np.concatenate([bins.predicted, bins.observed, ends])
    low, high = float(np.nanmin(seen)), float(np.nanmax(seen))
    pad = 0.05 * (high - low or 1.0)

    def draw(axes: Axes) -> None:
        axes.plot([low, high], [low, high], color=COLOUR["muted"], linewidth=1.2, linestyle=DOTTED)
        _dots(axes, bins, bins.observed, "reliability")
        axes.set(xlim=(low - pad, high + pad), ylim=(low - pad, high + 1.6 * pad))
        axes.set(xlabel=f"{what} predicted in a step", ylabel=f"{what} observed")

    points = zip(bins.predicted, bins.observed, strict=True)
    said = ", ".join(f"{o:.2f} at {p:.2f}" for p, o in points)
    alt = f"Reliability of the predicted reward, observed mean by predicted mean: {said}."
    tips = {"reliability": bins.tips("{:.2f}".format)}
    return chart("reliability", alt, HALF, [300], draw, RELIABILITY, tips)


def _dots(axes: Axes, bins: Bins, heights: Floats, name: str) -> None:
    axes.plot(bins.predicted, heights, color=COLOUR["memory"], linewidth=1.4, alpha=0.6)
    named: Style = {"color": COLOUR["memory"], "gid": name}
    axes.scatter(bins.predicted, heights, s=bins.areas, linewidths=0, zorder=3, **named)


def ends_chart(table: Row) -> Chart | None:
    """Observed fraction of ends by their predicted chance (`EndReliability`), both logarithmic."""
    bins = Bins.of(table)
    if bins is None:
        return None
    seen = np.maximum(bins.observed, RAREST)
    drawn = Bins(np.maximum(bins.predicted, RAREST), seen, bins.steps)

    def draw(axes: Axes) -> None:
        line: Style = {"color": COLOUR["muted"], "linewidth": 1.2, "linestyle": DOTTED}
        axes.plot([RAREST, 1], [RAREST, 1], **line)
        _dots(axes, drawn, drawn.observed, "ends")
        axes.set(xscale="log", yscale="log", xlim=(RAREST / 1.6, 1.6), ylim=(RAREST / 1.6, 1.8))
        axes.set(xlabel="chance of an end predicted in a step", ylabel="ends observed")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1.0,)))
            axis.set_minor_formatter(NullFormatter())
            label(axis, _chance)

    tips = {"ends": bins.tips(_chance)}
    points = zip(bins.predicted, bins.observed, strict=True)
    said = ", ".join(f"{_chance(o)} at {_chance(p)}" for p, o in points)
    alt = f"Reliability of the predicted ends, observed fraction by predicted chance: {said}."
    return chart("ends", alt, HALF, [300], draw, RELIABILITY, tips)


def _chance(value: float) -> str:
    return "0" if value <= 0 else f"{100 * value:.3g}%"


def survival_chart(table: Row) -> Chart | None:
    """Fraction of dreams and of real episodes that still run after so many steps (`Survival`)."""
    step, dream, real = (_numbers(table, key) for key in ("step", "dream", "real"))
    if not len(step) == len(dream) == len(real) or not len(step):
        return None

    def draw(axes: Axes) -> None:
        axes.fill_between(step, real, dream, color=COLOUR["dream"], alpha=0.13, linewidth=0)
        axes.plot(step, dream, color=COLOUR["dream"], linestyle=(0, (4, 1.5)))
        axes.plot(step, real, color=COLOUR["real"])
        axes.set(ylim=(-0.04, 1.06), xlabel="steps", ylabel="still running")
        label(axes.yaxis, percent)
        label(axes.xaxis, short)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))

    middle = len(step) // 2
    alt = f"Survival: after {step[middle]:.0f} steps {percent(dream[middle])} of the dreams and "
    alt += f"{percent(real[middle])} of the real episodes still run."
    keys = [Key("dashed", "dream", "in the dream"), Key("line", "real", "in reality")]
    return chart("survival", alt, HALF, [300], draw, keys)
