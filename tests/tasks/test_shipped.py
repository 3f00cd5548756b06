"""The tasks that ship: found by id, with facts only; everything else is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from worldmodels import envs
from worldmodels.commands.check import checked
from worldmodels.envs import ActionSpec, FrameSpec, to_vision
from worldmodels.presets import quick
from worldmodels.tasks import task_for
from worldmodels.tasks.classic import ReversingFlip

SHIPPED = {
    "VizdoomTakeCover-v1": ("take-cover", 750.0),
    "CartPole-v1": ("cart-pole", 475.0),
    "Pendulum-v1": ("pendulum", None),
    "ALE/Freeway-v5": ("freeway", None),
    "MiniGrid-MemoryS7-v0": ("minigrid-memory", None),
    "MiniGrid-MemoryS13Random-v0": ("minigrid-memory", None),
}


@pytest.mark.parametrize("env_id", SHIPPED)
def test_a_task_is_found_without_its_package_and_has_no_settings(env_id: str) -> None:
    task = task_for(env_id)
    assert (task.name, task.solved) == SHIPPED[env_id]
    assert not task.settings
    assert task.returns is not None and task.returns[0] < task.returns[1]
    assert task.words.score is not None
    assert task.test_env(env_id) == env_id


def test_a_task_without_settings_is_measured(tmp_path: Path) -> None:
    cfg = quick("CartPole-v1")
    record = checked(tmp_path, cfg, "quick")
    assert record is not None
    assert record.settings["dream.horizon"] == 500
    assert checked(tmp_path / "other", quick(), "quick") is None


def frames(env_id: str, state: NDArray[Any], action: Any) -> NDArray[np.uint8]:
    """V's view (64, 64, 3) after an action in a state."""
    env = envs.make(env_id)
    env.reset(seed=1)
    inner: Any = env.unwrapped
    inner.state = state
    found = to_vision(env.step(action)[0], FrameSpec())
    env.close()
    return found


@pytest.mark.parametrize(
    ("env_id", "state", "action"),
    [
        ("CartPole-v1", [0.5, 0.2, 0.1, -0.3], np.int64(1)),
        ("Pendulum-v1", [0.8, 0.4], np.array([1.5], np.float32)),
    ],
)
def test_the_flip_shows_what_the_flipped_world_would(
    env_id: str, state: list[float], action: NDArray[Any]
) -> None:
    env = envs.make(env_id)
    flip = task_for(env_id).flip(env_id, FrameSpec(), ActionSpec.from_space(env.action_space))
    env.close()
    assert isinstance(flip, ReversingFlip)
    there = frames(env_id, np.array(state), action)
    other = flip.actions(np.stack([action]))[0]
    here = frames(env_id, -np.array(state), other)
    difference = np.abs(flip.frames(here).astype(int) - there)
    unlike = np.abs(here.astype(int) - there)
    assert difference.mean() < 0.15 * unlike.mean()
    np.testing.assert_array_equal(flip.actions(flip.actions(np.stack([action])))[0], action)
