"""Whatever drives hands out actions of the environment's space, and M hears of just those."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from tests.experience.fakes import EchoPolicy
from tests.planning.conftest import H, MakeAgent, S, Z
from tests.planning.test_policy import CFG, METHODS, SMALL, frames
from worldmodels.agent import Agent
from worldmodels.envs.spaces import ActionSpec
from worldmodels.evaluation.policies import RandomPolicy
from worldmodels.experience.exploration import AgentNoiseConfig, build_behaviour
from worldmodels.memory.interface import MemoryState
from worldmodels.memory.mdn_rnn import MDNRNN
from worldmodels.planning import planners
from worldmodels.planning.actor_critic import train_policy
from worldmodels.planning.imitation import ImitationConfig, collect_decisions, imitate
from worldmodels.planning.networks import Actor, NetworkConfig
from worldmodels.planning.objective import Belief
from worldmodels.planning.streams import residual_training
from worldmodels.policies.ensemble import Ensemble
from worldmodels.policies.learned import MeanActor, PolicyFile, StackedActors, origin
from worldmodels.policies.planning import PlanningPolicy
from worldmodels.protocols import Policy, UserError

B = 3
SPEC = ActionSpec("discrete", 3, start=5)
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


def test_an_ensemble(make_agent: MakeAgent, space: Any) -> None:
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


def paying(make_agent: MakeAgent, choice: int) -> Agent:
    """C always takes the first of three choices, and M pays for another one."""
    agent = make_agent(spec=ActionSpec("discrete", 3), action_repeat=1)
    memory = agent.memories[0]
    assert isinstance(memory, MDNRNN)
    weight = memory.lstm.all_weights[0][0]
    with torch.no_grad():
        weight[:, Z + choice] = 0.0
        weight[2 * H, Z + choice] = 3.0  # cell candidate of unit 0
        memory.reward.weight.zero_()
        memory.reward.weight[0, 0] = 4.0
    return agent.with_parameters(np.zeros_like(agent.parameters))


@pytest.mark.parametrize("method", METHODS)
def test_a_planner_finds_a_better_choice_than_c_s(make_agent: MakeAgent, method: str) -> None:
    """By its usual settings, but rollouts search without an alarm."""
    agent, cfg = paying(make_agent, 2), planners.defaults(method)
    cfg = dataclasses.replace(cfg, rollout=dataclasses.replace(cfg.rollout, alarm=0.0))
    policy = PlanningPolicy(agent, method, cfg)
    assert agent.starts is not None
    firsts = []
    for start in range(S):
        plan = policy.plan(Belief.recorded(agent.starts, start), None, start)
        firsts.append(int(plan.actions[0].argmax()))
    assert np.mean(np.equal(firsts, 2)) > 0.4


def test_a_residual_changes_choices_that_do_not_pay(make_agent: MakeAgent) -> None:
    agent = paying(make_agent, 2)
    training = dataclasses.replace(residual_training(), steps=120, batch_size=32, horizon=5)
    training = dataclasses.replace(training, critic_warmup_steps=20, ema_decay=0.0, actors=1)
    actor, _ = train_policy(agent, training, seed=0)
    z, h = torch.randn(64, agent.z_dim), torch.randn(64, agent.h_dim).tanh()
    with torch.no_grad():
        assert (agent.linear(z, h).argmax(-1) == 0).all()
        assert (MeanActor(actor)(z, h).argmax(-1) == 2).float().mean() > 0.6


@pytest.mark.parametrize("method", METHODS)
def test_planners_and_their_networks_take_a_c_that_sees_c(
    make_agent: MakeAgent, method: str
) -> None:
    agent = make_agent(2, spec=SPEC, inputs="zhc", discrete="thresholds")
    policy = PlanningPolicy(agent, method, CFG)
    state = drive(policy, SPEC.to_space())
    for network in (NetworkConfig(8, 1, residual=0.5), NetworkConfig(8, 1, components=0)):
        actor = Actor.of(agent, network).eval()
        drive(agent.with_policy(MeanActor(actor)), SPEC.to_space())
        seen = [torch.from_numpy(state.z), torch.from_numpy(state.h[:, 0])]
        seen[1] = MemoryState(seen[1], torch.from_numpy(state.c[:, 0])).seen(carry=True)
        with torch.inference_mode():
            np.testing.assert_array_equal(StackedActors([actor])(*seen), MeanActor(actor)(*seen))
    found = imitate(
        agent,
        collect_decisions(policy, ImitationConfig(dreams=1, decisions=2), 0),
        ImitationConfig(epochs=1, network=NetworkConfig(8, 1)),
        seed=0,
    )
    drive(agent.with_policy(MeanActor(found)), SPEC.to_space())


@pytest.mark.parametrize("critic", [True, False])
def test_a_policy_is_trained_for_a_c_that_sees_c(
    make_agent: MakeAgent, tmp_path: Path, critic: bool
) -> None:
    agent = make_agent(2, spec=SPEC, inputs="zhc")
    training = dataclasses.replace(
        SMALL, critic=critic, tail=0 if critic else 2, network=NetworkConfig(8, 1, residual=0.5)
    )
    actor, value = train_policy(agent, training, seed=0)
    file = PolicyFile((actor,), value, "residual", origin(agent, training.network))
    file.save(tmp_path / "residual.safetensors")
    loaded = PolicyFile.load(tmp_path / "residual.safetensors", agent)
    drive(agent.with_policy(loaded.policy), SPEC.to_space())


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
