"""The page of a sweep: what each variant scores in each environment, over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from worldmodels.metrics import Row
from worldmodels.pages import document
from worldmodels.pages.charts import Interval, interval_height, intervals, label, looks
from worldmodels.pages.document import Block, Document, Figures, Plot, Section, Settings, Warnings
from worldmodels.pages.svg import COLOUR, FULL, Chart, Key, chart
from worldmodels.pages.text import interval, score

ENOUGH = 3
"""Fewest seeds for a meaningful interval."""
INTERVALS = (
    "Dots are means over the seeds of the runs' mean test returns, bars Student's 95% intervals "
    "of them."
)
CURVES = "Mean return of the selected controller on the selection episodes, mean over seeds."


def build_sweep(rows: Sequence[Row], cells: Sequence[Row], preset: str, out: Path) -> Path:
    """Write the page ``out`` of a sweep of a preset; ``rows`` and ``cells`` are `results`."""
    done = sum(cell["mean"] is not None for cell in cells)
    envs = list(dict.fromkeys(row["env"] for row in rows))
    conclusion = [f"{done} of {len(cells)} runs are finished."]
    sections = []
    for env in envs:
        own = [row for row in rows if row["env"] == env and row["mean"] is not None]
        if own:
            best = max(own, key=lambda row: float(row["mean"]))
            conclusion.append(f"In {env}, {best['variant']} scores best: {score(best['mean'])}.")
        sections.append(Section(env, _blocks(own, cells, env), INTERVALS if own else ""))
    page = Document(
        f"A sweep of {preset}",
        f"sweep · {len(cells)} runs",
        conclusion,
        [
            Section("Result", [Figures(_summary(rows), "Variants")]),
            Section("Warnings", [Warnings(warnings(rows, cells), "No warning: every run ended.")]),
            *sections,
            Section("Runs", [Figures(_runs(cells), "Runs")]),
            Section("Setup", [Settings(_settings(cells))]),
        ],
        "worldmodels sweep",
    )
    return page.write(out)


def warnings(rows: Sequence[Row], cells: Sequence[Row]) -> list[str]:
    """Runs that failed, and too few seeds."""
    said = [
        f"{cell['variant']} in {cell['env']}, seed {cell['seed']}, failed: {cell['error']}"
        for cell in cells
        if cell["error"]
    ]
    if few := ", ".join(row["variant"] for row in rows if row["seeds"] < ENOUGH):
        said.append(f"Fewer than {ENOUGH} seeds of {few}: differences may come from the seeds.")
    return said


def _summary(rows: Sequence[Row]) -> document.Table:
    columns: dict[str, Callable[[Row], str]] = {
        "variant": lambda row: str(row["variant"]),
        "mean (95% interval)": _mean,
        "seeds": lambda row: str(row["seeds"]),
        "environment": lambda row: str(row["env"]),
    }
    return document.table(rows, columns)


def _mean(row: Row) -> str:
    if row["ci95"] is None:
        return "–" if row["mean"] is None else score(row["mean"])
    return interval(row["mean"], *row["ci95"])


def _runs(cells: Sequence[Row]) -> document.Table:
    columns: dict[str, Callable[[Row], str]] = {
        "folder": lambda cell: str(cell["folder"]),
        "mean test return": lambda cell: "failed" if cell["mean"] is None else score(cell["mean"]),
    }
    return document.table(cells, columns)


def _blocks(rows: Sequence[Row], cells: Sequence[Row], env: str) -> list[Block]:
    if not rows:
        return []
    own = [cell for cell in cells if cell["env"] == env]
    return [Plot(means_chart(rows, env)), Plot(curves_chart(rows, own, env), caption=CURVES)]


def means_chart(rows: Sequence[Row], env: str) -> Chart:
    """Mean test return of each variant, with its interval."""
    marks = []
    for row, look in zip(rows, looks(row["variant"] for row in rows).values(), strict=True):
        low, high = row["ci95"] or (row["mean"], row["mean"])
        marks.append(Interval(row["variant"], row["mean"], low, high, look.colour))

    def draw(axes: Axes) -> None:
        intervals(axes, marks)
        axes.set_xlabel("mean test return")
        label(axes.xaxis)

    alt = "; ".join(f"{row['variant']}: {score(row['mean'])}" for row in rows)
    keys = [Key("dot", "muted", "mean over seeds, 95% interval")]
    return chart(f"means {env}", f"{alt}.", FULL, interval_height(rows), draw, keys)


def curves_chart(rows: Sequence[Row], cells: Sequence[Row], env: str) -> Chart:
    """Selection means by iteration, mean over seeds, one line for each variant."""
    styles = looks(row["variant"] for row in rows)

    def draw(axes: Axes) -> None:
        for name, look in styles.items():
            curves = [c["curve"] for c in cells if c["variant"] == name and c["curve"]]
            if not curves:
                continue
            count = min(map(len, curves))
            means = np.mean([curve[:count] for curve in curves], axis=0)
            colour = COLOUR[look.colour]
            axes.plot(range(count), means, marker=".", color=colour, linestyle=look.dash)
        axes.set_xlabel("iteration")
        axes.set_ylabel("selection return")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        label(axes.yaxis)

    alt = f"Selection returns of {len(styles)} variants by iteration."
    return chart(f"curves {env}", alt, FULL, [220], draw, styles.values())


def _settings(cells: Sequence[Row]) -> list[tuple[str, document.Table]]:
    """What each variant changed."""
    tables = []
    for name, cell in {cell["variant"]: cell for cell in cells}.items():
        changed = cell["settings"] or {"settings": "the preset's own"}
        tables += document.settings_tables(changed, name=name)
    return tables
