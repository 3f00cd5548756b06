"""Charts of the training: how V, M and C learnt, and how far M can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from worldmodels.metrics import Row
from worldmodels.pages.axes import column, log_axis, mark_iterations, positions, thinned
from worldmodels.pages.data import iteration_of, latest, number
from worldmodels.pages.svg import COLOUR, FULL, HALF, Chart, Key, chart, stacked
from worldmodels.pages.text import score


def _line(
    axes: Axes, rows: Sequence[Row], place: str, key: str, colour: str, held_out: bool = False
) -> None:
    """Draw one metric over all iterations; the line breaks where a new iteration begins."""
    spots, values = positions(rows, place), column(rows, key)
    iterations = np.array([iteration_of(row) for row in rows])
    for iteration in np.unique(iterations):
        mine = iterations == iteration
        x, y = thinned(spots[mine], values[mine])
        if not len(x):
            continue
        marker = "o" if held_out and len(x) <= 30 else ""
        axes.plot(
            x,
            y,
            color=COLOUR[colour],
            linewidth=1.4 if held_out else 1.8,
            marker=marker,
            markersize=3.2,
        )


def _thousands(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:g}")
    )
    axes.locator_params(axis="x", nbins=6)


def _last(rows: Sequence[Row], key: str) -> str:
    values = column(rows, key)
    values = values[np.isfinite(values)]
    return f"{values[-1]:.3g}" if len(values) else "unknown"


def _held_out(rows: Sequence[Row], key: str, label: str) -> list[Key]:
    return [Key("line", "ink", label)] if np.isfinite(column(rows, key)).any() else []


def vision_chart(lines: Sequence[Row]) -> Chart | None:
    """Reconstruction error of V on trained and on held-out frames, and its KL term."""
    rows = latest(lines, "step")
    if not rows:
        return None

    def draw(width: int) -> Figure:
        figure, (top, bottom) = stacked(width, [210, 120])
        _line(top, rows, "step", "reconstruction", "vision")
        _line(top, rows, "step", "val_reconstruction", "ink", True)
        log_axis(top, column(rows, "reconstruction"), column(rows, "val_reconstruction"))
        _line(bottom, rows, "step", "kl", "vision")
        return _finish(figure, top, bottom, rows, ("squared error", "KL (nats)"))

    alt = f"V: squared error per image, held out {_last(rows, 'val_reconstruction')} at the end."
    keys = [Key("line", "vision", "training frames")]
    keys += _held_out(rows, "val_reconstruction", "held-out frames")
    return chart("vision", alt, HALF, draw, keys)


def memory_chart(lines: Sequence[Row]) -> Chart | None:
    """Negative log-likelihood of M on trained and held-out sequences, and its reward loss."""
    rows = latest(lines, "step")
    if not rows:
        return None

    def draw(width: int) -> Figure:
        figure, (top, bottom) = stacked(width, [210, 120])
        _line(top, rows, "step", "nll", "memory")
        _line(top, rows, "step", "val_nll", "ink", True)
        _clip_start(top, column(rows, "nll"))
        _line(bottom, rows, "step", "reward_loss", "memory")
        _line(bottom, rows, "step", "val_reward_loss", "ink", True)
        log_axis(bottom, column(rows, "reward_loss"), column(rows, "val_reward_loss"))
        return _finish(figure, top, bottom, rows, ("NLL (nats)", "reward loss"))

    alt = f"M: negative log-likelihood, held out {_last(rows, 'val_nll')} at the end."
    keys = [Key("line", "memory", "training episodes")]
    keys += _held_out(rows, "val_nll", "held-out episodes")
    return chart("memory", alt, HALF, draw, keys)


def _clip_start(axes: Axes, values: NDArray[np.float64]) -> None:
    """Let the first few losses leave the frame, so that the rest of the curve can be read."""
    values = values[np.isfinite(values)]
    if len(values) < 20:
        return
    low, high = float(values.min()), float(np.percentile(values, 96))
    axes.set_ylim(low - 0.06 * (high - low), high + 0.1 * (high - low))


def _finish(
    figure: Figure, top: Axes, bottom: Axes, rows: Sequence[Row], labels: tuple[str, str]
) -> Figure:
    top.set_ylabel(labels[0])
    bottom.set_ylabel(labels[1])
    bottom.set_xlabel("training step")
    _thousands(bottom)
    mark_iterations(top, rows, "step")
    mark_iterations(bottom, rows, "step", label=False)
    return figure


def controller_chart(lines: Sequence[Row]) -> Chart | None:
    """Dream returns of each generation of C, and the step size of the evolution."""
    rows = latest(lines, "generation")
    if not rows:
        return None

    def draw(width: int) -> Figure:
        figure, (top, bottom) = stacked(width, [250, 110])
        x, mean, std = (
            positions(rows, "generation"),
            column(rows, "dream_mean"),
            column(rows, "dream_std"),
        )
        top.fill_between(
            x, mean - std, mean + std, color=COLOUR["controller"], alpha=0.18, linewidth=0
        )
        _line(top, rows, "generation", "dream_best", "controller")
        _line(top, rows, "generation", "dream_of_mean", "ink", True)
        top.set_ylabel("dream return")
        top.yaxis.set_major_formatter(FuncFormatter(lambda value, _: score(value)))
        _line(bottom, rows, "generation", "sigma", "controller")
        log_axis(bottom, column(rows, "sigma"))
        bottom.set(ylabel="step size σ", xlabel="generation")
        bottom.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        mark_iterations(top, rows, "generation")
        mark_iterations(bottom, rows, "generation", label=False)
        return figure

    best = _last(rows, "dream_best")
    alt = f"C: dream return over {len(rows)} generations, best at the end {best}."
    keys = [
        Key("line", "controller", "best candidate"),
        Key("band", "controller", "population, mean ± std"),
        Key("line", "ink", "mean of the search distribution"),
    ]
    return chart("controller", alt, FULL, draw, keys)


def _newest(lines: Sequence[Row], needed: Callable[[Row], object]) -> Row | None:
    found = [row for row in lines if needed(row)]
    return found[-1] if found else None


def _numbers(values: object) -> NDArray[np.float64]:
    items = values if isinstance(values, Sequence) else ()
    return np.array([np.nan if number(item) is None else float(item) for item in items])


def open_loop_chart(lines: Sequence[Row]) -> Chart | None:
    """Error of M that runs on its own predictions, against the spread it predicts."""
    row = _newest(lines, lambda line: line.get("horizon") and line.get("error"))
    if row is None:
        return None
    horizon, error, sigma = (_numbers(row.get(key)) for key in ("horizon", "error", "sigma"))

    def draw(width: int) -> Figure:
        figure, (axes,) = stacked(width, [300])
        axes.plot(horizon, error, color=COLOUR["memory"], marker="o")
        if len(sigma) == len(horizon):
            axes.plot(
                horizon,
                sigma,
                color=COLOUR["ink"],
                marker="s",
                markersize=5,
                linestyle="--",
                linewidth=1.6,
            )
        axes.set_xscale("log")
        axes.set_xticks(list(horizon), [f"{value:g}" for value in horizon])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="x", which="minor", bottom=False)
        axes.set(xlabel="steps of M ahead, without looking", ylabel="error in z")
        axes.set_ylim(bottom=0)
        return figure

    pairs = ", ".join(f"{e:.2f} after {h:g}" for h, e in zip(horizon, error, strict=True))
    keys = [Key("line", "memory", "error"), Key("dashed", "ink", "spread that M predicts")]
    return chart("open-loop", f"Open-loop error of M: {pairs} steps.", HALF, draw, keys)


def reliability_chart(lines: Sequence[Row]) -> Chart | None:
    """How often events come where M says they will, by their predicted number in a step."""
    row = _newest(lines, lambda line: line.get("hit_reliability"))
    table = row.get("hit_reliability") if row else None
    if not isinstance(table, Mapping) or not table.get("predicted"):
        return None
    predicted, observed, count = (
        _numbers(table.get(key)) for key in ("predicted", "observed", "count")
    )
    if len(count) != len(predicted):
        count = np.ones(len(predicted))
    top = max(1.0, float(np.nanmax(predicted)), float(np.nanmax(observed)))

    def draw(width: int) -> Figure:
        figure, (axes,) = stacked(width, [300])
        axes.plot([0, top], [0, top], color=COLOUR["muted"], linewidth=1.2, linestyle=(0, (2, 2)))
        axes.plot(predicted, observed, color=COLOUR["memory"], linewidth=1.4, alpha=0.6)
        areas = 20 + 160 * np.sqrt(count / max(np.nanmax(count), 1.0))
        axes.scatter(
            predicted,
            observed,
            s=areas,
            color=COLOUR["memory"],
            linewidths=0,
            zorder=3,
            gid="reliability",
        )
        axes.set(
            xlim=(-0.04 * top, 1.04 * top),
            ylim=(-0.05 * top, 1.08 * top),
            xlabel="hits predicted in a step",
            ylabel="hits observed",
        )
        return figure

    points = ", ".join(f"{o:.2f} at {p:.2f}" for p, o in zip(predicted, observed, strict=True))
    tips = [
        f"predicted {p:.2f}, observed {o:.2f}, {int(n):,} steps"
        for p, o, n in zip(predicted, observed, np.nan_to_num(count), strict=True)
    ]
    alt = f"Reliability of the predicted reward event, observed rate by predicted rate: {points}."
    keys = [
        Key("dot", "memory", "M; the larger, the more steps"),
        Key("dotted", "muted", "perfect"),
    ]
    return chart("reliability", alt, HALF, draw, keys, {"reliability": tips})
