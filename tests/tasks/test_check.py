"""`worldmodels check`, and the same at the start of a run."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.envs.blocks import name_of
from tests.tasks.examined import seen
from worldmodels import cli
from worldmodels.commands import check as command
from worldmodels.commands.collect import Collect
from worldmodels.commands.parsing import parse
from worldmodels.commands.run import Run
from worldmodels.envs.frames import FrameSpec
from worldmodels.presets import PRESETS, quick
from worldmodels.protocols import UserError
from worldmodels.runs import RunFolder
from worldmodels.tasks import Task, register_task, task_for
from worldmodels.tasks import task as records
from worldmodels.tasks.choices import choices
from worldmodels.tasks.default import measure
from worldmodels.tasks.examination import Examination
from worldmodels.tasks.findings import findings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this process knows the ids of these tests."""
    monkeypatch.setattr(command, "measure_in_worker", measure)


def test_check_prints_the_verdict_first(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.json", "a.png", "a_task.py")]
    words = ["--json", str(files[0]), "--picture", str(files[1]), "--write", str(files[2])]
    assert cli.main(["check", name_of("fine"), *words]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0].startswith("ok: ")
    assert any(line.startswith("  dream.horizon = 500: the time limit is") for line in lines)
    assert json.loads(files[0].read_text())["examination"]["env_id"] == name_of("fine")
    assert Image.open(files[1]).size == (256, 64)


def run_module(path: Path, text: str) -> None:
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("written", path)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_the_module_that_is_written_registers_the_task(tmp_path: Path) -> None:
    found = seen("rare")
    run_module(tmp_path / "written.py", command.module(found))
    try:
        task = task_for(name_of("rare"))
        assert task.name == "fakerare-v0"
        assert dict(task.settings["quick"]) == {c.setting: c.value for c in choices(found, "quick")}
        assert PRESETS["quick"](name_of("rare")).dream.termination == "sampled"
    finally:
        records._TASKS.pop("fakerare-v0")
        records._look.cache_clear()


@pytest.mark.parametrize("frames", [None, FrameSpec(crop=(8, 0, 0, 0))])
def test_the_module_of_a_known_environment_keeps_what_is_known(
    frames: FrameSpec | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "_TASKS", dict(records._TASKS))
    own = Task("known", crop=(1, 0, 0, 0), solved=9.0, settings={"smoke": {"action_repeat": 3}})
    register_task(own, "tests/FakeRare-v0")
    found = seen("rare")
    text = command.module(found, frames)
    run_module(tmp_path / "written.py", text)
    task = task_for(name_of("rare"))
    assert (task.name, task.solved) == ("known", 9.0)
    assert task.crop == ((1, 0, 0, 0) if frames is None else (8, 0, 0, 0))
    assert task.settings["smoke"] == {"action_repeat": 3}
    chosen = {c.setting: c.value for c in choices(found, "quick")}
    assert task.settings["quick"] == task.settings["full"] == chosen
    records._look.cache_clear()


def test_what_cannot_be_learnt_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", name_of("black")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {name_of('black')}: all frames are black")
    assert said.err.count("\n") == 1


def test_check_takes_what_run_takes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def note(*args: Any, **kw: Any) -> Examination:
        asked.append((*args, *kw.values()))
        return measure(*args, **kw)

    monkeypatch.setattr(command, "measure_in_worker", note)
    written = tmp_path / "task.py"
    words = ["--env-kwargs", '{"kind": "rare"}', "--crop", "2", "0", "3", "1", "--frame-rows", "30"]
    words += ["--action-repeat", "2", "--max-steps", "60", "--write", str(written)]
    assert cli.main(["check", "--env", name_of("fine"), *words]) == 0
    assert asked == [(f"{name_of('fine')}?kind=rare", 0, 60, 30, (2, 0, 3, 1))]
    said = capsys.readouterr().out
    assert "  dream.horizon = 30: the time limit is 60 steps" in said
    assert "  action_repeat = 2: as you say" in said
    assert f"--env 'task:{name_of('fine')}?kind=rare'" in said
    assert "rows=30, crop=(2, 0, 3, 1), settings=" in written.read_text()
    assert cli.main(["check", name_of("fine"), "--obs-key", "screen"]) == 2
    assert "its observations are no Dict" in capsys.readouterr().err


def test_a_crop_reaches_v(tmp_path: Path) -> None:
    cfg = parsed(tmp_path, "fine", "--crop", "8", "0", "4", "4").config
    assert cfg.frame_spec.crop == (8, 0, 4, 4)
    assert cfg.frame_spec.rows is None
    with pytest.raises(Exception, match=r"crop .* must leave something of frames of 32x48"):
        parsed(tmp_path / "none", "fine", "--crop", "32", "0", "0", "0")
    assert not (tmp_path / "none").exists()


def test_the_table_of_the_docs_is_what_is_said() -> None:
    script = runpy.run_path(str(ROOT / "benchmarks/check_table.py"))
    pages = (ROOT / "docs/your-own-environment.md").read_text(encoding="utf-8")
    for env_id, words in script["ENVIRONMENTS"].items():
        assert f"| {words or '`' + env_id.rpartition(':')[2] + '`'} |" in pages
    for kind, words in (
        ("black", "black frames"),
        ("white", "a dead-white screen"),
        ("negative", "negative rewards"),
        ("two steps", "episodes of two steps"),
        ("never", "a reward that never comes"),
    ):
        found = seen(kind)
        assert script["row"](words, found, findings(found)) in pages.splitlines()


