"""A module that a file names is not imported; one that the user names is."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from worldmodels import cli, envs
from worldmodels.agent import find
from worldmodels.protocols import UserError

EVIL = "evil_module_of_a_file"


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module whose import leaves a trace; the shipped agent with a config that names it."""
    (tmp_path / f"{EVIL}.py").write_text(f"open({str(tmp_path / 'harm')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, EVIL, raising=False)
    agent = tmp_path / "agent"
    shutil.copytree(find("car-racing"), agent, ignore=shutil.ignore_patterns("ensemble"))
    config = json.loads((agent / "config.json").read_text())
    (agent / "config.json").write_text(json.dumps({**config, "env_id": f"{EVIL}:Evil-v0"}))
    return agent


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "--episodes", "1"],
        ["play", "--max-steps", "2", "--video", "x.mp4"],
        ["plan", "--decisions", "1"],
    ],
)
def test_no_command_imports_what_an_agent_names(
    words: list[str],
    evil: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    status = cli.main([*words, "--agent", str(evil)])
    told = capsys.readouterr().err
    assert not (tmp_path / "harm").exists()
    assert EVIL not in sys.modules
    if words[0] != "plan":  # it needs no environment
        assert status == 2
        assert f"names the environment '{EVIL}:Evil-v0'" in told
        assert f"give --env {EVIL}:Evil-v0" in told and told.count("\n") == 1


def test_a_module_that_the_user_names_is_imported(
    evil: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--agent", str(evil), "--episodes", "1", "--env", f"{EVIL}:Evil-v0"]
    assert cli.main(words) == 2  # it registers nothing
    assert "Evil" in capsys.readouterr().err
    assert (tmp_path / "harm").exists()


def test_what_is_imported_or_registered_already_is_taken(tmp_path: Path) -> None:
    assert envs.from_file("CarRacing-v3", tmp_path) == "CarRacing-v3"
    assert envs.from_file("json:Any-v0", tmp_path) == "json:Any-v0"  # json is imported
    assert envs.from_file(f"{EVIL}_3:CarRacing-v3", tmp_path) == "CarRacing-v3"
    with pytest.raises(UserError, match=f"if you trust the module {EVIL}_3, give --env"):
        envs.from_file(f"{EVIL}_3:None-v0", "agent/config.json")


def test_stage_commands_take_the_module_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["encode", "--data", tmp_path / "none", "--vision", "v", "--out", tmp_path / "z"]
    assert cli.main([*map(str, words), "--env", f"{EVIL}_2:Evil-v0"]) == 2
    assert f"module '{EVIL}_2' cannot be imported" in capsys.readouterr().err
    assert cli.main([*map(str, words), "--env", "CarRacing-v3"]) == 2
    assert "here it only names a module" in capsys.readouterr().err
