"""Copies of dreams continue as the original does: copied, pickled, sent to another process."""

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

from worldmodels.dream.config import DreamConfig
from worldmodels.dream.env import Dream, DreamVector
from worldmodels.dream.sb3 import DreamVecEnv

from .conftest import MakeAgent

NAME = "worldmodels/Dream-v0"
N, STEPS = 3, 12
WAYS: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda env: pickle.loads(pickle.dumps(env)),
}
OPTIONS: list[dict[str, Any]] = [
    {"dtype": "float32"},
    {"dtype": "bfloat16", "ensemble": "per_step", "dropout": 0.3, "termination": "off"},
]


def drive(env: Any, seed: int | None, steps: int = STEPS) -> list[Any]:
    """What ``steps`` steps give, after a reset where there is a seed."""
    seen = [] if seed is None else [*env.reset(seed=seed)]
    rng = np.random.default_rng(0)
    box = env.action_space
    for _ in range(steps):
        seen += env.step(rng.uniform(box.low, box.high).astype(np.float32))
    return seen


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("options", OPTIONS, ids=["alone", "ensemble"])
@pytest.mark.parametrize("backend", ["kernels", "torch"])
@pytest.mark.parametrize("vector", [False, True], ids=["single", "vector"])
def test_a_copy_dreams_as_the_original(
    make_agent: MakeAgent, vector: bool, backend: str, options: dict[str, Any], way: str
) -> None:
    agent, cfg = make_agent(2), DreamConfig(backend=backend, horizon=9, **options)  # type: ignore[arg-type]  # a literal
    env: Any = DreamVector(agent, N, cfg=cfg) if vector else Dream(agent, cfg=cfg)
    fresh = WAYS[way](env)
    seen = drive(env, 1)
    np.testing.assert_equal(drive(fresh, 1), seen)
    for steps in (0, 5):  # just reset, and in the middle of a dream
        drive(env, 2, steps)
        other = WAYS[way](env)
        continued = drive(other, None)
        np.testing.assert_equal(drive(env, None), continued)
        assert len({str(part) for part in continued[::5]}) == STEPS  # observations change
        np.testing.assert_equal(drive(other, 1), seen)


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_for_sb3_dreams_as_the_original(make_agent: MakeAgent, way: str) -> None:
    env = DreamVecEnv(DreamVector(make_agent(), N, horizon=9), seed=1)
    env.reset()
    other = WAYS[way](env)
    actions = np.zeros((N, 3), np.float32)
    seen = [env.step(actions) for _ in range(STEPS)]
    np.testing.assert_equal([other.step(actions) for _ in range(STEPS)], seen)


def test_a_process_dreams_as_the_original(make_agent: MakeAgent) -> None:
    env = Dream(make_agent(), termination="off")
    low = env.action_space.low  # type: ignore[attr-defined]  # a Box
    first = env.reset(seed=1)[0]
    seen = [env.step(low)[:2] for _ in range(STEPS)]
    vec = SubprocVecEnv([lambda: env], start_method="spawn")
    try:
        vec.seed(1)
        np.testing.assert_array_equal(vec.reset()[0], first)  # type: ignore[index]  # an array
        for obs, reward in seen:
            theirs, rewards, *_ = vec.step(low[None])
            np.testing.assert_array_equal(theirs[0], obs)  # type: ignore[index]  # an array
            assert rewards[0] == np.float32(reward)
    finally:
        vec.close()


@pytest.mark.filterwarnings("ignore:.*infinity.*")  # z has no bounds
def test_an_async_vector_dreams_as_the_original(make_agent: MakeAgent) -> None:
    env = gym.make(NAME, agent=make_agent(), termination="off")
    first = env.reset(seed=1)[0]
    low = env.action_space.low  # type: ignore[attr-defined]  # a Box
    seen = [env.step(low)[:2] for _ in range(STEPS)]
    vec = AsyncVectorEnv([lambda: env], context="spawn")
    try:
        np.testing.assert_array_equal(vec.reset(seed=1)[0][0], first)
        for obs, reward in seen:
            theirs, rewards, *_ = vec.step(low[None])
            np.testing.assert_array_equal(theirs[0], obs)
            assert rewards[0] == reward
    finally:
        vec.close()


def test_a_copy_of_the_shipped_dream_has_its_return() -> None:
    """-9.1648 in float32, where both backends agree; bfloat16 rounds to another dream."""
    for backend in ("kernels", "torch"):
        env = Dream("car-racing", backend=backend, dtype="float32")
        dreams: list[Any] = [env, copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
        for dream in dreams:
            dream.reset(seed=1)
            rewards = [dream.step(dream.action_space.low)[1] for _ in range(30)]
            assert sum(rewards) == pytest.approx(-9.1648, abs=1e-3)