def parsed(out: Path, kind: str, *words: str) -> Run:
    line = ["--preset", "quick", "--env", name_of(kind), "--out", str(out), *words]
    return parse(Run, line, "")


def test_a_run_takes_the_choices_and_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    first = parsed(out, "unseeded", "--dream.horizon", "77")
    assert first.config.memory.reward == "raw"
    assert first.config.dream.horizon == 77
    record = command.load(out, name_of("unseeded"), "quick")
    assert record is not None
    assert RunFolder(out).ledger.read()["totals"]["collection"] == record.examination.steps
    lines = list(record.lines(first.config))
    assert any(line.startswith("  dream.horizon = 77, as you say (not 500: ") for line in lines)
    assert lines[0].startswith("warning: ")
    # resumed, nothing is measured again
    (out / "config.json").write_text("{}")
    monkeypatch.setattr(
        command, "measure_in_worker", lambda *_, **__: pytest.fail("measured again")
    )
    assert parsed(out, "unseeded", "--dream.horizon", "77") == first
    assert command.load(out, name_of("fine"), "quick") is None


def test_a_preset_from_python_is_the_commands(tmp_path: Path) -> None:
    for kind in ("fine", "pendulum"):
        cfg = quick(name_of(kind))
        assert cfg.made_for == name_of(kind)
        assert dataclasses.replace(cfg, made_for=None) == parsed(tmp_path / kind, kind).config
    assert quick() == PRESETS["quick"]() and quick().made_for == "car-racing"
    with pytest.raises(UserError, match="all frames are white: there is nothing to see"):
        quick(name_of("white"))


def test_scales_of_choices_have_no_effect(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"explore-scales has no effect here: .* are choices"):
        parsed(tmp_path, "fine", "--experience.explore-scales", "0.3")
    parsed(tmp_path, "pendulum", "--experience.explore-scales", "0.3")
    words = ["--env", name_of("fine"), "--out", str(tmp_path / "e"), "--scale", "0.3"]
    with pytest.raises(UserError, match=r"--scale has no effect here: .* are choices"):
        parse(Collect, words, "")


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    parsed(tmp_path, "fine")
    path = tmp_path / "check.json"
    record = json.loads(path.read_text())
    record["examination"]["frames"] = {}
    path.write_text(json.dumps(record))
    with pytest.raises(Exception, match=r"check\.json is damaged"):
        command.load(tmp_path, name_of("fine"), "quick")


def test_nothing_is_measured_where_it_is_not_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "measure_in_worker", lambda *_, **__: pytest.fail("measured"))
    plain = parsed(tmp_path / "a", "fine", "--no-check")
    assert plain.config == PRESETS["quick"](name_of("fine"))
    assert not (tmp_path / "a").exists()
    # a run that was begun without
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.json").write_text("{}")
    assert parsed(tmp_path / "b", "fine").config == plain.config
    # CarRacing, whose task is registered
    words = ["--preset", "quick", "--out", str(tmp_path / "c")]
    assert parse(Run, words, "").config == PRESETS["quick"]()
    with pytest.raises(SystemExit):
        parse(Run, ["--env", name_of("fine"), "--help"], "")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_run_that_can_learn_nothing_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Exception, match=r"all frames are white.*--no-check runs it all the same"):
        parsed(out, "white")
    assert not out.exists()
    parsed(out, "white", "--no-check")
    with pytest.raises(Exception, match=r"no episode ended within 10000 steps.*give --max-steps"):
        parsed(out, "endless")
    assert not out.exists()


@pytest.mark.parametrize(
    ("kind", "words", "message"),
    [
        ("fine", "--horizontal-flip", r"horizontal_flip is on for .* no symmetry is known"),
        ("pendulum", "--controller.discrete thresholds", r"^--controller\.discrete is"),
        ("fine", "--experience.agent-noise 2 2", r"^--experience\.agent-noise is"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, words: str, message: str
) -> None:
    monkeypatch.setattr(command, "measure_in_worker", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(UserError, match=message):
        parsed(tmp_path / "run", kind, *words.split())
    assert not (tmp_path / "run").exists()


def test_a_run_asks_for_no_limit_where_episodes_end(tmp_path: Path) -> None:
    cfg = parsed(tmp_path, "clock").config
    assert None not in cfg.limits().values()
    assert cfg.limited(500).test.max_steps == 500


def test_what_counts_decisions_follows_the_users_action_repeat(tmp_path: Path) -> None:
    cfg = parsed(tmp_path, "fine", "--action-repeat", "5").config
    assert (cfg.action_repeat, cfg.dream.horizon) == (5, 100)
    record = command.load(tmp_path, name_of("fine"), "quick")
    assert record is not None
    assert "  action_repeat = 5: as you say (1 by what is seen: " in "\n".join(record.lines(cfg))
    # the same run resumed, with another one and without
    (tmp_path / "config.json").write_text("{}")
    assert parsed(tmp_path, "fine", "--action-repeat", "5").config == cfg
    assert parsed(tmp_path, "fine", "--action-repeat", "2").config.dream.horizon == 250
    assert parsed(tmp_path, "fine").config.dream.horizon == 500
    record = command.load(tmp_path, name_of("fine"), "quick")
    assert record is not None
    assert record.action_repeat is None
