"""One form of an id with arguments, and who may have its module imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.envs.odd import ODD
from worldmodels import cli, envs
from worldmodels.commands.parsing import whole_env
from worldmodels.envs import EnvId, parse, with_kwargs
from worldmodels.envs.ids import from_file
from worldmodels.protocols import UserError

VALUES: dict[str, Any] = {
    **{"a": 4, "b": -0.5, "c": True, "d": None, "e": "screen", "f": "4", "g": "null", "h": ""},
    **{"i": 'a&b=c?d:e "f" %41+ ü', "j": '"x"', "k": "[1]", "m": "NaN", "n": 1e-30},
}


@pytest.mark.parametrize("head", ["CartPole-v1", "a.b:c/CartPole-v1"])
def test_an_id_is_read_as_it_was_written(head: str) -> None:
    written = with_kwargs(head, VALUES)
    found = parse(written)
    assert found.kwargs == VALUES
    assert str(found) == written and with_kwargs(written, {}) == written
    assert f"{found.module}:{found.name}".removeprefix(":") == head
    assert parse(head) == EnvId(found.name, found.module)


def test_one_form() -> None:
    assert with_kwargs("A-v0", {"frame_skip": 4, "obs_key": "x"}) == "A-v0?frame_skip=4&obs_key=x"
    assert with_kwargs('A-v0?obs_key="x"&b=1.50', {"b": 2}) == "A-v0?b=2&obs_key=x"
    assert with_kwargs("CarRacing-v3", {}) == "CarRacing-v3"


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("A-v0?x", "'x' is no argument"),
        ("A-v0?x=1&x=2", "give each once"),
        ("A-v0?1x=1", "no argument"),
        ("A-v0?x=[1]", r"argument x is \[1\]; it must be one number"),
        ("A-v0?x=%7B%7D", "argument x is {}"),
    ],
)
def test_other_arguments_are_refused(env_id: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        envs.make(env_id)
    with pytest.raises(UserError, match=message):
        from_file(env_id, "config.json")
    with pytest.raises(UserError, match="'ab c' is no name"):
        with_kwargs("A-v0", {"ab c": 1})


def test_arguments_of_an_id_reach_the_environment() -> None:
    env: Any = envs.make(f"{ODD}?length=9&case=grey")
    assert env.unwrapped.length == 9
    assert env.observation_space.shape == (12, 16)
    with pytest.raises(UserError, match=r"cannot be made with \{'wings': 2\}"):
        envs.make("CarRacing-v3?wings=2")


def test_files_keep_the_arguments() -> None:
    assert from_file("CarRacing-v3?a=1", "f") == "CarRacing-v3?a=1"
    assert from_file("no_such_module:CarRacing-v3?a=b:c", "f") == "CarRacing-v3?a=b:c"
    with pytest.raises(UserError, match="trust the module no_such_module, give --env"):
        from_file("no_such_module:None-v0?a=1", "f")


@pytest.mark.parametrize(
    ("words", "whole"),
    [
        ("--env A-v0 --obs-key b", "--env A-v0?obs_key=b"),
        ('--env-kwargs {"n":4} --env=A-v0 --out x', "--env=A-v0?n=4 --out x"),
        ('--env-id A-v0 --env-kwargs={"n":4} --obs_key=k', "--env-id A-v0?n=4&obs_key=k"),
        ("--env A-v0 --out x", "--env A-v0 --out x"),
    ],
)
def test_options_become_part_of_the_id(words: str, whole: str) -> None:
    assert whole_env(words.split()) == whole.split()


def test_options_that_are_no_arguments_are_refused() -> None:
    with pytest.raises(UserError, match="give --env too"):
        whole_env(["--obs-key", "b"])
    with pytest.raises(UserError, match="--env-kwargs is '4'; it must be a JSON object"):
        whole_env(["--env", "A-v0", "--env-kwargs", "4"])
    with pytest.raises(UserError, match="argument n is"):
        whole_env(["--env", "A-v0", "--env-kwargs", '{"n": [1]}'])


def test_every_stage_makes_the_same_environment(tmp_path: Path) -> None:
    """Collection and measurement get the arguments, and what they write has them."""
    words = ["--env", ODD, "--env-kwargs", '{"length": 3}']
    out = str(tmp_path / "episodes")
    collect = ["collect", "--preset", "smoke", "--out", out, "--episodes", "2", "--workers", "1"]
    assert cli.main([*collect, *words]) == 0
    assert f"{ODD}?length=3" in (tmp_path / "episodes" / "0" / "manifest.json").read_text()
    result = tmp_path / "result.json"
    evaluate = ["evaluate", "--agent", "random", "--episodes", "2", "--json", str(result)]
    assert cli.main([*evaluate, *words, "--workers", "1"]) == 0
    assert '"length": 3' in result.read_text() and f"{ODD}?length=3" in result.read_text()


def test_the_current_folder_is_looked_in_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = f"open({str(tmp_path / 'harm')!r}, 'w')\n"
    for name in ("json", "numpy"):
        (tmp_path / f"{name}.py").write_text(trace)
    (tmp_path / "lies_here.py").write_text("import json, numpy, lies_beside\n")
    (tmp_path / "lies_beside.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    with pytest.raises(UserError, match="'Here-v0' is unknown"):
        envs.make("lies_here:Here-v0")
    assert "lies_beside" in sys.modules
    assert sys.path[-1] == str(tmp_path) and sys.path[0] != str(tmp_path)
    assert not (tmp_path / "harm").exists()


YOURS = """
import gymnasium as gym
import numpy as np

class YourEnv(gym.Env):
    observation_space = gym.spaces.Box(0, 255, (8, 8, 3), np.uint8)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = 0.0
        return self.frame(), {}

    def step(self, action):
        self.x += self.np_random.random() + action
        return self.frame(), float(action), False, False, {}

    def frame(self):
        frame = np.zeros((8, 8, 3), np.uint8)
        frame[:, int(self.x) % 8] = 200
        return frame

gym.register("YourEnv-v0", YourEnv, max_episode_steps=20)
"""
SCRIPT = """
import sys
from worldmodels.cli import main
if __name__ == "__main__":
    sys.exit(main())
"""


def test_the_installed_script_finds_a_module_of_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "your_package.py").write_text(YOURS)
    script = Path(sys.executable).with_name("worldmodels")
    if not script.exists():  # where it is installed otherwise, one like it
        script = tmp_path / "bin" / "worldmodels"
        script.parent.mkdir()
        script.write_text(SCRIPT)
    words = [sys.executable, str(script), "check", "your_package:YourEnv-v0"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    found = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.startswith("ok: it can be learnt")
