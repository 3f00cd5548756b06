"""Environments of other packages by their plain ids: imported, and made as their tasks need."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from worldmodels import envs
from worldmodels.cli import main
from worldmodels.envs import packages
from worldmodels.protocols import UserError
from worldmodels.tasks import task_for

TAKE_COVER, FREEWAY, MEMORY = "VizdoomTakeCover-v1", "ALE/Freeway-v5", "MiniGrid-MemoryS7-v0"
NEEDS = {TAKE_COVER: "vizdoom", FREEWAY: "ale_py", MEMORY: "minigrid"}


def made(env_id: str) -> gym.Env[Any, Any]:
    """The environment, where its package is installed."""
    pytest.importorskip(next(NEEDS[name] for name in NEEDS if name[:4] in env_id))
    return envs.make(env_id)


@pytest.mark.parametrize(
    ("env_id", "shape", "actions", "limit", "task"),
    [
        (TAKE_COVER, (200, 320, 3), 3, 525, "take-cover"),
        (f"{TAKE_COVER}?frame_skip=1", (200, 320, 3), 3, 2100, "take-cover"),
        (f"{TAKE_COVER}?screen_resolution=RES_160X120", (100, 160, 3), 3, 525, "take-cover"),
        (f"{TAKE_COVER}?obs_key=screen", (200, 320, 3), 3, 525, "take-cover"),
        (f"vizdoom.gymnasium_wrapper:{TAKE_COVER}", (200, 320, 3), 3, 525, "take-cover"),
        ("VizdoomBasic-v1?frame_skip=4", (240, 320, 3), 4, 75, "default"),
        (FREEWAY, (210, 160, 3), 3, 2048, "freeway"),
        (f"{FREEWAY}?frameskip=2", (210, 160, 3), 3, 4096, "freeway"),
        ("ALE/Pong-v5", (210, 160, 3), 6, 27000, "default"),
        (MEMORY, (56, 56, 3), 7, 245, "minigrid-memory"),
        ("MiniGrid-Empty-8x8-v0", (56, 56, 3), 7, 256, "default"),
        ("MiniGrid-Empty-8x8-v0?render_mode=rgb_array", (256, 256, 3), 7, 256, "default"),
    ],
)
def test_a_plain_id(
    env_id: str, shape: tuple[int, ...], actions: int, limit: int, task: str
) -> None:
    env = made(env_id)
    assert env.observation_space.shape == shape
    assert env.action_space == gym.spaces.Discrete(actions)
    assert envs.time_limit(env) == limit
    assert task_for(env_id).name == task
    assert env.reset(seed=1)[0].shape == shape
    env.close()


def test_take_cover_is_the_plain_game_without_its_lowest_sixth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Colours, pay and episodes are the package's own; only fewer rows are handed out."""
    monkeypatch.chdir(tmp_path)  # the plain one writes into the current folder
    env = made(TAKE_COVER)
    plain = gym.make(TAKE_COVER, frame_skip=4)
    frame, _ = env.reset(seed=7)
    obs, _ = plain.reset(seed=7)
    total, terminated = 0.0, False
    while not terminated:
        np.testing.assert_array_equal(frame, obs["screen"][:200])
        action = int(total) % 3
        frame, reward, terminated, truncated, _ = env.step(action)
        obs, paid, *ends, _ = plain.step(action)
        assert (reward, terminated, truncated) == (paid, *ends)
        total += float(reward)
    assert 100 < total < 2100
    env.close()
    plain.close()


def test_doom_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    env = made(TAKE_COVER)
    env.reset(seed=1)
    env.close()
    assert not list(tmp_path.iterdir())


def test_the_walls_of_take_cover_are_brown() -> None:
    """So the colours are red, green, blue."""
    env = made(TAKE_COVER)
    wall = env.reset(seed=7)[0][100:110].reshape(-1, 3).mean(axis=0)
    assert wall[0] > wall[1] > wall[2]
    env.close()


def test_a_game_of_freeway_ends_by_its_clock() -> None:
    env = made(f"{FREEWAY}?frameskip=32")
    env.reset(seed=1)
    ends = [env.step(1)[3] for _ in range(256)]
    assert ends == [False] * 255 + [True]
    env.close()


@pytest.mark.parametrize(
    ("env_id", "module", "extra"),
    [
        (TAKE_COVER, "vizdoom", "doom"),
        (FREEWAY, "ale_py", "atari"),
        (MEMORY, "minigrid", "minigrid"),
    ],
)
def test_a_missing_package_is_one_line(
    env_id: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [name for name in gym.registry if packages.recipe(name) is not None]
    for name in known:
        monkeypatch.delitem(gym.registry, name)
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    with pytest.raises(UserError, match=rf"pip install 'worldmodels-control\[{extra}\]'"):
        envs.make(env_id)
    assert task_for(env_id).name != "default"  # known without it


def test_the_command_line_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if importlib.util.find_spec("vizdoom") is not None:
        pytest.skip("the package is installed")
    status = main(["run", "--preset", "smoke", "--env", TAKE_COVER, "--out", str(tmp_path / "a")])
    said = capsys.readouterr().err
    assert status == 2
    assert said.count("\n") == 1 and "pip install 'worldmodels-control[doom]'" in said


def test_ids_of_other_packages_are_left_alone() -> None:
    assert packages.recipe("CartPole-v1") is None
    assert packages.recipe("my/VizdoomTakeCover-v1") is None


@pytest.mark.parametrize(
    ("env_id", "rate"), [(TAKE_COVER, 8.75), (f"{TAKE_COVER}?frame_skip=1", 35), (FREEWAY, 15)]
)
def test_steps_are_counted_in_the_games_own_time(env_id: str, rate: float) -> None:
    env = made(env_id)
    assert env.metadata["render_fps"] == rate
    env.close()
