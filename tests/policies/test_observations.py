"""All policies take one observation or a batch of their environment's shape, and nothing else."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecTransposeImage

from baselines.pixels import PixelConfig
from baselines.policies import PixelPolicy
from tests.agents import PEDALS, Pixels, make
from tests.baselines.test_pixels import Spy
from worldmodels.agent import Agent
from worldmodels.dream.starts import DreamStarts
from worldmodels.envs.frames import FrameSpec
from worldmodels.memory.rewards import RewardModel
from worldmodels.planning import planners
from worldmodels.policies.ensemble import Ensemble
from worldmodels.policies.observations import (
    FORGETFUL_CALLS,
    as_batch,
    as_starts,
    declared_shape,
)
from worldmodels.policies.planning import PlanningPolicy
from worldmodels.protocols import Policy, UserError

COLOUR, GREY = (96, 96, 3), (96, 96)


def zeros(*shape: int) -> NDArray[np.uint8]:
    return np.zeros(shape, np.uint8)


def planner() -> PlanningPolicy:
    rng = np.random.default_rng(0)
    starts = DreamStarts(
        *(rng.standard_normal(s).astype(np.float32) for s in ((3, 4), (1, 3, 8), (1, 3, 8)))
    )
    agent = make(starts=starts, reward_model=RewardModel("event"))
    return PlanningPolicy(agent, "rollout", planners.defaults("rollout"))


POLICIES: dict[str, Callable[[], Policy]] = {
    "agent": make,
    "repeating agent": lambda: make(action_repeat=2, inputs="z"),
    "ensemble": lambda: Ensemble([make(), make(seed=1), make(seed=2)]),
    "planner": planner,
    "pixels": lambda: PixelPolicy(Spy(), PixelConfig(size=8), observation_shape=COLOUR),
}
every_policy = pytest.mark.parametrize("name", POLICIES)


@pytest.mark.parametrize(
    ("found", "shape", "batch", "single"),
    [
        (COLOUR, COLOUR, 1, True),
        ((1, *COLOUR), COLOUR, 1, False),
        ((5, *COLOUR), COLOUR, 5, False),
        (GREY, GREY, 1, True),
        ((3, *GREY), GREY, 3, False),  # three grey frames, not one with the channels first
        ((96, 96, 1), GREY, 1, True),
        ((3, 96, 96, 1), GREY, 3, False),
        ((3, 96, 96), (96, 96, 1), 3, False),
        (COLOUR, None, 1, True),
        (GREY, None, 1, True),
        ((2, *COLOUR), None, 2, False),
        ((2, 96, 96, 1), None, 2, False),
    ],
)
def test_one_observation_or_a_batch(found: Any, shape: Any, batch: int, single: bool) -> None:
    frames, alone = as_batch(zeros(*found), shape)
    channels = 3 if found[-1] == 3 else 1
    assert (frames.shape, alone) == ((batch, 96, 96, channels), single)


@pytest.mark.parametrize(
    ("found", "shape"),
    [
        ((3, 96, 96), COLOUR),
        ((4, 96, 96), COLOUR),
        ((96, 96, 12), COLOUR),
        ((96, 96, 4), COLOUR),
        ((96, 96), COLOUR),
        ((96, 96, 1), COLOUR),
        ((64, 64, 3), COLOUR),
        ((0, 96, 96, 3), COLOUR),
        ((2, 3, 96, 96), COLOUR),
        ((1, 1, 96, 96, 3), COLOUR),
        ((), COLOUR),
        (COLOUR, GREY),
        ((96, 64), GREY),
        ((3, 96, 96), None),
        ((96, 96, 4), None),
        ((2, 3, 96, 96), None),
    ],
)
def test_other_layouts_are_refused(found: Any, shape: Any) -> None:
    with pytest.raises(UserError, match=re.escape(f"the observation has shape {found}")):
        as_batch(zeros(*found), shape)


def test_other_types_and_counts_are_refused() -> None:
    with pytest.raises(UserError, match="type float32; it must be uint8"):
        as_batch(np.zeros(COLOUR, np.float32), COLOUR)
    assert as_starts(None, 3, None).tolist() == [True] * 3
    assert as_starts([True], 3, 3).tolist() == [True] * 3
    assert as_starts([True, False], 2, 2).tolist() == [True, False]
    with pytest.raises(UserError, match=r"episode_start has shape \(2,\); 3 observations need"):
        as_starts([True, False], 3, 3)
    with pytest.raises(UserError, match="2 frames were given with the state of 3"):
        as_starts(None, 2, 3)


@every_policy
def test_every_policy_checks_and_has_sb3s_keywords(name: str) -> None:
    policy = POLICIES[name]()
    for layout in ((3, 96, 96), (96, 96, 12), (64, 64, 3)):
        with pytest.raises(UserError, match=re.escape(f"has shape {layout}; this policy sees")):
            policy.predict(zeros(*layout))
    action, state = policy.predict(observation=zeros(*COLOUR), deterministic=True)
    again, _ = policy.predict(zeros(*COLOUR), state=state, episode_start=np.ones(1, np.bool_))
    batch, _ = policy.predict(zeros(2, *COLOUR), episode_start=np.ones(2, np.bool_))
    assert (2, *action.shape) == (2, *again.shape) == batch.shape


@every_policy
def test_a_dropped_state_is_told_once(name: str) -> None:
    policy = POLICIES[name]()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        state = None
        for _ in range(FORGETFUL_CALLS + 1):  # as it should be
            _, state = policy.predict(zeros(*COLOUR), state)
        for _ in range(FORGETFUL_CALLS + 1):  # every call an episode of its own
            policy.predict(zeros(*COLOUR), episode_start=np.ones(1, np.bool_))
        assert not caught
        for _ in range(2 * FORGETFUL_CALLS + 1):
            policy.predict(zeros(*COLOUR))
    assert [str(w.message)[:38] for w in caught] == ["predict() was called 20 times in a row"]
    assert caught[0].filename == __file__


def test_what_remembers_nothing_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent = make(inputs="z")
        for _ in range(FORGETFUL_CALLS + 1):
            agent.predict(zeros(*COLOUR))


def test_the_shape_is_kept_in_the_folder(tmp_path: Path) -> None:
    folder = make(observation_shape=GREY).save_pretrained(tmp_path / "agent")
    assert Agent.from_pretrained(folder).observation_shape == GREY
    config = folder / "config.json"
    content = json.loads(config.read_text())
    wrong: Any
    for wrong in ("96", [96], [96, 96, 4], [0, 96], [96.5, 96], {}, [1, 96, 96, 3]):
        config.write_text(json.dumps({**content, "observation_shape": wrong}))
        with pytest.raises(UserError, match=r"config\.json: observation_shape"):
            Agent.from_pretrained(folder)


def test_agents_of_earlier_versions_ask_their_environment(tmp_path: Path) -> None:
    folder = make().save_pretrained(tmp_path / "agent")
    config = folder / "config.json"
    content = json.loads(config.read_text())
    assert content.pop("observation_shape") == [96, 96, 3]
    config.write_text(json.dumps(content))
    assert Agent.from_pretrained(folder).observation_shape == COLOUR
    config.write_text(json.dumps({**content, "env_id": "gone/Away-v0"}))
    unknown = Agent.from_pretrained(folder)
    assert unknown.observation_shape is None
    unknown.predict(zeros(64, 64, 3))
    with pytest.raises(UserError, match="does not know the shape"):
        unknown.predict(zeros(3, 96, 96))
    unknown.check_env(Pixels(gym.spaces.Box(np.array([-1, 0, 0], np.float32), np.float32(1))))
    with pytest.raises(UserError, match=r"this policy sees \(96, 96, 3\)"):
        unknown.predict(zeros(64, 64, 3))


def test_a_folder_names_no_code_that_is_run() -> None:
    assert declared_shape("this:CarRacing-v3") is None  # the module prints poetry when imported


def test_an_environment_of_another_size_is_refused() -> None:
    env = Pixels(gym.spaces.Box(np.array([-1, 0, 0], np.float32), np.float32(1)))
    env.observation_space = gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    with pytest.raises(UserError, match=r"sees frames \(96, 96, 3\).*gives \(64, 64, 3\)"):
        make().check_env(env)


@pytest.mark.filterwarnings("ignore:Evaluation environment is not wrapped")
@every_policy
def test_sb3_evaluates_vectors(name: str) -> None:
    space = gym.spaces.Box(np.array(PEDALS.low, np.float32), np.array(PEDALS.high, np.float32))
    policy: Any = POLICIES[name]()
    if name == "pixels":
        space = gym.spaces.Box(np.float32(-1), np.float32(1), (2,))
    env = DummyVecEnv([lambda: Pixels(space)] * 2)
    assert evaluate_policy(policy, env, n_eval_episodes=4) == (7.0, 0.0)
    with pytest.raises(UserError, match="channels come last, so leave VecTransposeImage out"):
        evaluate_policy(policy, VecTransposeImage(env), n_eval_episodes=1)


def test_grey_agents_drive_grey_frames() -> None:
    agent = make(observation_shape=GREY)
    agent.frame_spec = FrameSpec()
    actions, _ = agent.predict(zeros(3, *GREY), deterministic=True)
    assert actions.shape == (3, 3)
