"""The dream as an environment: checkers, seeds, ends, pictures, and what users get wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.evaluation import evaluate_policy

import worldmodels  # noqa: F401  # registers the environments
from sparse_gan.gan.dreams import dreamt
from worldmodels.agent import Agent
from worldmodels.dream.config import Ends
from worldmodels.dream.env import Dream, DreamVector
from worldmodels.dream.sb3 import DreamVecEnv
from worldmodels.envs.spaces import ActionSpec
from worldmodels.memory.interface import MemoryState
from worldmodels.memory.mdn_rnn import MDNRNN
from worldmodels.protocols import UserError

from .conftest import PEDALS, REWARD, H, MakeAgent, S, Z

NAME = "worldmodels/Dream-v0"
N = 5
GAS = np.array([0.0, 1.0, 0.0], np.float32)
CHOICES = ActionSpec("discrete", 5)


def roll(env: Dream, seed: int, steps: int = 6) -> list[Any]:
    obs, info = env.reset(seed=seed)
    return [obs, info["start"], *(env.step(GAS)[:4] for _ in range(steps))]


def same(a: list[Any], b: list[Any]) -> bool:
    return str(a) == str(b)


@pytest.mark.filterwarnings(
    "ignore:.*WARN.*infinity.*"
)  # z has no bounds, as V's latents have none
@pytest.mark.filterwarnings("ignore:We recommend you to use a symmetric")  # CarRacing has pedals
@pytest.mark.parametrize("spec", [PEDALS, CHOICES])
@pytest.mark.parametrize("members", [1, 2])
def test_both_checkers_pass(make_agent: MakeAgent, spec: ActionSpec, members: int) -> None:
    env = gym.make(NAME, agent=make_agent(members, spec), render_mode="rgb_array", horizon=20)
    check_env(env.unwrapped)
    sb3_check_env(env.unwrapped, warn=True)


def test_an_agents_folder_is_as_good_as_the_agent(make_agent: MakeAgent, tmp_path: Path) -> None:
    agent = make_agent()
    agent.save_pretrained(tmp_path / "agent", dtype="float32")
    direct, loaded = (Dream(a, dtype="float32") for a in (agent, tmp_path / "agent"))
    assert same(roll(direct, 3), roll(loaded, 3))


def test_seeds_fix_the_dream(make_agent: MakeAgent) -> None:
    env = Dream(make_agent(), dropout=0.2)
    first = roll(env, 1)
    assert same(first, roll(env, 1)) and not same(first, roll(env, 2))
    assert env.observation_space.contains(first[0])


def test_a_dream_begins_at_its_start(make_agent: MakeAgent) -> None:
    agent = make_agent()
    env = Dream(agent)
    for start in (0, S - 1):
        obs, info = env.reset(seed=0, options={"start": start})
        assert info["start"] == start and agent.starts is not None
        np.testing.assert_allclose(obs, [*agent.starts.z[start], *agent.starts.h[0, start]])
    for bad in (S, -1, 0.5, [1, 2]):
        with pytest.raises(UserError, match="start"):
            env.reset(options={"start": bad})


def test_policies_see_c_where_the_agents_own_does(make_agent: MakeAgent) -> None:
    agent = make_agent(inputs="zhc")
    env = Dream(agent, dtype="float32", termination="off")
    obs, _ = env.reset(seed=0, options={"start": 3})
    assert agent.starts is not None
    state = MemoryState(*(torch.from_numpy(x[0, 3:4]) for x in (agent.starts.h, agent.starts.c)))
    np.testing.assert_array_equal(obs[Z:], state.seen(carry=True)[0])
    action = torch.from_numpy(GAS)[None]
    state = agent.memories[0].advance(torch.from_numpy(obs[None, :Z]), action, state)
    after = env.step(GAS)[0]
    np.testing.assert_allclose(after[Z:], state.seen(carry=True)[0].detach(), atol=1e-4)
    assert env.observation_space.contains(after) and len(after) == Z + 2 * H


def test_the_horizon_truncates_and_m_terminates(make_agent: MakeAgent) -> None:
    env = Dream(make_agent(), horizon=3, termination="off")
    assert [s[2:] for s in roll(env, 0, 3)[2:]] == [(False, False), (False, False), (False, True)]
    env = Dream(make_agent(), termination="threshold", termination_threshold=1e-6)
    assert roll(env, 0, 1)[2][2:] == (True, False)


@pytest.mark.parametrize(
    ("ends", "alive"),
    [(Ends("sampled"), 0.7), (Ends("threshold"), 1.0), (Ends("threshold", 0.2), 0.0)],
)
def test_dreams_end_as_in_the_agents_training(
    make_agent: MakeAgent, tmp_path: Path, ends: Ends, alive: float
) -> None:
    agent = make_agent()
    agent.ends = ends
    for memory in agent.memories:
        memory.terminated.weight.data.zero_()
        memory.terminated.bias.data.fill_(float(np.log(0.3 / 0.7)))
    loaded = Agent.from_pretrained(agent.save_pretrained(tmp_path / "agent"))
    assert loaded.ends == ends
    for one in (agent, loaded):
        vector = DreamVector(one, 400)
        vector.reset(seed=0)
        over = vector.step(np.zeros((400, 3), np.float32))[2]
        assert 1 - over.mean() == pytest.approx(alive, abs=0.1)
        assert DreamVector(one, termination="off").cfg.termination == "off"


def test_agents_of_earlier_versions_sampled_their_ends() -> None:
    assert Agent.from_pretrained("car-racing").ends == Ends("sampled")
    assert Dream("car-racing")._vector.cfg.termination == "sampled"


def test_pictures_are_what_v_decodes(make_agent: MakeAgent) -> None:
    agent = make_agent()
    env = Dream(agent, render_mode="rgb_array")
    obs, _ = env.reset(seed=0)
    picture, small = env.render(), agent.decode(obs[None, :Z])[0]
    assert picture is not None and picture.shape == (384, 384, 3) and picture.dtype == np.uint8
    means = picture.reshape(64, 6, 64, 6, 3).mean((1, 3))
    assert np.abs(means - small).mean() < 1
    assert Dream(agent).render() is None


def test_mistakes_are_named(make_agent: MakeAgent) -> None:
    agent = make_agent()
    with pytest.raises(UserError, match="no option 'temprature'"):
        Dream(agent, temprature=1.1)
    with pytest.raises(UserError, match=r"DreamConfig\.horizon"):
        Dream(agent, horizon=0)
    with pytest.raises(UserError, match="render_mode"):
        Dream(agent, render_mode="human")
    with pytest.raises(UserError, match="number of dreams"):
        DreamVector(agent, num_envs=0)
    env = Dream(agent)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(GAS)
    env.reset(seed=0)
    with pytest.raises(UserError, match="finite"):
        env.step(np.array([np.nan, 0, 0], np.float32))
    with pytest.raises(UserError, match="must be 3"):
        env.step(GAS[:2])


def test_an_agent_that_cannot_dream_says_why(make_agent: MakeAgent) -> None:
    agent = make_agent()
    agent.starts = None
    with pytest.raises(UserError, match="no recorded starts"):
        Dream(agent)


def test_actions_are_clipped_to_the_space(make_agent: MakeAgent) -> None:
    env = Dream(make_agent(), dtype="float32")
    env.reset(seed=0)
    clipped = env.step(np.array([1, 1, 0], np.float32))
    env.reset(seed=0)
    beyond = env.step(np.array([7, 3, -2], np.float32))
    np.testing.assert_array_equal(clipped[0], beyond[0])


def make_vector(agent: Any, **options: Any) -> DreamVector:
    vector = gym.make_vec(
        NAME, num_envs=N, vectorization_mode="vector_entry_point", agent=agent, **options
    )
    assert isinstance(vector.unwrapped, DreamVector)
    return vector.unwrapped


@pytest.mark.parametrize("members", [1, 2])
def test_a_vector_resets_one_step_after_an_end(make_agent: MakeAgent, members: int) -> None:
    vector = make_vector(make_agent(members), horizon=3, termination="off", dropout=0.1)
    assert vector.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    obs, info = vector.reset(seed=0)
    assert obs.shape == (N, Z + H) and info["start"].shape == (N,)
    actions = np.tile(GAS, (N, 1))
    for t in range(1, 9):
        obs, reward, terminated, truncated, info = vector.step(actions)
        assert vector.observation_space.contains(obs) and not terminated.any()
        assert (truncated == (t % 4 == 3)).all()
        if t % 4 == 0:  # the step that restarts
            starts = vector.agent.starts
            assert starts is not None and (reward == 0).all() and info["_start"].all()
            np.testing.assert_allclose(obs[:, :Z], starts.z[info["start"]])
            np.testing.assert_allclose(obs[:, Z:], starts.h[0, info["start"]])
        else:
            assert (reward >= REWARD.base - 1e-5).all() and "start" not in info


def test_dreams_of_a_vector_end_each_on_their_own(make_agent: MakeAgent) -> None:
    vector = make_vector(make_agent(), termination="sampled", horizon=7)
    vector.reset(seed=1)
    ended, lengths = np.zeros(N, np.bool_), np.zeros(N, np.int64)
    for _ in range(40):
        _, _, terminated, truncated, info = vector.step(np.tile(GAS, (N, 1)))
        assert np.array_equal(info.get("_start", np.zeros(N, np.bool_)), ended)
        lengths = np.where(ended, 0, lengths + 1)
        assert np.array_equal(truncated, (lengths == 7) & ~terminated)
        ended = terminated | truncated
    assert lengths.min() != lengths.max()


def test_a_vector_of_one_is_the_single_environment(make_agent: MakeAgent) -> None:
    agent = make_agent()
    single, vector = (
        Dream(agent, termination="off"),
        DreamVector(agent, num_envs=1, termination="off"),
    )
    obs, _ = single.reset(seed=4)
    batch, _ = vector.reset(seed=4)
    for _ in range(5):
        np.testing.assert_array_equal(obs, batch[0])
        obs, reward, *_ = single.step(GAS)
        batch, rewards, *_ = vector.step(GAS[None])
        assert reward == rewards[0]


def test_vector_pictures_and_discrete_actions(make_agent: MakeAgent) -> None:
    vector = make_vector(make_agent(1, CHOICES), render_mode="rgb_array")
    vector.reset(seed=0)
    vector.action_space.seed(0)
    vector.step(vector.action_space.sample())
    pictures = vector.render()
    assert pictures is not None and len(pictures) == N and pictures[0].shape == (384, 384, 3)
    with pytest.raises(UserError, match="allowed: 0 to 4"):
        vector.step(np.full(N, 5))


def test_sb3_sees_the_last_observation_of_a_dream(make_agent: MakeAgent) -> None:
    vector = make_vector(make_agent(), horizon=2, termination="off")
    env = DreamVecEnv(vector, seed=0)
    first = env.reset()
    env.step(np.tile(GAS, (N, 1)))
    obs, reward, done, infos = env.step(np.tile(GAS, (N, 1)))
    assert isinstance(obs, np.ndarray) and isinstance(first, np.ndarray) and done.all()
    for i, info in enumerate(infos):
        assert info["TimeLimit.truncated"] and not np.array_equal(
            info["terminal_observation"], obs[i]
        )
    assert reward.shape == (N,) and not env.env_is_wrapped(gym.Wrapper)[0]
    env.seed(0)
    np.testing.assert_array_equal(env.reset(), first)
    assert env.get_attr("num_envs", [0, 1]) == [N, N]


def test_ppo_learns_in_the_dream(make_agent: MakeAgent) -> None:
    env = DreamVecEnv(make_vector(make_agent(), horizon=50))
    model = PPO("MlpPolicy", env, n_steps=100, batch_size=250, n_epochs=4, seed=0, device="cpu")
    before = {k: v.clone() for k, v in model.policy.state_dict().items()}
    model.learn(2000)
    assert model.num_timesteps == 2000
    assert any((before[k] != v).any() for k, v in model.policy.state_dict().items())
    assert all(v.isfinite().all() for v in model.policy.state_dict().values())
    obs = env.reset()
    assert isinstance(obs, np.ndarray)
    actions, _ = model.predict(obs, deterministic=True)
    assert actions.shape == (N, 3)


def test_ppos_return_rises_in_a_dream_that_pays_for_gas(make_agent: MakeAgent) -> None:
    """M is made to pay by the gas alone; PPO has to find that out."""
    agent = make_agent()
    memory = agent.memories[0]
    assert isinstance(memory, MDNRNN)
    with torch.no_grad():
        weight_ih, weight_hh, bias, _ = memory.lstm.all_weights[0]
        unit = torch.arange(4) * H  # unit 0's input, forget, cell and output gate
        weight_ih[unit], weight_hh[unit] = 0.0, 0.0
        bias[unit] = torch.tensor([5.0, -5.0, -1.0, 5.0])  # open, forgotten at once, -1, open
        weight_ih[2 * H, Z + 1] = 2.0  # the cell is tanh(2 gas - 1)
        memory.reward.weight.zero_()
        memory.reward.weight[0, 0], memory.terminated.bias[:] = 4.0, -20.0
    env = DreamVecEnv(make_vector(agent, horizon=25))
    model = PPO(
        "MlpPolicy", env, n_steps=100, batch_size=100, learning_rate=3e-3, seed=0, device="cpu"
    )
    before = np.mean(evaluate_policy(model, env, 8)[0])
    model.learn(6000)
    after = np.mean(evaluate_policy(model, env, 8)[0])
    best = 25 * REWARD.expected(torch.tensor(4 * np.tanh(1))).item()
    assert after > before + 0.5 * (best - before)


# --- dreams as arrays


@pytest.mark.parametrize("spec", [PEDALS, CHOICES])
def test_imagined_dreams_are_those_of_the_environment(
    make_agent: MakeAgent, spec: ActionSpec
) -> None:
    agent, steps = make_agent(2, spec), 4
    dream = agent.imagine(steps, N, seed=3)
    again = agent.imagine(steps, N, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(dream, again, strict=True))
    env = DreamVector(agent, N, horizon=steps)
    obs, _ = env.reset(seed=3)
    for t in range(steps):
        np.testing.assert_array_equal(obs, np.concatenate([dream.z[:, t], dream.h[:, t]], 1))
        step, _ = env.dream(dream.action[:, t], env.np_random)
        np.testing.assert_array_equal(step.reward, dream.reward[:, t])
        obs = env.observe()
    same = agent.imagine(steps, N, seed=3, actions=dream.action)
    np.testing.assert_array_equal(same.z, dream.z)
    assert agent.decode(dream.z[0]).shape[0] == steps + 1


def test_imagined_dreams_count_until_their_end(make_agent: MakeAgent) -> None:
    dream = make_agent().imagine(6, N, termination="threshold", termination_threshold=1e-6)
    assert dream.length.tolist() == [1] * N and dream.ended.all()
    np.testing.assert_allclose(dream.total_reward, dream.reward[:, 0])
    whole = make_agent().imagine(6, N, termination="off")
    assert whole.length.tolist() == [6] * N and not whole.ended.any()


def test_dreams_can_start_at_real_frames(make_agent: MakeAgent) -> None:
    agent = make_agent(2)
    frames = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), np.uint8)
    dream = agent.imagine(3, frames=frames, actions=np.tile(GAS, (3, 1)))
    np.testing.assert_array_equal(dream.z[:, 0], agent.encode(frames)[0].numpy())
    assert not dream.h[:, 0].any() and dream.action.shape == (2, 3, 3)
    with pytest.raises(UserError, match=r"actions have shape \(2, 3\); expected one for each of 3"):
        agent.imagine(3, actions=np.zeros((2, 3)))


def test_frames_of_dreams_are_drawn_for_choices_too(make_agent: MakeAgent) -> None:
    frames = dreamt(make_agent(1, CHOICES), 10, dreams=4)
    assert len(frames) == 10 and frames.dtype == np.uint8
