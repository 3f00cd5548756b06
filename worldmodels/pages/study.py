"""The page of a study: what each variant is worth, by who chooses its snapshot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from worldmodels.metrics import Row, VariantRow
from worldmodels.pages import document
from worldmodels.pages.charts import Interval, interval_height, intervals, label, looks
from worldmodels.pages.document import Document, Figures, Guide, Plot, Section, Settings, Warnings
from worldmodels.pages.svg import COLOUR, FULL, Chart, Key, chart
from worldmodels.pages.text import spread

ENOUGH = 3
"""Fewest evolutions of a variant for a meaningful standard deviation."""
CALM = f"No warning: at least {ENOUGH} evolutions of each variant."
MOST_LINES = 6
"""Variants in the chart of the evolution: the first, and the best of the others."""
EVOLUTION = (
    "Every snapshot in the dream and on the test episodes, mean over seeds: the first variant and "
    "the best of the others."
)
GUIDE = (
    (
        "Who chooses",
        "Each evolution leaves snapshots. Validated: test return of the best snapshot on the "
        "selection episodes. Dream-selected: of the best one in the dream. Oracle: of the best one "
        "on the test episodes themselves, an upper bound.",
    ),
    (
        "The standard deviation",
        "Behind ±: over evolutions of different seeds. All use V and the data of one run; another "
        "run would differ by more.",
    ),
)


def build_study(
    rows: Sequence[VariantRow], cells: Sequence[Row], run: Path, out: Path, running: str = ""
) -> Path:
    """Write the page ``out`` of a study of ``run``.

    ``rows`` is the summary, one row per variant; ``cells`` are all evolutions. The page of a study
    that lasts says what is ``running``, and reloads itself.
    """
    best = max(rows, key=lambda row: float(row["validated"]))
    first, *others = sorted(rows, key=lambda row: (row is not rows[0], -float(row["validated"])))
    shown = [row["variant"] for row in (first, *others[: MOST_LINES - 1])]
    result = f"{spread(best['validated'], best['validated_std'])} mean test return"
    beside = f"; {first['variant']}: {spread(first['validated'], first['validated_std'])}"
    page = Document(
        f"A study of {run.name or run}",
        f"study · {len(rows)} variant{'s' if len(rows) > 1 else ''}",
        [
            f"Chosen on selection episodes, {best['variant']} scores best: {result}"
            f"{beside if best is not first else ''}."
        ],
        [
            Section("Result", [Plot(variants_chart(rows)), Figures(_summary(rows), "Variants")]),
            Section("Warnings", [Warnings(warnings(rows), CALM)]),
            Section("Evolution", [Plot(snapshots_chart(cells, shown))], EVOLUTION),
            Section("How to read this", [Guide(GUIDE)]),
            Section("Setup", [Settings(_settings(cells, run))]),
        ],
        "worldmodels study",
        running,
    )
    return page.write(out)


def _summary(rows: Sequence[VariantRow]) -> document.Table:
    columns: dict[str, Callable[[VariantRow], str]] = {
        "variant": lambda row: str(row["variant"]),
        "seeds": lambda row: str(row["seeds"]),
        "in the dream": lambda row: spread(row["dream"], row["dream_std"]),
        "validated": lambda row: spread(row["validated"], row["validated_std"]),
        "dream-selected": lambda row: spread(row["dreamed"], row["dreamed_std"]),
        "oracle": lambda row: spread(row["oracle"], row["oracle_std"]),
    }
    return document.table(rows, columns)


def warnings(rows: Sequence[VariantRow]) -> list[str]:
    """Limits of the study."""
    few = ", ".join(row["variant"] for row in rows if row["seeds"] < ENOUGH)
    said = f"Fewer than {ENOUGH} evolutions of {few}: differences may come from the seeds."
    return [said] if few else []


def variants_chart(rows: Sequence[VariantRow]) -> Chart:
    """Validated test return of each variant: mean ± std, and the oracle's."""
    marks = []
    for row, look in zip(rows, looks(row["variant"] for row in rows).values(), strict=True):
        value, std = row["validated"], row["validated_std"] or 0.0
        marks.append(Interval(row["variant"], value, value - std, value + std, look.colour))

    def draw(axes: Axes) -> None:
        intervals(axes, marks, [row["oracle"] for row in rows])
        axes.set_xlabel("test return")
        label(axes.xaxis)

    said = "; ".join(f"{r['variant']} {spread(r['validated'], r['validated_std'])}" for r in rows)
    keys = [
        Key("dot", "muted", "validated, mean ± std over seeds"),
        Key("diamond", "ink", "oracle: the best snapshot on the test episodes"),
    ]
    alt = f"Validated test returns: {said}."
    return chart("variants", alt, FULL, interval_height(rows), draw, keys)


def snapshots_chart(cells: Sequence[Row], shown: Sequence[str]) -> Chart:
    """Returns of some variants in the dream and on the test episodes, mean over seeds."""
    styles = looks(shown)
    generations = sorted({s["generation"] for cell in cells for s in cell["snapshots"]})

    def draw(dream: Axes, test: Axes) -> None:
        for axes, key, title in ((dream, "dream", "in the dream"), (test, "test", "in reality")):
            for name, look in styles.items():
                x, y = _curve([cell for cell in cells if cell["variant"] == name], key)
                axes.plot(x, y, marker=".", color=COLOUR[look.colour], linestyle=look.dash)
            axes.set_ylabel(title)
            label(axes.yaxis)
        test.set_xlabel("generation")
        if len(generations) <= 8:
            test.set_xticks(generations)

    alt = f"Dream and test returns of the snapshots of {len(styles)} variants, by generation."
    return chart("snapshots", alt, FULL, [220, 220], draw, styles.values())


def _curve(cells: Sequence[Row], key: str) -> tuple[list[int], list[float]]:
    """Generations and the mean of a snapshot's figure over the cells."""
    found: dict[int, list[float]] = {}
    for cell in cells:
        for snapshot in cell["snapshots"]:
            found.setdefault(snapshot["generation"], []).append(float(np.mean(snapshot[key])))
    return sorted(found), [float(np.mean(found[generation])) for generation in sorted(found)]


def _settings(cells: Sequence[Row], run: Path) -> list[tuple[str, document.Table]]:
    """What each variant changed, and the versions."""
    tables = []
    for name, cell in {cell["variant"]: cell for cell in cells}.items():
        changed = dict(cell.get("settings") or {})
        changed |= {"M": "of random weights"} if cell.get("untrained") else {}
        tables += document.settings_tables(changed or {"settings": "same as the run"}, name=name)
    tables += document.settings_tables({"folder": str(run)}, name="run")
    return tables + document.settings_tables({}, cells[-1].get("versions"))
