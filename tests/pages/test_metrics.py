"""Metrics: what the pages read is what some stage writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from worldmodels import metrics
from worldmodels.metrics import RECORDS, Line
from worldmodels.pages import data, figures, findings, report
from worldmodels.pages.charts import Panel
from worldmodels.runs import RunFolder

from .fixture import make_run

COMMON = set(Line.__annotations__)
READ: dict[str, set[str]] = {}


class Watched(dict[str, Any]):
    """A line that notes which of its keys are asked for."""

    def __init__(self, line: Any) -> None:
        super().__init__(line)
        self.stage = str(dict(line)["stage"])

    def note(self, key: str) -> None:
        READ.setdefault(self.stage, set()).add(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.note(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.note(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.note(str(key))
        return super().__contains__(key)


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, set[str]]]:
    """Stage -> keys that the report asks for, of a run with every kind of line."""
    folder = make_run(tmp_path / "run", tracks=4, media=False)
    run = RunFolder(folder)
    tried = {"real_mean": 5.0, "real_returns": [5.0], "kept": True, "iteration": 3}
    run.log("final", winner=2, real_mean=5.0, iteration=3)
    run.log("residual_selection", controller_mean=4.0, **tried)
    run.log("ensemble_selection", rounds=[1], alone_mean=4.0, **tried)

    def watching(rows: Any) -> list[Watched]:
        return [Watched(row) for row in rows]

    def watched(path: Path) -> dict[str, list[Watched]]:
        return {stage: watching(run.metrics(stage)) for stage in RECORDS}

    latest, selections = metrics.latest, findings.selections  # they make copies of lines
    monkeypatch.setattr(data, "read_metrics", watched)
    for module in (figures, findings):
        monkeypatch.setattr(module, "latest", lambda rows, key: watching(latest(rows, key)))
    monkeypatch.setattr(findings, "selections", lambda run: watching(selections(run)))
    READ.clear()
    report.build_report(folder)
    yield READ
    READ.clear()


def test_every_key_that_the_report_reads_is_in_the_record_of_its_stage(
    read: dict[str, set[str]],
) -> None:
    assert set(read) == set(RECORDS) - {"residual"}
    for stage, keys in read.items():
        assert keys <= COMMON | {"member"} | set(RECORDS[stage].__annotations__), stage
    assert {"dream_return", "real_std", "alarm"} <= read["selection"]
    assert {"val_nll", "reward_loss"} <= read["memory"]


@pytest.mark.parametrize(
    ("stage", "panels"),
    [("vision", figures.VISION), ("memory", figures.MEMORY), ("controller", figures.CONTROLLER)],
)
def test_every_line_of_a_chart_is_in_the_record_of_its_stage(
    stage: str, panels: tuple[Panel, ...]
) -> None:
    drawn = {line.key for panel in panels for line in panel.lines}
    drawn |= {key for panel in panels if panel.band for key in panel.band[:2]}
    assert drawn <= set(RECORDS[stage].__annotations__)
