"""An agent drives alike single and batched, and comes back from its folder as it went in."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from stable_baselines3.common.evaluation import evaluate_policy

from baselines import drivers
from baselines.bookkeeping import Bookkeeping, inherit
from worldmodels import agent as module
from worldmodels import runs
from worldmodels.agent import Agent, AgentState, find
from worldmodels.artifacts import read_tensors
from worldmodels.commands.evaluate import home_of
from worldmodels.controller.linear import ControllerConfig, InputStats, num_parameters
from worldmodels.dream.starts import DreamStarts
from worldmodels.envs.frames import FrameSpec, to_vision
from worldmodels.envs.spaces import ActionSpec
from worldmodels.evaluation.policies import stamp
from worldmodels.memory.interface import MemoryState
from worldmodels.memory.mdn_rnn import MDNRNN, MDNRNNConfig
from worldmodels.memory.rewards import RewardModel
from worldmodels.memory.transformer import Transformer, TransformerConfig
from worldmodels.policies.opening import open_policy, policy_path
from worldmodels.protocols import Policy, UserError
from worldmodels.runs import RunFolder
from worldmodels.tasks.car_racing import CAR_RACING
from worldmodels.vision.vae import ConvVAE, VAEConfig, to_float

B, Z, H = 3, 4, 8
PEDALS = ActionSpec("box", 3, (-1.0, 0.0, 0.0), (1.0, 1.0, 1.0))
BUTTONS = ActionSpec("discrete", 4)


class Pixels(gym.Env[NDArray[np.uint8], Any]):
    """Noise to look at, and an episode of seven steps."""

    def __init__(self, space: gym.spaces.Space[Any]) -> None:
        self.observation_space = gym.spaces.Box(0, 255, (96, 96, 3), np.uint8)
        self.action_space = space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.t += 1
        return self.observation_space.sample(), 1.0, self.t == 7, False, {}


def make(spec: ActionSpec = PEDALS, memories: int = 1, seed: int = 0, **kwargs: Any) -> Agent:
    """A small agent with random weights."""
    torch.manual_seed(seed)
    options = {
        k: kwargs.pop(k) for k in ("inputs", "hidden", "normalize", "discrete") if k in kwargs
    }
    cfg = ControllerConfig.for_action_space(spec, CAR_RACING.squash, **options)
    params = np.random.default_rng(seed).standard_normal(num_parameters(cfg, Z, H))
    return Agent(
        ConvVAE(VAEConfig(Z, 4)),
        [MDNRNN(MDNRNNConfig(Z, spec.size, H, 2)) for _ in range(memories)],
        cfg,
        params,
        env_id="CarRacing-v3",
        frame_spec=FrameSpec(84),
        action_spec=spec,
        **kwargs,
    )


def frames(steps: int, batch: int = B, seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (steps, batch, 96, 96, 3), dtype=np.uint8)


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


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_folder_gives_the_agent_back(tmp_path: Path, dtype: str) -> None:
    rng = np.random.default_rng(0)
    stats = InputStats.of(torch.randn(20, Z + H, generator=torch.Generator().manual_seed(0)))
    starts = DreamStarts(
        *(rng.standard_normal(s).astype(np.float32) for s in ((5, Z), (2, 5, H), (2, 5, H)))
    )
    agent = make(
        memories=2,
        normalize=True,
        input_stats=stats,
        starts=starts,
        reward_model=RewardModel("event", -0.1, 3.3),
        metadata={
            "evaluation": {"mean": 812.5, "std": 91.0, "ci95": [790.0, 833.0], "episodes": 100},
            "frames": {"totals": {"collection": 200_000}},
        },
    )
    agent.save_pretrained(tmp_path / "a" / "agent", dtype)
    back = Agent.from_pretrained(tmp_path / "a" / "agent")
    for name in ("controller", "env_id", "frame_spec", "action_spec", "reward_model", "metadata"):
        assert getattr(back, name) == getattr(agent, name), name
    tolerance = 2e-3 if dtype == "float16" else 0
    for ours, theirs in zip(agent.memories, back.memories, strict=True):
        for key, tensor in ours.state_dict().items():
            torch.testing.assert_close(theirs.state_dict()[key], tensor, atol=tolerance, rtol=0)
    assert back.starts is not None
    np.testing.assert_allclose(back.starts.h, starts.h, atol=tolerance)
    np.testing.assert_array_equal(back.parameters, agent.parameters)
    obs = frames(1)[0]
    np.testing.assert_allclose(
        back.predict(obs, deterministic=True)[0],
        agent.predict(obs, deterministic=True)[0],
        atol=10 * tolerance,
    )
    card = (tmp_path / "a" / "agent" / "README.md").read_text()
    assert "812.5 +- 91.0" in card and "collection | 200,000" in card and "100 episodes" in card


def test_the_card_speaks_of_the_agents_own_task(tmp_path: Path) -> None:
    agent = make()
    for env_id, title in (("CarRacing-v3", "A driver"), ("CartPole-v1", "An agent")):
        agent.env_id = env_id
        card = (agent.save_pretrained(tmp_path / "agent") / "README.md").read_text()
        assert card.startswith(f"# {title} for {env_id}\n")
        assert ("driv" in card) == (title == "A driver")


def test_written_again_is_the_same_and_other_files_stay(tmp_path: Path) -> None:
    folder = make().save_pretrained(tmp_path / "agent")
    first = (folder / "vision.safetensors").read_bytes()
    (folder / "videos").mkdir()
    (folder / "videos" / "best.mp4").write_bytes(b"x")
    loaded = Agent.from_pretrained(folder)
    loaded.save_pretrained(folder)
    assert (folder / "vision.safetensors").read_bytes() == first
    assert (folder / "videos" / "best.mp4").read_bytes() == b"x"
    assert [p.name for p in tmp_path.iterdir()] == ["agent"]


def test_loading_draws_no_random_numbers(tmp_path: Path) -> None:
    folder = make().save_pretrained(tmp_path / "agent")
    before = torch.get_rng_state()
    Agent.from_pretrained(folder)
    torch.testing.assert_close(torch.get_rng_state(), before)


def test_loaded_memory_runs_sequences(tmp_path: Path) -> None:
    memory = Agent.from_pretrained(make().save_pretrained(tmp_path / "agent")).memories[0]
    z, action = torch.randn(2, 5, Z), torch.randn(2, 5, 3)
    h_seq, _, last = memory(z, action)
    state: MemoryState = memory.initial_state(2)
    for t in range(5):
        _, state = memory.step(z[:, t], action[:, t], state)
    torch.testing.assert_close(last.h, state.h)
    torch.testing.assert_close(h_seq[:, -1], state.h)


def test_shipped_agents_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHIPPED", tmp_path)
    make().save_pretrained(tmp_path / "car-racing")
    assert Agent.from_pretrained("car-racing").env_id == "CarRacing-v3"
    with pytest.raises(UserError, match=r"'cars'.*is not a folder.*comes with: car-racing"):
        Agent.from_pretrained("cars")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"has no config\.json"):
        Agent.from_pretrained(tmp_path / "empty")


def test_a_run_folder_stands_for_its_agent(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.write_config({"preset": "quick"})
    for name in (run.path, str(run.path)):
        with pytest.raises(UserError, match=r"is a run folder without an agent; finish the run"):
            open_policy(name)
        with pytest.raises(UserError, match="without an agent"):
            home_of(str(name))
    agent = make()
    agent.save_pretrained(run.agent)
    assert find(run.path) == find(run.agent) == run.agent
    assert home_of(str(run.path)) == "CarRacing-v3"
    assert stamp(run.path) == stamp(run.agent)
    assert policy_path(run.path, "residual").parent == run.agent
    assert not drivers.is_driver(run.path)
    obs = frames(1)[0]
    action, _ = open_policy(run.path).predict(obs, deterministic=True)
    np.testing.assert_array_equal(action, open_policy(run.agent).predict(obs, None, None, True)[0])
    run.ledger.add("collection", 7, "x")
    books = Bookkeeping()
    inherit(books, run.path)
    assert books.ledger == [("collection", "agent/collection", 7)]
    runs.write_json(run.agent / "config.json", {"schema": "driver/1", "env_id": "x"})
    assert drivers.is_driver(run.path) and home_of(str(run.path)) == "x"
    with pytest.raises(UserError, match="holds a baseline, which has no V, M and C"):
        Agent.from_pretrained(run.path)


def test_damaged_folders_are_named(tmp_path: Path) -> None:
    folder = make().save_pretrained(tmp_path / "agent")
    config = folder / "config.json"
    text = config.read_text()

    def broken(change: dict[str, Any], match: str) -> None:
        config.write_text(json.dumps({**json.loads(text), **change}))
        with pytest.raises(UserError, match=match):
            Agent.from_pretrained(folder)
        config.write_text(text)

    broken({"schema": 99}, "schema 99; this version reads 1")
    broken(
        {"vision": {"z_dim": Z, "width": 8}}, r"'encoder.0.weight' has shape \(4, 3, 4, 4\).*\(8, 3"
    )
    broken({"memories": 2}, "memories is 2, but memory.safetensors holds 1")
    broken({"controller": {"wings": 2}}, "controller has the unknown field 'wings'")
    broken({"memories": 10**9}, r"json: memories is 1000000000; it must be .* at most 1,000$")
    broken({"memories": True}, "memories is True; it must be a whole number")
    for repeat in (0, -3, 10**12, 1.5):
        broken({"action_repeat": repeat}, rf"json: action_repeat is {repeat}; it must be")
    broken({"decoder": 1}, "decoder is 1; it must be True or False")
    broken({"sha256": {}}, "sha256 is {}; it must name")
    broken({"reward_model": {"base": 1e400}}, "not valid JSON")
    broken({"frame_spec": {"rows": 0}}, r"json: frame_spec\.rows is 0; it must be at least 1")
    broken({"metadata": 3}, "metadata is 3; it must be an object")
    data = bytearray((folder / "memory.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "memory.safetensors").write_bytes(data)
    with pytest.raises(UserError, match=r"memory\.safetensors is not the file"):
        Agent.from_pretrained(folder)
    (folder / "memory.safetensors").write_bytes(data[:50])
    with pytest.raises(UserError, match=r"memory\.safetensors is damaged"):
        Agent.from_pretrained(folder)
    (folder / "memory.safetensors").unlink()
    with pytest.raises(UserError, match=r"memory\.safetensors does not exist"):
        Agent.from_pretrained(folder)


@pytest.mark.parametrize(
    ("part", "name", "value", "message"),
    [
        ("vision", "to_mu.bias", torch.full((Z,), torch.nan), "not finite"),
        ("memory", "0.mixture.bias", None, r"memory\.safetensors lacks the tensor '0\.mixture"),
        ("controller", "parameters", None, r"controller\.safetensors lacks"),
        ("controller", "parameters", torch.ones(2, 3), r"has shape \(2, 3\)"),
        ("starts", "h", torch.ones(3), r"starts\.safetensors: tensor 'h' has shape \(3,\)"),
        ("starts", "z", torch.ones(0, Z), "no recorded states"),
    ],
)
def test_damaged_tensors_are_named(
    tmp_path: Path, part: str, name: str, value: torch.Tensor | None, message: str
) -> None:
    starts = DreamStarts(*(np.zeros(shape, np.float32) for shape in ((5, Z), (1, 5, H), (1, 5, H))))
    folder = make(starts=starts).save_pretrained(tmp_path / "agent", "float32")
    file, config = folder / f"{part}.safetensors", folder / "config.json"
    tensors = load_file(file)
    tensors.pop(name)
    save_file(tensors if value is None else {**tensors, name: value}, file)
    record = json.loads(config.read_text())
    record["sha256"][part] = hashlib.sha256(file.read_bytes()).hexdigest()
    config.write_text(json.dumps(record))
    with pytest.raises(UserError, match=message):
        Agent.from_pretrained(folder)


def test_every_file_says_what_it_is(tmp_path: Path) -> None:
    folder = make().save_pretrained(tmp_path / "agent")
    header = json.loads(read_tensors(folder / "controller.safetensors", "").text)
    record = json.loads((folder / "config.json").read_text())
    assert header["kind"] == "controller" and header["source"] == {"env_id": "CarRacing-v3"}
    assert header["depends"] == {p: record["sha256"][p] for p in ("vision", "memory")}
    (folder / "vision.safetensors").write_bytes((folder / "memory.safetensors").read_bytes())
    record["sha256"]["vision"] = record["sha256"]["memory"]
    (folder / "config.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"vision\.safetensors holds 'memory', not vision"):
        Agent.from_pretrained(folder)


def test_an_agent_that_overflows_says_so() -> None:
    agent = make()
    with torch.no_grad():
        for weight in agent.vision.parameters():
            weight.fill_(3e38)
    with pytest.raises(UserError, match="numbers that are not finite"):
        agent.predict(frames(1)[0])


def test_nothing_half_written_and_nothing_of_others_overwritten(tmp_path: Path) -> None:
    agent = make()
    with torch.no_grad():
        agent.memories[0].mixture.bias[0] = 1e6
    with pytest.raises(UserError, match=r"'0\.mixture\.bias'.*float16"):
        agent.save_pretrained(tmp_path / "agent")
    assert not list(tmp_path.iterdir())
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"")
    with pytest.raises(UserError, match="holds other files than an agent"):
        agent.save_pretrained(tmp_path / "photos", "float32")
    with pytest.raises(UserError, match="float8"):
        agent.save_pretrained(tmp_path / "agent", "float8")


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


def test_a_folder_keeps_the_action_repeat(tmp_path: Path) -> None:
    agent = make(action_repeat=4)
    agent.save_pretrained(tmp_path / "agent")
    assert Agent.from_pretrained(tmp_path / "agent").action_repeat == 4
