"""Charts of a run: how V, M and C learnt, and the returns in dream and reality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from worldmodels.evaluation.statistics import told
from worldmodels.metrics import Row, latest
from worldmodels.pages.charts import (
    DOTTED,
    Floats,
    Line,
    Panel,
    Style,
    as_rows,
    column,
    iterations,
    label,
    mark_iterations,
    name_row,
    positions,
    training_chart,
)
from worldmodels.pages.data import Score
from worldmodels.pages.svg import COLOUR, FULL, HALF, Chart, Key, chart, width_of
from worldmodels.pages.text import number, one_return, score
from worldmodels.tasks import Task

NOTE: Style = {"textcoords": "offset points", "ha": "right", "fontsize": 12}
"""How a line is named at its end."""

VISION = (
    Panel(
        "squared error",
        [
            Line("reconstruction", "training frames", "vision"),
            Line("val_reconstruction", "held-out frames", "ink", held_out=True),
        ],
    ),
    Panel("KL (nats)", [Line("kl", "KL", "vision")], log=False),
    Panel(
        "explained",
        [
            Line("val_explained", "of what changes", "ink", held_out=True),
            Line("val_explained_moving", "of what moves", "real", held_out=True),
        ],
        log=False,
    ),
)
"""Losses of V; see `worldmodels.metrics.VisionStep`."""


def _of_memory(axis: str, key: str, clipped: bool = False) -> Panel:
    training = Line(key, "training episodes", "memory")
    held_out = Line(f"val_{key}", "held-out episodes", "ink", held_out=True)
    return Panel(axis, [training, held_out], clipped=clipped)


MEMORY = (_of_memory("NLL (nats)", "nll", clipped=True), _of_memory("reward loss", "reward_loss"))
CONTROLLER = (
    Panel(
        "dream return",
        [
            Line("dream_best", "best candidate", "controller"),
            Line("dream_of_mean", "mean of the search distribution", "ink", held_out=True),
        ],
        log=False,
        band=("dream_mean", "dream_std", "population, mean ± std"),
    ),
    Panel("step size σ", [Line("sigma", "step size", "controller")]),
)


def learning_charts(metrics: Mapping[str, Sequence[Row]]) -> dict[str, Chart | None]:
    """Charts of the trainings of V, M and C, by the stage that logged them; None without lines."""
    found = {}
    for name, place, panels, widths, top in (
        ("vision", "step", VISION, HALF, 210),
        ("memory", "step", MEMORY, HALF, 210),
        ("controller", "generation", CONTROLLER, FULL, 250),
    ):
        rows, title = latest(metrics[name], place), f"Training of {name[0].upper()}"
        found[name] = training_chart(
            name, rows, place, panels, title=title, widths=widths, top=top, least=1
        )
    return found


def swarm(values: Sequence[float], bin_width: float) -> Floats:
    """Vertical offsets (N,), in dot diameters, that keep dots of similar values (N,) apart.

    They are 0, 1, -1, 2, -2, ... within each bin; ``bin_width`` is a dot's diameter.
    """
    taken: dict[int, int] = {}
    places = np.zeros(len(values))
    for index in np.argsort(values, kind="stable"):
        column = int(values[index] // bin_width)
        count = taken.get(column, 0)
        places[index] = (count + 1) // 2 * (1 if count % 2 else -1)
        taken[column] = count + 1
    return places


def episodes_chart(own: Score, others: Sequence[Score], task: Task) -> Chart:
    """Histogram of the run's test returns above one dot for each episode, against other agents."""
    agents, episode, solved = [own, *others], task.words.episode, task.solved
    alt = f"Return of each test {episode}. " + " ".join(
        f"{agent.name}: {len(agent.returns)} {episode}s from {told(min(agent.returns))} to "
        f"{told(max(agent.returns))}, mean {told(agent.mean)}."
        for agent in agents
    )
    tooltips = {
        f"agent{index}": [
            f"seed {one['seed']}: {one_return(one['return'])}" for one in agent.episodes
        ]
        for index, agent in enumerate(agents)
    }
    keys = [Key("dot", "real", f"one {episode}"), Key("diamond", "ink", "mean and its interval")]
    values = np.concatenate([agent.returns for agent in agents])
    low, high = _padded(values.min(), max(values.max(), -np.inf if solved is None else solved))

    def draw(top: Axes, bottom: Axes) -> None:
        narrow = width_of(top) < 400
        bins = list(np.linspace(low, high, 22 if narrow else 45))
        top.hist(agents[0].returns, bins=bins, color=COLOUR["real"], alpha=0.75, rwidth=0.92)
        top.set_ylabel(f"{episode}s")
        top.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
        size = 5.0 if narrow else 6.5
        diameter = (high - low) / width_of(top) * (size + 2)
        for row, agent in enumerate(agents):
            _agent_row(bottom, agent, row, swarm(agent.returns, diameter), size)
        as_rows(bottom, len(agents), 0.65)
        if solved is not None:
            for axes in (top, bottom):
                axes.axvline(solved, color=COLOUR["muted"], linewidth=1.2, linestyle=DOTTED)
            at, said = ("data", "axes fraction"), f"solved: {score(solved)}"
            bottom.annotate(said, (solved, 0.0), (-5, 5), at, color=COLOUR["muted"], **NOTE)
        bottom.set(xlim=(low, high), xlabel="return")
        label(bottom.xaxis)

    return chart("episodes", alt, FULL, [110, 50 + 84 * len(agents)], draw, keys, tooltips)


