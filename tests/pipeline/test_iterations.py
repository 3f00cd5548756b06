"""Which iterations train from scratch, and whose agents act together."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.pipeline.worker import tiny
from worldmodels import runs, stages
from worldmodels.agent import Agent
from worldmodels.pipeline import run_pipeline
from worldmodels.policies.ensemble import other_members
from worldmodels.policies.opening import best_policy
from worldmodels.protocols import UserError
from worldmodels.run_config import RunConfig, changed
from worldmodels.stage_configs import (
    EnsembleStageConfig,
    FromScratchConfig,
)
from worldmodels.stages import selection


def test_memories_of_iterations_with_the_same_v_dream_together(tmp_path: Path) -> None:
    cfg = tiny()
    cfg = dataclasses.replace(
        cfg,
        vision_training=dataclasses.replace(cfg.vision_training, finetune_iterations=0),
        controller=dataclasses.replace(cfg.controller, memory_iterations=3),
    )
    run_pipeline(cfg, tmp_path, seed=4, workers=1)
    first, last = (Agent.from_pretrained(tmp_path / "iterations" / f"0{n}/agent") for n in (0, 1))
    assert (len(first.memories), len(last.memories)) == (1, 2)
    own, older = (memory.mixture.weight for memory in last.memories)
    torch.testing.assert_close(older, first.memories[0].mixture.weight)
    assert not torch.equal(own, older)


def test_iterations_from_scratch_retrain_v_and_m(tmp_path: Path) -> None:
    cfg = dataclasses.replace(
        tiny(),
        iterations=4,
        from_scratch=FromScratchConfig(iterations=2, vision_steps=7, memory_steps=8),
    )
    cfg = dataclasses.replace(
        cfg,
        vision_training=dataclasses.replace(cfg.vision_training, finetune_iterations=0),
        controller=dataclasses.replace(cfg.controller, memory_iterations=3),
    )
    run_pipeline(cfg, tmp_path, seed=5, workers=1)
    folder = runs.RunFolder(tmp_path)

    def steps(stage: str) -> dict[int, int]:
        rows = folder.metrics(stage)
        return {row["iteration"]: row["step"] for row in rows}

    assert steps("vision") == {0: 10, 2: 7}
    assert steps("memory") == {0: 10, 1: 6, 2: 8, 3: 8}
    agents = [Agent.from_pretrained(tmp_path / "iterations" / f"0{n}/agent") for n in range(4)]
    assert [len(agent.memories) for agent in agents] == [1, 2, 1, 2]  # others have another V
    frames = np.zeros((1, 64, 64, 3), np.uint8)
    means = [agent.encode(frames)[0] for agent in agents]
    np.testing.assert_array_equal(means[0], means[1])
    assert not np.allclose(means[1], means[2], atol=1e-3)
    np.testing.assert_array_equal(means[2], means[3])


def test_iterations_from_scratch_are_the_last() -> None:
    cfg = RunConfig(iterations=6, from_scratch=FromScratchConfig(iterations=2, vision_steps=30))
    assert [n for n in range(6) if cfg.begins_vision(n)] == [0, 4]
    assert [n for n in range(6) if cfg.begins_memory(n)] == [0, 4, 5]
    assert [n for n in range(6) if cfg.trains_vision(n)] == [0, 1, 4]
    assert cfg.vision_training_of(0) == cfg.vision_training_of(5) == cfg.vision_training
    assert cfg.vision_training_of(4).steps == 30
    assert cfg.memory_training_of(4) == cfg.memory_training
    with pytest.raises(UserError, match="memory_steps is 0; it must be at least 1"):
        FromScratchConfig(memory_steps=0)
    with pytest.raises(UserError, match="iterations is -1; it must be at least 0"):
        FromScratchConfig(iterations=-1)


@pytest.mark.parametrize("together", [2.0, 1.0])
def test_an_ensemble_acts_where_selection_prefers_it(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: float
) -> None:
    out = tmp_path / "run"
    shutil.copytree(unbroken, out)
    for stage in ("ensemble", "test"):
        (out / "stages" / stage / "02.json").unlink()
    (out / "agent" / "ensemble").mkdir(exist_ok=True)  # half a folder, left by a kill
    judged: list[list[int]] = []

    def judge(policies: Sequence[object], env_id: str, seeds: range, **_: object) -> list[Any]:
        judged.append([*seeds])
        means = [1.0, *[together] * (len(policies) - 1)]
        summary = SimpleNamespace(std=0.0)
        return [
            SimpleNamespace(mean=m, frames=40, returns=np.array([m]), summary=summary)
            for m in means
        ]

    monkeypatch.setattr(selection, "evaluate_many", judge)
    run_pipeline(tiny(), out, seed=1, workers=1, preset="tiny")
    assert judged == [[500_006, 500_007]]  # 4 chose C, 2 more its residual
    winner = runs.read_json(out / "stages" / "final" / "02.json")["outputs"]["iteration"]
    kept = together > 1
    (row,) = runs.RunFolder(out).metrics("ensemble_selection")
    assert (row["rounds"], row["kept"]) == ([1 - winner], kept)
    assert len(other_members(out / "agent")) == kept
    assert (best_policy(out / "agent") == "ensemble") is kept
    assert runs.read_json(out / "evaluation.json")["agent"].endswith("(ensemble)") is kept
    if kept:
        (folder,) = other_members(out / "agent")
        mine = Agent.from_pretrained(folder)
        theirs = Agent.from_pretrained(out / "iterations" / f"0{1 - winner}" / "agent")
        np.testing.assert_allclose(mine.parameters, theirs.parameters, rtol=1e-3, atol=1e-4)
        report = (out / "report.html").read_text()
        assert "Ensemble" in report and "2 members" in report
        run_pipeline(  # another choice before it sends the members home
            dataclasses.replace(tiny(), ensemble=EnsembleStageConfig()),
            out,
            seed=1,
            workers=1,
            preset="tiny",
        )
        assert not other_members(out / "agent")


def test_no_iteration_follows_one_that_reaches_enough(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = changed(tiny(), {"selection.enough": -1e9})
    run_pipeline(cfg, tmp_path, seed=4, workers=1)
    assert "no other iteration follows" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "iterations").iterdir()] == ["00"]
    stages = runs.RunFolder(tmp_path).metrics("stage")
    assert stages[-1]["name"] == "test"
    assert Agent.from_pretrained(tmp_path).metadata["iteration"] == 0
    run_pipeline(cfg, tmp_path, seed=4, workers=1)
    assert runs.RunFolder(tmp_path).metrics("stage") == stages, "nothing is left to do"
    run_pipeline(changed(cfg, {"selection.enough": None}), tmp_path, seed=4, workers=1)
    assert (tmp_path / "iterations" / "01").is_dir()


def test_a_run_goes_on_where_other_episodes_do_not_confirm_what_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stages, "confirm", lambda *_: -2e9)
    cfg = changed(tiny(), {"selection.enough": -1e9})
    run_pipeline(cfg, tmp_path, seed=4, workers=1)
    assert len([*(tmp_path / "iterations").glob("0?")]) == cfg.iterations
    monkeypatch.undo()
    found = runs.RunFolder(tmp_path).stage_outputs("select/00")
    assert found["lowest"] > -1e9 > found["confirmed"]


def test_what_is_enough_is_confirmed_on_the_seeds_that_compare_finalists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = changed(tiny(), {"selection.enough": -1e9, "selection.final_episodes": 3})
    seen: list[tuple[int, ...]] = []
    usual = vars(selection)["evaluate_many"]

    def noted(policies: Any, env_id: str, seeds: Any, **options: Any) -> Any:
        seen.append(tuple(seeds))
        return usual(policies, env_id, seeds, **options)

    monkeypatch.setattr(selection, "evaluate_many", noted)
    run_pipeline(cfg, tmp_path, seed=4, workers=1)
    first = cfg.selection.seed + cfg.selection.episodes
    assert seen[1] == (first, first + 1, first + 2)
    ledger = runs.RunFolder(tmp_path).ledger
    entries = {entry["key"]: entry for entry in ledger.read()["entries"]}
    (counted,) = (key for key in entries if key.startswith("confirm/"))
    assert entries[counted.replace("confirm", "select")]["kind"] == "selection"
    assert entries[counted]["frames"] > 0 and "superseded" not in entries[counted]
    record = json.loads((tmp_path / "stages/select/00.json").read_text())
    assert counted in {entry["key"] for entry in record["frames"]}, "a lost ledger is restored"
    run_pipeline(changed(cfg, {"selection.enough": None}), tmp_path, seed=4, workers=1)
    after = {entry["key"]: entry for entry in ledger.read()["entries"]}
    assert after[counted]["superseded"], "as what it confirmed"
