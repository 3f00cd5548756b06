"""Whatever drives hands out actions of the environment's space, and M hears of just those."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from tests.experience.fakes import EchoPolicy
from tests.planning.conftest import MakeAgent
from tests.planning.test_policy import CFG, METHODS, frames
from worldmodels.envs.spaces import ActionSpec
from worldmodels.evaluation.policies import RandomPolicy
from worldmodels.experience.exploration import AgentNoiseConfig, build_behaviour
from worldmodels.planning.networks import Actor, NetworkConfig
from worldmodels.policies.ensemble import Ensemble
from worldmodels.policies.learned import MeanActor, StackedActors
from worldmodels.policies.planning import PlanningPolicy
from worldmodels.protocols import Policy, UserError

B = 3
SPACES = [
    spaces.Discrete(3, start=5),
    spaces.Box(np.array([0, -3]), np.array([4, 3]), dtype=np.int64),
    spaces.Box(np.array([0, -0.1]), np.array([0.1, 0.3]), dtype=np.float64),
    spaces.Box(np.array([0, -0.1], np.float32), np.array([0.1, 0.3], np.float32)),
]


@pytest.fixture(params=SPACES, ids=str)
def space(request: pytest.FixtureRequest) -> Any:
    return request.param


def drive(policy: Policy, space: Any) -> Any:
    """Three steps, so that an action is held once; the last state."""
    state = None
    for t in range(3):
        actions, state = policy.predict(frames(B, t), state, deterministic=True)
        assert len(actions) == B
        assert all(space.contains(action) for action in actions)
    single, _ = policy.predict(frames(1)[0], deterministic=True)
    assert space.contains(single)
    return state


def test_an_agent(make_agent: MakeAgent, space: Any) -> None:
    agent = make_agent(spec=ActionSpec.from_space(space))
    state = drive(agent, space)
    seen = state.action
    assert np.allclose(agent.action_spec.encode(agent.action_spec.decode(seen)), seen)
    told = agent.executed(state, np.array([space.sample() for _ in range(B)]))
    assert told.action.shape == seen.shape


@pytest.mark.parametrize("method", METHODS)
def test_a_planner(make_agent: MakeAgent, space: Any, method: str) -> None:
    agent = make_agent(spec=ActionSpec.from_space(space))
    state = drive(PlanningPolicy(agent, method, CFG), space)
    if agent.action_spec.integer:
        assert np.array_equal(state.action, np.rint(state.action))


def test_a_committee(make_agent: MakeAgent, space: Any) -> None:
    agent = make_agent(spec=ActionSpec.from_space(space))
    drive(Ensemble([agent, agent.with_parameters(-agent.parameters)]), space)


@pytest.mark.parametrize("residual", [0.0, 0.5])
def test_a_trained_policy(make_agent: MakeAgent, space: Any, residual: float) -> None:
    agent = make_agent(spec=ActionSpec.from_space(space))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        actor = Actor.of(agent, NetworkConfig(8, 1, residual=residual)).eval()
    state = drive(agent.with_policy(MeanActor(actor)), space)
    z, h = torch.from_numpy(state.z), torch.from_numpy(state.h)
    with torch.inference_mode():
        dreamt, shown = StackedActors([actor])(z, h), actor.tried(actor(z, h)[0])
    assert torch.allclose(dreamt, shown, atol=1e-5)
    if agent.action_spec.integer:
        assert torch.equal(dreamt, dreamt.round())
        assert np.array_equal(state.action, np.rint(state.action))


def test_c_in_the_dream(make_agent: MakeAgent, space: Any) -> None:
    """What M sees of C in the dream is what the environment would be given."""
    agent = make_agent(spec=ActionSpec.from_space(space), action_repeat=1)
    state = drive(agent, space)
    z, h = (torch.from_numpy(part) for part in (state.z, state.h))
    with torch.inference_mode():
        seen = agent.act(z, h).numpy()
    assert np.array_equal(agent.action_spec.encode(agent.action_spec.decode(seen)), seen)


def test_the_dream_has_the_space_of_reality(make_agent: MakeAgent, space: Any) -> None:
    env = gym.make("worldmodels/Dream-v0", agent=make_agent(spec=ActionSpec.from_space(space)))
    assert env.action_space == space
    env.reset(seed=0)
    env.step(env.action_space.sample())


def test_disturbed_and_random_driving(space: Any) -> None:
    spec = ActionSpec.from_space(space)
    first = 5 if spec.kind == "discrete" else tuple(space.low.tolist())
    env: Any = gym.Env()
    env.action_space, env.spec = space, None
    noisy = build_behaviour(
        AgentNoiseConfig(agent=".", burst_probability=0.5, random_start_probability=0.5),  # type: ignore[arg-type]  # not opened
        env,
        lambda folder: EchoPolicy(first),
    )
    active = np.ones(B, np.bool_)
    taken = []
    for driver in (noisy, RandomPolicy(space)):
        driver.start(range(B))
        for _ in range(60):
            actions = spec.to_env(np.asarray(driver.act(frames(B)[:, :8, :8], active)))
            assert all(space.contains(action) for action in actions)
            taken.append(actions)
    if spec.kind == "discrete" or spec.integer:  # every choice is taken, the last one too
        column = np.concatenate(taken[60:]).reshape(60 * B, -1)[:, 0]
        assert set(column.tolist()) == set(range(*((5, 8) if spec.kind == "discrete" else (0, 5))))


def test_choices_from_another_number_are_other_actions(make_agent: MakeAgent) -> None:
    agent = make_agent(spec=ActionSpec("discrete", 3, start=5))
    env: Any = gym.Env()
    env.spec, env.action_space = None, spaces.Discrete(3)
    with pytest.raises(
        UserError, match=r"with 3 discrete actions from 5; .* has 3 discrete actions:"
    ):
        agent.check_env(env)