def _agent_row(axes: Axes, agent: Score, row: int, places: Floats, size: float) -> None:
    colour = COLOUR["real"] if row == 0 else COLOUR["other"]
    step = min(0.085, 0.3 / max(1.0, float(np.abs(places).max())))
    named: Style = {"color": colour, "gid": f"agent{row}"}
    heights = row + step * places
    axes.scatter(agent.returns, heights, s=size**2, alpha=0.7, linewidths=0, **named)
    ink, edge = COLOUR["ink"], COLOUR["surface"]
    axes.plot([agent.mean], [row], "D", markersize=7, color=ink, markeredgecolor=edge, zorder=4)
    if agent.ci95:
        axes.plot(agent.ci95, [row, row], color=ink, linewidth=2.5, zorder=3)
    name_row(axes, f"{agent.name}: {score(agent.mean)}", row - 0.46)


def _padded(low: float, high: float) -> tuple[float, float]:
    pad = 0.03 * max(high - low, 1.0)
    return float(low - pad), float(high + pad)


def dream_chart(rows: Sequence[Row], bound: float | None) -> Chart:
    """Dream and real return of each checkpoint (lines of "selection"), the gap between them shaded.

    ``bound`` is the largest real return, if known.
    """
    final = final_selection(rows)
    alt = f"Dream return and real return of {len(rows)} checkpoints."
    if final and number(final.get("dream_return")):
        alt += f" The selected one scores {told(final['dream_return'])} in the dream and "
        alt += f"{told(final['real_mean'])} in reality."
    keys = [
        Key("dashed", "dream", "in the dream"),
        Key("line", "real", "in reality"),
        Key("band", "dream", "the gap"),
        Key("ring", "ink", "selected"),
    ]
    if any(row.get("alarm") for row in rows):
        keys.append(Key("cross", "alarm", "alarm"))
    x = positions(rows, "generation")
    dream, real = column(rows, "dream_return"), column(rows, "real_mean")

    def draw(axes: Axes) -> None:
        limits = _limits(axes, dream, real, bound)
        _draw_gap(axes, rows, x, dream, real)
        _mark_checkpoints(axes, rows, x, dream, real)
        axes.set(ylim=limits, ylabel="return", xlabel="generation")
        if np.ptp(x) == 0:
            axes.set_xlim(x[0] - 1.5, x[0] + 1.5)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        label(axes.yaxis)
        mark_iterations(axes, rows, "generation")

    return chart("dream", alt, FULL, lambda width: [390 if width > 400 else 350], draw, keys)


def final_selection(rows: Sequence[Row]) -> Row | None:
    """Return the checkpoint that the run ended with: the last one that was selected."""
    chosen = [r for r in rows if r.get("selected") and number(r.get("real_mean")) is not None]
    return chosen[-1] if chosen else None


def _limits(axes: Axes, dream: Floats, real: Floats, bound: float | None) -> tuple[float, float]:
    """Limits of the returns; a bound that is near is in them, and drawn."""
    low, high = np.nanmin([dream, real]), np.nanmax([dream, real])
    limits = _padded(low, high)
    if bound is None or bound >= limits[1] + 0.6 * (high - low):
        return limits
    limits = _padded(low, max(high, bound))
    alarm = COLOUR["alarm"]
    axes.axhspan(bound, limits[1], color=alarm, alpha=0.1, linewidth=0)
    axes.axhline(bound, color=alarm, linewidth=1.4, linestyle=(0, (5, 3)))
    at, said = ("axes fraction", "data"), f"largest possible return {score(bound)}"
    axes.annotate(said, (1.0, bound), (-4, -5), at, va="top", color=alarm, **NOTE)
    return limits


def _draw_gap(axes: Axes, rows: Sequence[Row], x: Floats, dream: Floats, real: Floats) -> None:
    """Both returns of each iteration, with the standard error of the real ones."""
    errors = column(rows, "real_std") / np.sqrt(np.maximum(column(rows, "episodes"), 1.0))
    errors = np.nan_to_num(errors)
    dashed: Style = {"color": COLOUR["dream"], "linestyle": (0, (4, 1.5)), "markersize": 4.5}
    solid: Style = {"color": COLOUR["real"], "marker": "o", "markersize": 5, "elinewidth": 1.2}
    for mine in iterations(rows).values():
        at, above, below = x[mine], dream[mine], real[mine]
        axes.fill_between(at, below, above, color=COLOUR["dream"], alpha=0.13, linewidth=0)
        axes.plot(at, above, marker="s", **dashed)
        axes.errorbar(at, below, yerr=errors[mine], **solid)


def _mark_checkpoints(
    axes: Axes, rows: Sequence[Row], x: Floats, dream: Floats, real: Floats
) -> None:
    """Cross out the dream returns that raised an alarm, and highlight the selected checkpoint."""
    alarms = [index for index, row in enumerate(rows) if row.get("alarm")]
    cross: Style = {"markersize": 10, "markeredgecolor": COLOUR["surface"], "zorder": 5}
    axes.plot(x[alarms], dream[alarms], "X", color=COLOUR["alarm"], **cross)
    final = final_selection(rows)
    if final is not None:
        place = rows.index(final)
        around: Style = {"markersize": 14, "markerfacecolor": "none", "markeredgewidth": 2}
        edge = COLOUR["ink"]
        axes.plot([x[place]], [real[place]], "o", markeredgecolor=edge, zorder=6, **around)
