"""Studies: variants of a finished run's dream, each cell kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.pages.parser import standing_alone
from tests.pipeline.worker import tiny
from worldmodels import cli
from worldmodels.commands.study import read_grid, read_variant
from worldmodels.evaluation import evaluate_many
from worldmodels.pipeline import run_pipeline
from worldmodels.pipeline.iteration import dreaming
from worldmodels.pipeline.study import Variant, summarise, to_markdown
from worldmodels.protocols import UserError
from worldmodels.settings import with_settings
from worldmodels.stages import selection


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    cfg = with_settings(
        tiny(), {"vision_training.finetune_iterations": 0}
    )  # one V in both iterations
    run_pipeline(cfg, out, seed=1, workers=1, preset="tiny")
    return out


@pytest.fixture(autouse=True)
def short_drives(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*args: Any, max_steps: int | None, **kwargs: Any) -> Any:
        return evaluate_many(*args, max_steps=20, **kwargs)

    monkeypatch.setattr(selection, "evaluate_many", short)


def study(run: Path, out: Path, *words: str) -> int:
    few = ["--study.seeds", "1", "--study.selection-episodes", "1", "--study.test-episodes", "1"]
    return cli.main(["study", str(run), "--out", str(out), "--workers", "1", *few, *words])


def test_variants_are_evolved_and_driven_once(run: Path, tmp_path: Path) -> None:
    variants = [
        "hot: dream.temperature=1.3",
        "none: untrained",
        "new: memory_training.steps=4",
        "two: controller.memory_iterations=2",
        "often: memory.newest_repeats=3 memory_training.steps=4",
        "zero: controller.warm_start=false",
    ]
    assert study(run, tmp_path, "--variants", *variants) == 0
    data = json.loads((tmp_path / "study.json").read_text())
    names = ["as the run", "hot", "none", "new", "two", "often", "zero"]
    assert [row["variant"] for row in data["rows"]] == names
    assert "| hot | 1 |" in (tmp_path / "study.md").read_text()
    page = (tmp_path / "study.html").read_text()
    assert "of random weights" in page
    standing_alone(page)
    assert not any((tmp_path / "work").iterdir())
    for cell in data["cells"]:
        assert [s["generation"] for s in cell["snapshots"]] == [2, 4]
        assert all(len(s["test"]) == 1 for s in cell["snapshots"])
    assert len({cell["snapshots"][1]["dream"] for cell in data["cells"]}) == 7
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("cells/*")}
    assert study(run, tmp_path, "--variants", *variants) == 0
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.glob("cells/*")}
    assert json.loads((tmp_path / "study.json").read_text())["rows"] == data["rows"]


def test_an_agent_is_studied_from_its_folder_alone(run: Path, tmp_path: Path) -> None:
    agent = shutil.copytree(run / "agent", tmp_path / "agent")
    few = ["dream.horizon=10", "controller.evolve.generations=2", "dream.episodes=2"]
    few += ["controller.evolve.snapshot_every=2", "controller.evolve.strategy.population=4"]
    words = ["--preset", "smoke", "--no-baseline", "--grid", "dream.temperature=0.5,2", *few]
    assert study(agent, tmp_path / "study", *words) == 0
    cold, hot = json.loads((tmp_path / "study" / "study.json").read_text())["cells"]
    assert cold["settings"]["dream.temperature"] == 0.5
    assert [s["generation"] for s in cold["snapshots"]] == [2]
    assert cold["snapshots"][0]["dream"] != hot["snapshots"][0]["dream"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--variants", "new: memory_training.steps=4"], "memory_training.steps needs a run's rec"),
        (["--variants", "few: starts.count=4"], "starts.count needs a run's recordings"),
        (["--variants", "warm: controller.warm-start=true"], "controller.warm-start needs a run's"),
        (["--variants", "none: untrained"], "an untrained M needs a run's recordings"),
        (["--study.iteration", "0"], "is an agent: it has none"),
    ],
)
def test_what_needs_recordings_is_refused_for_an_agent(
    run: Path,
    tmp_path: Path,
    words: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert study(run / "agent", tmp_path / "study", *words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "study" / "cells").exists()


def test_a_run_has_settings_and_takes_no_preset(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study(run, tmp_path, "--preset", "full") == 2
    assert "the settings are the run's" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rounds", "number", "expected"),
    [(1, 4, [4]), (3, 4, [4, 3, 2]), (3, 3, [3, 2]), (3, 1, [1]), (9, 4, [4, 3, 2])],
)
def test_only_memories_of_one_vision_dream_together(
    rounds: int, number: int, expected: list[int]
) -> None:
    cfg = with_settings(
        tiny(), {"controller.memory_iterations": rounds, "vision_training.finetune_iterations": 2}
    )
    assert dreaming(cfg, number) == expected


def test_who_chooses_is_told_apart() -> None:
    def snapshot(dream: float, selection: float, test: float) -> dict[str, object]:
        return {"dream": dream, "selection": [selection], "test": [test]}

    snapshots = [snapshot(1, 9, 5), snapshot(9, 1, 2), snapshot(3, 3, 7)]
    cells = [{"variant": "a", "seed": s, "snapshots": snapshots} for s in (0, 1)]
    (row,) = summarise(cells)
    found = [row[k] for k in ("dream", "selection", "validated", "dreamed", "oracle")]
    assert found == [1, 9, 5, 2, 7]
    assert row["oracle_std"] == 0
    assert "| a | 2 | 1 ± 0 | 5 ± 0 | 2 ± 0 | 7 ± 0 |" in to_markdown([row])


def test_words_become_variants() -> None:
    assert read_variant("z only: controller.inputs=z", Variant) == Variant(
        "z only", {"controller.inputs": "z"}
    )
    points = read_grid(["dream.temperature=1,1.3", "dream.dropout=0,0.1"], Variant)
    assert [dict(p.settings) for p in points][1] == {"dream.temperature": 1, "dream.dropout": 0.1}
    assert len(points) == 4
    longer = read_grid(["dream.temperature=1,2", "dream.horizon=500"], Variant)
    assert [point.name for point in longer] == ["dream.temperature 1", "dream.temperature 2"]
    assert dict(longer[0].settings) == {"dream.temperature": 1, "dream.horizon": 500}
    assert [p.name for p in read_grid(["dream.horizon=500"], Variant)] == ["dream.horizon 500"]
    assert read_grid([], Variant) == []


@pytest.mark.parametrize("text", ["hot", "hot:", "hot: warm"])
def test_a_variant_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        read_variant(text, Variant)


def test_a_grid_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="not of the form"):
        read_grid(["dream.temperature"], Variant)


@pytest.mark.parametrize(
    "name",
    [
        "vision.z_dim",
        "selection.episodes",
        "iterations",
        "horizontal_flip",
        "memory-training.log-every",
    ],
)
def test_a_setting_that_a_study_does_not_use_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} has no effect in a study"):
        read_variant(f"x: {name}=3", Variant)


def test_mistakes_are_told(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study(run, tmp_path, "--variants", "x: dream.heat=1") == 2
    assert "dream has no 'heat'" in capsys.readouterr().err
    assert study(run, tmp_path, "--no-baseline") == 2
    assert "nothing to study" in capsys.readouterr().err
    assert study(run, tmp_path, "--study.iteration", "7") == 2
    assert "07 has no controllers" in capsys.readouterr().err
    assert study(tmp_path / "nowhere", tmp_path) == 2
    told = capsys.readouterr().err
    assert "nowhere is no run" in told and "no agent" in told


def test_a_wrong_setting_is_told_before_the_first_evolution(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--grid", "dream.temperature=1", "--variants", "odd: dream.temperatur=1"]
    assert study(run, tmp_path / "study", *words) == 2
    assert "dream has no 'temperatur'" in capsys.readouterr().err
    assert not (tmp_path / "study" / "cells").exists()
