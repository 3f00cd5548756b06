"""Copies of CarRacing continue as the original does: copied, pickled, in another process."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv
from stable_baselines3.common.vec_env import SubprocVecEnv

from worldmodels.envs.car_racing import FastCarRacing
from worldmodels.envs.car_racing import env as car_racing
from worldmodels.protocols import UserError

ID = "worldmodels/CarRacing-v3"
STEPS = 40
WAYS: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda env: pickle.loads(pickle.dumps(env)),
}


def drive(env: Any, seed: int | None, steps: int = STEPS) -> list[Any]:
    """What ``steps`` steps give, after a reset where there is a seed."""
    seen = [] if seed is None else [*env.reset(seed=seed)]
    rng = np.random.default_rng(steps)
    for step in range(steps):
        if step % 8 == 0:
            action: Any = 3 if step < 16 else int(rng.integers(5))
            if isinstance(env.action_space, gym.spaces.Box):
                action = rng.uniform([-1, 0.5, 0], [1, 1, 0.3])
        seen += env.step(action)
    return seen


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "kwargs", [{}, {"continuous": False, "domain_randomize": True}], ids=["box", "discrete"]
)
def test_a_copy_drives_as_the_original(kwargs: dict[str, Any], way: str) -> None:
    env: Any = FastCarRacing(render_mode="rgb_array", **kwargs)
    fresh = WAYS[way](env)
    seen = drive(env, 1)
    np.testing.assert_equal(drive(fresh, 1), seen)
    for steps in (0, 150):  # just reset, and in the middle of an episode
        drive(env, 2, steps)
        other = WAYS[way](env)
        np.testing.assert_equal(other.render(), env.render())
        continued = drive(other, None, 100)
        np.testing.assert_equal(drive(env, None, 100), continued)
        assert len({obs.tobytes() for obs in continued[::5]}) > 50  # it moves
        assert other.car.numbers() == env.car.numbers() and other.car is not env.car
        assert [tile.road_visited for tile in other.road] == [t.road_visited for t in env.road]
        np.testing.assert_equal(other.reset(), env.reset())  # the same generator
        np.testing.assert_equal(drive(other, 1), seen)


def test_a_copy_keeps_what_was_set_and_what_was_not_drawn() -> None:
    env = FastCarRacing(lap_complete_percent=0.01)
    env.reset(seed=3)
    env.lap_complete_percent, env.draws_observations = 0.9, False  # the former from the next reset
    env.step(None)
    other = copy.deepcopy(env)
    assert (other.lap_complete_percent, other.draws_observations) == (0.9, False)
    assert other.contactListener_keepref.lap_complete_percent == 0.01
    np.testing.assert_equal(other.state, env.state)
    np.testing.assert_equal(other.draw_last(), env.draw_last())


def test_the_wrappers_of_a_copy_count_on() -> None:
    env = gym.make(ID, max_episode_steps=30)
    env.reset(seed=0)
    drive(env, None, 20)
    other = copy.deepcopy(env)
    ends = [[step[3] for step in (e.step(np.zeros(3)) for _ in range(10))] for e in (env, other)]
    assert ends[0] == ends[1] == [False] * 9 + [True]


def test_a_car_that_was_moved_is_not_copied() -> None:
    env = FastCarRacing()
    env.reset(seed=0)
    env.car.hull.position = (0, 0)
    with pytest.raises(UserError, match=r"not where step\(\) has put it"):
        copy.deepcopy(env)
    env.reset(seed=0)
    copy.deepcopy(env)


def test_an_episode_without_end_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(car_racing, "MOST_REPLAYED", 4)
    env = FastCarRacing()
    env.reset(seed=0)  # has done a step
    drive(env, None, 2)
    copy.deepcopy(env)
    drive(env, None, 5)
    with pytest.raises(UserError, match=r"4 steps since its last reset.*reset it first"):
        pickle.dumps(env)
    env.reset(seed=0)
    copy.deepcopy(env)


@pytest.mark.parametrize("kind", ["async", "sb3"])
def test_a_process_drives_as_the_original(kind: str) -> None:
    env = gym.make(ID)
    gas = np.array([0.1, 1, 0], np.float32)
    seen: list[Any] = [(env.reset(seed=1)[0], 0.0)] + [env.step(gas)[:2] for _ in range(STEPS)]
    if kind == "async":
        vec: Any = AsyncVectorEnv([lambda: env], context="spawn")
    else:
        vec = SubprocVecEnv([lambda: env], start_method="spawn")
    try:
        vec.reset(seed=1) if kind == "async" else (vec.seed(1), vec.reset())
        for obs, reward in seen[1:]:
            theirs, rewards, *_ = vec.step(gas[None])
            np.testing.assert_array_equal(theirs[0], obs)
            assert np.float32(rewards[0]) == np.float32(reward)
    finally:
        vec.close()
