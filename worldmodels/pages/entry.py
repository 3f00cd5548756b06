"""A finished run as an entry of docs/results: its files, and a page whose figures are theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from worldmodels.metrics import Row, read_lines
from worldmodels.pages.data import Evaluation, Ledger, Settings, read_part
from worldmodels.pages.document import render
from worldmodels.pages.text import decimals
from worldmodels.protocols import UserError
from worldmodels.runs import atomic_write
from worldmodels.tasks import named

FILES = ("config.json", "frames.json", "evaluation.json")
METRICS, RANDOM = "metrics.jsonl", "evaluation_random.json"
CONSTANT = "evaluation_constant.json"
LEFT_OUT = ("vision", "memory", "controller", "residual")
"""Lines of every step of a training."""


def enter(run: Path, page: Path, folder: Path, title: str, commit: str, notes: str = "") -> Path:
    """Make an entry of a run and return its page; an unfinished run is a `UserError`.

    Args:
        run: folder of a run whose agent was tested.
        page: Markdown file to write.
        folder: for copies of the run's files.
        title: of the page.
        commit: at which the run was made.
        notes: Markdown for the end of the page.
    """
    missing = [file for file in (*FILES, METRICS) if not (run / file).is_file()]
    if missing:
        raise UserError(f"{run} has no {', '.join(missing)}; an entry needs a run that was tested")
    text = readme(run, title, commit) + (f"\n{notes}" if notes else "")
    for file in (*FILES, RANDOM, CONSTANT):
        if (run / file).is_file():
            atomic_write(folder / file, (run / file).read_bytes())
    text_lines = (run / METRICS).read_text(encoding="utf-8").splitlines(keepends=True)
    lines = [line for line in text_lines if line.strip()]
    rows = zip(read_lines(run / METRICS), lines, strict=False)  # the last line may be torn
    kept = [line for row, line in rows if row["stage"] not in LEFT_OUT]
    atomic_write(folder / METRICS, "".join(kept))
    atomic_write(page, text)
    return page


def readme(run: Path, title: str, commit: str) -> str:
    """The text of an entry, without notes."""
    record = read_part(run / "config.json", Settings)
    tested = read_part(run / "evaluation.json", Evaluation)
    rows = read_lines(run / METRICS)
    minutes: dict[str, float] = {}
    iterations: dict[int, dict[int, Row]] = {}
    for row in rows:
        if row["stage"] == "stage":  # one that was repeated counts each time
            minutes[row["name"]] = minutes.get(row["name"], 0.0) + row["seconds"] / 60
        elif row["stage"] == "selection":
            iterations.setdefault(row["iteration"], {})[row["generation"]] = row
    residuals = [row for row in rows if row["stage"] == "residual_selection"]
    text = render(
        "entry.md.j2",
        title=title,
        commit=commit,
        cfg=record["config"],
        machine=record["machine"],
        versions=record["versions"],
        tested=tested,
        digits=decimals((tested["ci95"][1] - tested["ci95"][0]) / 2),
        task=named(None, tested["env"]),
        returns=np.array([episode["return"] for episode in tested["episodes"]]),
        lengths=np.array([episode["length"] for episode in tested["episodes"]]),
        random=read_part(run / RANDOM, Evaluation),
        constant=read_part(run / CONSTANT, Evaluation),
        totals=read_part(run / "frames.json", Ledger)["totals"],
        generations=sorted({g for found in iterations.values() for g in found}),
        iterations=dict(sorted(iterations.items())),
        residual=residuals[-1] if residuals else None,
        ensembles=[row for row in rows if row["stage"] == "ensemble_selection"],
        test_minutes=minutes.pop("test", 0.0),
        minutes=minutes,
    )
    return text + "\n"
