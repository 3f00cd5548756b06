"""The page of a study: what each variant is worth, by who chooses its snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from worldmodels.metrics import Row
from worldmodels.pages import text
from worldmodels.pages.document import Document, Figures, Guide, Plot, Section, Settings, Warnings
from worldmodels.pages.marks import Interval, intervals, legend, looks
from worldmodels.pages.svg import COLOUR, FULL, Chart, Key, chart, stacked
from worldmodels.pages.tables import Table, settings_tables

ENOUGH = 3
"""Evolutions of a variant from which a standard deviation means something."""
CALM = f"No warning: at least {ENOUGH} evolutions of each variant."
MOST_LINES = 6
"""Variants in the chart of the evolution: the first, and the best of the others."""
EVOLUTION = (
    "Every snapshot in the dream and on the test tracks, the mean over seeds: the first variant "
    "and the best of the others."
)
GUIDE = (
    (
        "Who chooses",
        "Each evolution leaves snapshots. Validated: the test return of the one that the selection "
        "tracks choose. Dream-selected: of the one that the dream chooses. Oracle: of the one that "
        "the test tracks themselves choose, which nobody can have.",
    ),
    (
        "The deviation",
        "Behind ±: the standard deviation over evolutions of other seeds. All of them share V and "
        "the data of one run, so another run would differ by more.",
    ),
)


def build_study(rows: Sequence[Row], cells: Sequence[Row], run: Path, out: Path) -> Path:
    """Write the page of a study.

    Args:
        rows: the summary, a row for each variant, as `worldmodels.pipeline.study.summarise` makes.
        cells: every evolution, as the study keeps them.
        run: folder of the run that is studied.
        out: file of the page.
    """
    best = max(rows, key=lambda row: float(row["validated"]))
    first, *others = sorted(rows, key=lambda row: (row is not rows[0], -float(row["validated"])))
    shown = [row["variant"] for row in (first, *others[: MOST_LINES - 1])]
    page = Document(
        f"A study of {run}",
        f"study · {len(rows)} variant{'s' if len(rows) > 1 else ''}",
        [
            f"Chosen on selection tracks, {best['variant']} drives best: "
            f"{text.spread(best['validated'], best['validated_std'])} mean test return."
        ],
        [
            Section("Result", [Plot(variants_chart(rows)), Figures(table(rows), "Variants")]),
            Section("Warnings", [Warnings(warnings(rows), CALM)]),
            Section("Evolution", [Plot(snapshots_chart(cells, shown))], EVOLUTION),
            Section("How to read this", [Guide(GUIDE)]),
            Section("Setup", [Settings(_settings(cells))]),
        ],
        "worldmodels study",
    )
    return page.write(out)


def table(rows: Sequence[Row]) -> Table:
    """The summary in words."""
    head = ["variant", "seeds", "in the dream", "validated", "dream-selected", "oracle"]
    keys = ("dream", "validated", "dreamed", "oracle")
    lines = [
        [row["variant"], str(row["seeds"])]
        + [text.spread(row[key], row[f"{key}_std"]) for key in keys]
        for row in rows
    ]
    return Table(head, lines)


def warnings(rows: Sequence[Row]) -> list[str]:
    """What makes the study less than it looks."""
    few = [row["variant"] for row in rows if row["seeds"] < ENOUGH]
    if not few:
        return []
    names = ", ".join(few)
    return [f"Fewer than {ENOUGH} evolutions of {names}: differences may be those of the seeds."]


def variants_chart(rows: Sequence[Row]) -> Chart:
    """Validated test return of each variant: mean ± std, and the oracle's."""
    styles = looks(row["variant"] for row in rows)
    marks = [
        Interval(
            row["variant"],
            row["validated"],
            row["validated"] - (row["validated_std"] or 0.0),
            row["validated"] + (row["validated_std"] or 0.0),
            styles[row["variant"]].colour,
        )
        for row in rows
    ]

    def draw(width: int) -> Figure:
        figure, (axes,) = stacked(width, [70 + 46 * len(rows)])
        intervals(axes, marks, COLOUR, width)
        oracles = [row["oracle"] for row in rows]
        axes.plot(oracles, range(len(rows)), "D", color=COLOUR["ink"], markersize=5, linestyle="")
        axes.set_xlabel("test return")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text.score(value)))
        return figure

    said = "; ".join(
        f"{row['variant']} {text.spread(row['validated'], row['validated_std'])}" for row in rows
    )
    keys = [
        Key("dot", "muted", "validated, mean ± std over seeds"),
        Key("diamond", "ink", "oracle: the best snapshot on the test tracks"),
    ]
    return chart("variants", f"Validated test returns: {said}.", FULL, draw, keys)


def snapshots_chart(cells: Sequence[Row], shown: Sequence[str]) -> Chart:
    """Returns of some variants in the dream and on the test tracks, the mean over seeds."""
    styles = looks(shown)
    generations = sorted({s["generation"] for cell in cells for s in cell["snapshots"]})

    def draw(width: int) -> Figure:
        figure, places = stacked(width, [220, 220])
        for axes, key, label in zip(
            places, ("dream", "test"), ("in the dream", "in reality"), strict=True
        ):
            for name, look in styles.items():
                x, y = _curve([cell for cell in cells if cell["variant"] == name], key)
                axes.plot(x, y, marker=".", color=COLOUR[look.colour], linestyle=look.dash)
            axes.set_ylabel(label)
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: text.score(value)))
        places[-1].set_xlabel("generation")
        if len(generations) <= 8:
            places[-1].set_xticks(generations)
        return figure

    alt = f"Dream and test returns of the snapshots of {len(styles)} variants, by generation."
    return chart("snapshots", alt, FULL, draw, legend(styles))


def _curve(cells: Sequence[Row], key: str) -> tuple[list[int], list[float]]:
    """Generations and the mean of a snapshot's figure over the cells."""
    found: dict[int, list[float]] = {}
    for cell in cells:
        for snapshot in cell["snapshots"]:
            found.setdefault(snapshot["generation"], []).append(float(np.mean(snapshot[key])))
    return sorted(found), [float(np.mean(found[generation])) for generation in sorted(found)]


def _settings(cells: Sequence[Row]) -> list[tuple[str, Table]]:
    """What each variant changed, and the versions."""
    tables = []
    for name, cell in {cell["variant"]: cell for cell in cells}.items():
        changed: Mapping[str, Any] = {
            **(cell.get("settings") or {}),
            **({"M": "of random weights"} if cell.get("untrained") else {}),
        }
        tables += settings_tables(changed or {"settings": "as the run"}, {}, {}, name)
    return tables + settings_tables({}, cells[-1].get("versions") or {}, {})
