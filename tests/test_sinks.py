"""Metrics beside metrics.jsonl: what TensorBoard and Weights & Biases are given."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.sinks import stand_in
from worldmodels import _sinks
from worldmodels._sinks import SinkName, scalars
from worldmodels.cli import main
from worldmodels.protocols import UserError
from worldmodels.runs import RunFolder
from worldmodels.stages import open_stage

STEP = {"iteration": 1, "member": 2, "step": 50, "nll": 1.5, "loss": float("nan"), "errors": [1.0]}


def test_figures_are_drawn_over_what_a_line_counts() -> None:
    line = {"time": 7.0, "stage": "memory", **STEP, "loss": "NaN", "kept": True}
    figures = {"nll": 1.5, "kept": 1.0}
    assert scalars(line) == ("memory 2", 1, 50, figures)
    once = {"stage": "stage", "name": "vision", "iteration": 3, "seconds": 9.0}
    assert scalars(once) == ("stage vision", None, 3, {"seconds": 9.0})
    assert scalars({"stage": "final", "real_mean": 5}) == ("final", None, 0, {"real_mean": 5.0})


def test_every_line_goes_to_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = stand_in(monkeypatch)
    run = RunFolder(tmp_path / "run", log=("tensorboard", "wandb", "wandb"))
    assert not installed.boards and not installed.runs  # opened by the first line
    run.log("memory", **STEP)
    run.log("final", real_mean=5.0, iteration=2)
    boards = {Path(name).name: events for name, events in installed.boards.items()}
    assert [event[:3] for event in boards["iteration-01"]] == [("memory 2/nll", 1.5, 50)]
    assert [event[:3] for event in boards["tensorboard"]] == [("final/real_mean", 5.0, 2)]
    (wandb,) = installed.runs
    assert wandb.logged == [
        {"memory 2, iteration 1/step": 50, "memory 2, iteration 1/nll": 1.5},
        {"final/step": 2, "final/real_mean": 5.0},
    ]
    assert "final/* over final/step" in wandb.axes
    assert len(run.metrics()) == 2


@pytest.mark.parametrize(("asked", "mode"), [(None, "offline"), ("online", "online")])
def test_the_network_is_used_only_if_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str | None, mode: str
) -> None:
    installed = stand_in(monkeypatch)
    monkeypatch.setattr(os, "environ", {"WANDB_MODE": asked} if asked else {})
    RunFolder(tmp_path, log=("wandb",)).log("final", real_mean=5.0)
    (run,) = installed.runs
    assert run.settings["mode"] == mode and run.settings["dir"] == str(tmp_path)
    reports = os.environ.get("WANDB_ERROR_REPORTING")  # of errors, to its makers
    assert reports == (None if asked else "false")


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, name: SinkName
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"^--log {name} needs .*worldmodels-control\[{name}\]"):
        RunFolder(tmp_path / "run", log=(name,))
    words = ["run", "--preset", "smoke", "--out", str(tmp_path / "run"), "--log", name]
    assert main(words) == 2
    assert f"error: --log {name} needs a package" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_folder_of_that_name_is_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wandb").mkdir()  # as a run leaves one
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    with pytest.raises(UserError, match="--log wandb needs a package"):
        _sinks.sinks(("wandb",), tmp_path)


def test_a_stage_logs_into_a_run_folder(tmp_path: Path) -> None:
    opened = open_stage("vision", tmp_path / "v.safetensors", [], log=("wandb",))
    with pytest.raises(UserError, match="--log wandb writes into a run folder"):
        opened.__enter__()
