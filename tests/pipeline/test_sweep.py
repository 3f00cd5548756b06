from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tests.pages.parser import Page
from worldmodels import cli, executors
from worldmodels.commands.parsing import parse as parse_command
from worldmodels.commands.sweep import Sweep, flags
from worldmodels.executors import Executor, SerialExecutor, WorkerDied
from worldmodels.pages.sweep import build_sweep
from worldmodels.pipeline import sweep
from worldmodels.pipeline.sweep import Cell, results, run_cells
from worldmodels.protocols import UserError

CELLS = [
    Cell("CarRacing-v3", name, seed, ("run", "--seed", str(seed)), {"dream.temperature": value})
    for name, value in (("cold", 0.7), ("hot", 1.3))
    for seed in range(3)
]


def finish(folder: Path, mean: float) -> None:
    """What a finished run leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.json").write_text(json.dumps({"mean": mean}))
    lines = [{"stage": "selection", "selected": True, "real_mean": mean + n} for n in range(2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "report.html").write_text("")


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Runs without a process: seed 2 of the hot ones fails, others score their seed."""
    order = []

    def run(cell: Cell, folder: Path) -> str:
        order.append(cell.seed)
        if cell.variant == "hot" and cell.seed == 2:
            return "error: too hot"
        finish(folder, 10.0 * cell.seed + (5 if cell.variant == "hot" else 0))
        return ""

    monkeypatch.setattr(sweep, "_run", run)
    return order


def test_finished_runs_are_kept_and_failed_ones_named(played: list[int], tmp_path: Path) -> None:
    failed = run_cells(CELLS, tmp_path, executors.make("serial"))
    assert failed == {5: "error: too hot"} and len(played) == 6
    assert run_cells(CELLS, tmp_path, executors.make("serial")) == failed
    assert len(played) == 7, "only the failed one is tried again"
    rows, records = results(CELLS, tmp_path, failed)
    assert [row["seeds"] for row in rows] == [3, 2] and rows[1]["failed"] == [2]
    assert rows[0]["mean"] == 10.0 and rows[0]["std"] == 10.0
    # Student's t of 2 degrees of freedom: 4.3027, over the root of 3
    assert rows[0]["ci95"] == pytest.approx([10 - 24.841, 10 + 24.841], abs=1e-3)
    assert records[1]["curve"] == [10.0, 11.0]
    text = build_sweep(rows, records, "smoke", tmp_path / "sweep.html").read_text()
    assert "too hot" in text and "5 of 6 runs" in text and not Page(text).without_text
    assert "seed 2" in sweep.to_markdown(rows)


class Dying(SerialExecutor):
    """Gives its third item up, as one that costs worker after worker."""

    def map(self, fn: Any, items: Any) -> Any:
        for index, result in super().map(fn, items):
            if result.error == "" and "seed-2" in str(items[index][0]):
                death = WorkerDied("gone")
                death.index = index
                raise death
            yield index, result


def test_a_run_that_costs_its_workers_does_not_end_the_sweep(
    played: list[int], tmp_path: Path
) -> None:
    failed = run_cells(CELLS, tmp_path, Dying())
    assert failed == {2: "gone", 5: "error: too hot"}


class Elsewhere(SerialExecutor):
    """Workers that do not see the sweep's folder."""

    def map(self, fn: Any, items: Any) -> Any:
        fn = type(fn)(fn.func, Path("/nowhere"), *fn.args[1:])
        return super().map(fn, [(Path("/nowhere") / "run", cell) for _, cell in items])


def test_a_run_on_another_machine_comes_home(played: list[int], tmp_path: Path) -> None:
    place: Executor = Elsewhere()
    assert run_cells(CELLS[:3], tmp_path, place) == {}
    assert [row["mean"] for row in results(CELLS[:3], tmp_path, {})[1]] == [0.0, 10.0, 20.0]


def test_a_run_is_a_process_whose_last_line_is_kept(tmp_path: Path) -> None:
    bad = Cell("x", "y", 0, ("run", "--preset", "nope"))
    assert sweep._run(bad, tmp_path / "a").startswith("error: --preset is 'nope'")
    assert sweep._run(dataclasses.replace(bad, words=("--version",)), tmp_path / "b") == ""


def test_settings_become_options_that_run_takes() -> None:
    assert flags("dream.temperature", 1.3) == ["--dream.temperature", "1.3"]
    assert flags("controller.warm_start", False) == ["--controller.no-warm-start"]
    assert flags("experience.explore_scales", [1, 2]) == ["--experience.explore-scales", "1", "2"]


def test_mistakes_are_told_before_the_first_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin = ["sweep", "--preset", "smoke", "--out", str(tmp_path / "out")]
    for words, text in (
        (["--grid", "dream.warmth=1"], "no 'warmth'"),
        (["--no-baseline"], "nothing to run"),
        (["--variants", "a: untrained"], "untrained is for"),
        (["--address", "auto"], "--address is 'auto'"),
    ):
        assert cli.main([*begin, *words]) == 2
        assert text in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_cells_are_every_combination() -> None:
    words = ["--preset", "smoke", "--seeds", "2", "--grid", "dream.temperature=0.7,1.3"]
    made = parse_command(Sweep, words, "worldmodels sweep")._cells()
    assert [(cell.variant, cell.seed) for cell in made] == [
        (name, seed)
        for name in ("smoke", "dream.temperature 0.7", "dream.temperature 1.3")
        for seed in range(2)
    ]
    assert len({cell.name for cell in made}) == 6


def test_runs_with_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--preset", "smoke", "--gpu", "--out", str(tmp_path)]
    made = parse_command(Sweep, words, "worldmodels sweep")
    assert all("--device cuda" in " ".join(cell.words) for cell in made._cells())
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="torch finds no GPU"):
        made.execute()
