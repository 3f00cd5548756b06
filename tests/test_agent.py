"""An agent drives alike single and batched, and comes back from its folder as it went in."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.evaluation import evaluate_policy

from tests.agents import BUTTONS, PEDALS, B, H, Pixels, Z, frames, make
from worldmodels.agent import Agent, AgentState
from worldmodels.envs.frames import FrameSpec, to_vision
from worldmodels.envs.spaces import ActionSpec
from worldmodels.memory.transformer import Transformer, TransformerConfig
from worldmodels.protocols import Policy, UserError
from worldmodels.vision.vae import ConvVAE, VAEConfig, to_float


def test_actions_follow_the_definition() -> None:
    agent = make()
    obs = frames(3)
    state, memory = None, agent.memories[0].initial_state(B)
    for t in range(3):
        actions, state = agent.predict(obs[t], state, deterministic=True)
        with torch.no_grad():
            seen = to_float(torch.from_numpy(to_vision(obs[t], agent.frame_spec)))
            z = agent.vision.encode(seen)[0]
            weight = torch.from_numpy(agent.parameters[: 3 * (Z + H)]).reshape(3, Z + H)
            out = torch.cat([z, memory.h], -1) @ weight.T + torch.from_numpy(agent.parameters[-3:])
            want = out.tanh() * torch.tensor([1, 0.5, 1]) + torch.tensor([0, 0.5, 0])
            want[:, 2].clamp_(0, 1)
            np.testing.assert_allclose(state.h, memory.h, atol=1e-5)
            _, memory = agent.memories[0].step(z, want, memory)
        np.testing.assert_allclose(actions, want, atol=1e-5)
    assert isinstance(agent, Policy)


def test_a_controller_with_c_and_thresholds_follows_the_definition(tmp_path: Path) -> None:
    made = make(BUTTONS, inputs="zhc", discrete="thresholds")
    made.save_pretrained(tmp_path / "agent", dtype="float32")
    agent = Agent.from_pretrained(tmp_path / "agent")
    assert agent.controller == made.controller and agent.parameters.size == Z + 2 * H + 1
    obs, state, memory = frames(5), None, agent.memories[0].initial_state(B)
    for t in range(5):
        actions, state = agent.predict(obs[t], state, deterministic=True)
        with torch.no_grad():
            z = torch.from_numpy(state.z)
            seen = torch.cat([z, memory.h, memory.c], -1)
            out = torch.tanh(seen @ torch.from_numpy(agent.parameters[:-1]) + agent.parameters[-1])
            want = (out > -0.5).long() + (out > 0) + (out > 0.5)
            _, memory = agent.memories[0].step(z, torch.eye(4)[want], memory)
        np.testing.assert_array_equal(actions, want)


def test_a_transformer_has_no_c_to_see() -> None:
    agent = make(inputs="zhc")
    memory = Transformer(TransformerConfig(Z, 3, H, 2))
    with pytest.raises(UserError, match="is 'zhc', but a Transformer has no cell"):
        Agent(
            agent.vision,
            [memory],
            agent.controller,
            agent.parameters,
            env_id="CarRacing-v3",
            frame_spec=FrameSpec(84),
            action_spec=PEDALS,
        )


@pytest.mark.parametrize("spec", [PEDALS, BUTTONS])
def test_batched_equals_single(spec: ActionSpec) -> None:
    agent = make(spec)
    obs = frames(4)
    together: AgentState | None = None
    singles: list[AgentState | None] = [None] * B
    for t in range(4):
        actions, together = agent.predict(obs[t], together, deterministic=True)
        for b in range(B):
            action, singles[b] = agent.predict(obs[t, b], singles[b], deterministic=True)
            assert np.shape(action) == actions.shape[1:]
            np.testing.assert_allclose(action, actions[b], atol=1e-5)


def test_episode_start_resets_its_row_only() -> None:
    agent = make()
    obs = frames(3)
    _, state = agent.predict(obs[0], deterministic=True)
    before = state.h.copy()
    start = np.array([False, True, False])
    actions, after = agent.predict(obs[1], state, start, True)
    fresh, _ = agent.predict(obs[1], None, deterministic=True)
    going_on, _ = agent.predict(obs[1], state, None, True)
    np.testing.assert_array_equal(actions[1], fresh[1])
    np.testing.assert_array_equal(actions[[0, 2]], going_on[[0, 2]])
    np.testing.assert_array_equal(state.h, before)  # what was given is not changed
    assert np.abs(after.h - going_on[0, 0]).max() > 0


def test_m_is_told_what_was_executed() -> None:
    agent = make()
    obs = frames(2)
    action, state = agent.predict(obs[0], deterministic=True)
    other = np.roll(action, 1, axis=0)
    _, own = agent.predict(obs[1], agent.executed(state, action), deterministic=True)
    _, plain = agent.predict(obs[1], state, deterministic=True)
    _, told = agent.predict(obs[1], agent.executed(state, other), deterministic=True)
    np.testing.assert_array_equal(own.h, plain.h)
    assert np.abs(told.h - plain.h).max() > 0
    z = torch.from_numpy(state.z)
    _, want = agent.memories[0].step(
        z, torch.from_numpy(other), agent.memories[0].initial_state(len(z))
    )
    np.testing.assert_allclose(told.h, want.h.detach(), atol=1e-5)


def test_sampled_actions_have_an_own_generator() -> None:
    obs = frames(2)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = make(seed=1).predict(obs[0])[0]
    torch.set_rng_state(before)
    np.testing.assert_array_equal(make(seed=1).predict(obs[0])[0], first)
    agent = make(seed=1)
    assert np.abs(agent.predict(obs[0])[0] - agent.predict(obs[0])[0]).max() > 0


def test_grey_frames_and_z_only_and_bfloat16() -> None:
    agent = make(inputs="z", hidden=5, observation_shape=(96, 96))
    grey = frames(1)[0, ..., 0]
    actions, state = agent.predict(grey, deterministic=True)
    assert actions.shape == (B, 3)
    assert not state.h.any()  # M is not needed, so it does not run
    np.testing.assert_allclose(
        agent.predict(grey[0][..., None], None, None, True)[0], actions[0], atol=1e-5
    )
    agent, many = make(inputs="z", hidden=5), frames(1, 8)[0]
    exact = agent.predict(many, deterministic=True)[0]
    agent.bfloat16 = True
    np.testing.assert_allclose(agent.predict(many, deterministic=True)[0], exact, atol=0.05)


def test_an_agent_that_overflows_says_so() -> None:
    agent = make()
    with torch.no_grad():
        for weight in agent.vision.parameters():
            weight.fill_(3e38)
    with pytest.raises(UserError, match="numbers that are not finite"):
        agent.predict(frames(1)[0])


def test_environment_of_another_kind_is_refused() -> None:
    agent = make()
    agent.check_env(Pixels(gym.spaces.Box(np.array([-1, 0, 0], np.float32), np.float32(1))))
    with pytest.raises(UserError, match="has 5 discrete actions"):
        agent.check_env(Pixels(gym.spaces.Discrete(5)))
    with pytest.raises(UserError, match=r"from \[-2.0, -2.0, -2.0\]"):
        agent.check_env(Pixels(gym.spaces.Box(-2, 2, (3,))))
    with pytest.raises(UserError, match="has 3 discrete actions"):
        make(BUTTONS).check_env(Pixels(gym.spaces.Discrete(3)))


@pytest.mark.filterwarnings("ignore:Evaluation environment is not wrapped")
@pytest.mark.parametrize("spec", [PEDALS, BUTTONS])
def test_sb3_evaluates_an_agent(spec: ActionSpec) -> None:
    low, high = np.array(spec.low, np.float32), np.array(spec.high, np.float32)
    discrete = spec.kind == "discrete"
    env = Pixels(gym.spaces.Discrete(4) if discrete else gym.spaces.Box(low, high))
    mean, std = evaluate_policy(make(spec), env, n_eval_episodes=3)  # type: ignore[arg-type]  # any predict will do
    assert (mean, std) == (7.0, 0.0)


def test_other_parameters_share_v_and_m_and_agents_pickle() -> None:
    agent = make()
    other = agent.with_parameters(-agent.parameters, generation=3)
    assert other.vision is agent.vision and other.metadata["generation"] == 3
    obs = frames(1)[0]
    ours, theirs = (a.predict(obs, deterministic=True)[0] for a in (agent, other))
    np.testing.assert_allclose(ours[:, 0], -theirs[:, 0], atol=1e-6)
    sent = pickle.loads(pickle.dumps(agent))
    np.testing.assert_array_equal(sent.predict(obs, deterministic=True)[0], ours)


def test_parts_that_do_not_fit_are_named() -> None:
    agent = make()
    with pytest.raises(UserError, match="39 needed"):
        agent.with_parameters(np.zeros(5))
    with pytest.raises(UserError, match="not all finite"):
        agent.with_parameters(np.full(agent.parameters.size, np.nan))
    with pytest.raises(UserError, match="state of 2"):
        agent.predict(frames(1)[0], agent.predict(frames(1)[0, :2])[1])
    with pytest.raises(UserError, match="M's z_dim is 4"):
        Agent(
            ConvVAE(VAEConfig(Z + 1, 4)),
            agent.memories,
            agent.controller,
            agent.parameters,
            env_id="x",
            frame_spec=FrameSpec(),
            action_spec=PEDALS,
        )


@pytest.mark.parametrize("spec", [PEDALS, BUTTONS])
def test_actions_are_held_and_decisions_are_those_of_every_kth_frame(spec: ActionSpec) -> None:
    agent, obs = make(spec, action_repeat=3), frames(7)
    plain = make(spec)
    state: AgentState | None = None
    decided: AgentState | None = None
    want: Any = None
    for t in range(7):
        actions, state = agent.predict(obs[t], state, deterministic=True)
        if t % 3 == 0:
            want, decided = plain.predict(obs[t], decided, deterministic=True)
        np.testing.assert_array_equal(actions, want)
        assert state.held.tolist() == [t % 3 + 1] * B
        np.testing.assert_array_equal(state.h, decided.h)  # type: ignore[union-attr]  # set above


def test_an_episode_that_begins_decides_at_once() -> None:
    agent, obs = make(action_repeat=3), frames(2)
    _, state = agent.predict(obs[0], None, deterministic=True)
    start = np.array([False, True, False])
    actions, after = agent.predict(obs[1], state, start, True)
    fresh, _ = agent.predict(obs[1], None, deterministic=True)
    np.testing.assert_array_equal(actions[1], fresh[1])
    np.testing.assert_array_equal(actions[[0, 2]], state.action[[0, 2]])
    assert after.held.tolist() == [2, 1, 2]
    single, _ = agent.predict(obs[0, 0], None, deterministic=True)
    assert single.shape == (3,)
