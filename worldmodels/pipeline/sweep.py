"""Sweeps: one run for each seed, setting and environment, each on one worker.

A cell is `worldmodels run` in a process of its own, in a folder of its own: a crash of it is its
own, and the command resumes it. A worker that sees the sweep's folder works in it; one on a machine
without it works in a temporary folder and sends the finished run home, without its episodes.
"""

from __future__ import annotations

import io
import math
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from worldmodels.evaluation.statistics import told
from worldmodels.executors import Executor, WorkerDied
from worldmodels.executors.processes import PATIENCE, die_with_parent
from worldmodels.metrics import read_metrics
from worldmodels.runs import atomic_write, config_hash, make_folder, read_json

RESULT, REPORT, LOG = "evaluation.json", "report.html", "output.log"
LEFT_BEHIND = ("experience", "checkpoints")
"""Folders of a run that stay on a machine without the sweep's folder."""
MARK = ".sweep"
"""File by which a worker knows the sweep's folder."""


@dataclass(frozen=True)
class Cell:
    """One run."""

    env: str
    variant: str
    seed: int
    words: tuple[str, ...]
    """of `worldmodels run`, but its folder; the last two are the seed"""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """that the variant changes"""

    def __repr__(self) -> str:
        """What errors call it."""
        return f"{self.env}, {self.variant}, seed {self.seed}"

    @property
    def name(self) -> str:
        """Its folder's name."""
        plain = re.sub(r"[^\w.]+", "-", f"{self.env} {self.variant}").strip("-")[-60:]
        return f"{plain}-{config_hash(self.words[:-2])[:6]}-seed-{self.seed}"


class Outcome(NamedTuple):
    """How a cell ended."""

    error: str
    """its last line; empty if it is done"""
    files: bytes
    """the run folder as a tar; empty where it is in its place already"""


def run_cells(cells: Sequence[Cell], out: Path, executor: Executor) -> dict[int, str]:
    """Run what is not done of some cells; return the errors of those that failed, by position."""
    folders = [out.absolute() / "cells" / cell.name for cell in cells]
    mark = uuid.uuid4().hex
    atomic_write(out / MARK, mark)
    left = [n for n, folder in enumerate(folders) if not is_done(folder)]
    failed = dict[int, str]()
    while left:
        work = partial(_run_cell, out.absolute() / MARK, mark)
        try:
            for index, outcome in executor.map(work, [(folders[n], cells[n]) for n in left]):
                number = left[index]
                if outcome.files:
                    _unpack(outcome.files, folders[number])
                if outcome.error:
                    failed[number] = outcome.error
                score = outcome.error or f"{told(_mean(folders[number]))}"
                print(f"== {cells[number]!r}: {score}", flush=True)
        except WorkerDied as death:
            if death.index is None:
                raise
            failed[left[death.index]] = str(death)
            executor.close()
        left = [n for n in left if n not in failed and not is_done(folders[n])]
    return failed


def is_done(folder: Path) -> bool:
    """Whether a run has its test and its report."""
    return (folder / RESULT).exists() and (folder / REPORT).exists()


def _run_cell(mark: Path, secret: str, task: tuple[Path, Cell]) -> Outcome:
    """Do one cell; what a worker does."""
    folder, cell = task
    if mark.exists() and mark.read_text() == secret:
        return Outcome(_run(cell, folder), b"")
    with tempfile.TemporaryDirectory(prefix="worldmodels-") as home:
        error = _run(cell, Path(home) / "run")
        return Outcome(error, _pack(Path(home) / "run"))


def _run(cell: Cell, folder: Path) -> str:
    """Run or resume `worldmodels run` in a process; return its last line if it fails."""
    log = make_folder(folder) / LOG
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "worldmodels", *cell.words, "--out", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            preexec_fn=die_with_parent,
        )
        try:
            process.wait()
        finally:  # a worker that has to end ends its run
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(PATIENCE / 2)
                except subprocess.TimeoutExpired:
                    process.kill()
    if process.returncode == 0:
        return ""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit status {process.returncode}"


def _pack(folder: Path) -> bytes:
    """A finished run folder as a tar."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for path in sorted(folder.iterdir()):
            if path.name not in LEFT_BEHIND:
                archive.add(path, path.name)
    return raw.getvalue()


def _unpack(raw: bytes, folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        archive.extractall(make_folder(folder), filter="data")


def _mean(folder: Path) -> float:
    return float(read_json(folder / RESULT)["mean"])


def results(
    cells: Sequence[Cell], out: Path, failed: Mapping[int, str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One row for each environment and variant, and the record of each cell.

    A row has the mean over the seeds of the runs' mean test returns, their standard deviation
    (ddof 1) and Student's 95% interval.
    """
    records = []
    for number, cell in enumerate(cells):
        folder = out / "cells" / cell.name
        record: dict[str, Any] = {"env": cell.env, "variant": cell.variant, "seed": cell.seed}
        record |= {"folder": f"cells/{cell.name}", "settings": dict(cell.settings)}
        record |= {"mean": None, "curve": [], "error": failed.get(number, "")}
        if is_done(folder):
            selected = read_metrics(folder / "metrics.jsonl").get("selection", ())
            curve = [line["real_mean"] for line in selected if line.get("selected")]
            record |= {"mean": _mean(folder), "curve": curve}
        records.append(record)
    return [_row(found) for found in _grouped(records)], records


def _grouped(records: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    groups = dict[tuple[str, str], list[dict[str, Any]]]()
    for record in records:
        groups.setdefault((record["env"], record["variant"]), []).append(record)
    return list(groups.values())


def _row(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    from scipy.special import stdtrit  # a second to import

    means = np.array([record["mean"] for record in found if record["mean"] is not None])
    row = {"env": found[0]["env"], "variant": found[0]["variant"], "seeds": len(means)}
    row |= {"failed": [r["seed"] for r in found if r["error"]], "mean": None, "std": None}
    row["ci95"] = None
    if len(means):
        row["mean"] = float(means.mean())
    if len(means) > 1:
        row["std"] = float(means.std(ddof=1))
        half = float(stdtrit(len(means) - 1, 0.975)) * row["std"] / math.sqrt(len(means))
        row["ci95"] = [row["mean"] - half, row["mean"] + half]
    return row


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a table for people."""
    lines = ["| environment | variant | seeds | mean | 95% interval | failed |", "|---" * 6 + "|"]
    for row in rows:
        texts = [" ".join(str(row[key]).split()).replace("|", r"\|") for key in ("env", "variant")]
        ends = "–" if row["ci95"] is None else " to ".join(map(told, row["ci95"]))
        mean = "–" if row["mean"] is None else told(row["mean"])
        lost = ", ".join(f"seed {seed}" for seed in row["failed"]) or "none"
        lines.append(f"| {' | '.join(texts)} | {row['seeds']} | {mean} | {ends} | {lost} |")
    return "\n".join(lines) + "\n"
