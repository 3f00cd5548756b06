"""The transformer as an M: one body for sequence and step, its window, its training, its agent."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.dream.conftest import PEDALS, REWARD
from tests.memory.test_memory_train import system
from tests.pipeline.worker import tiny
from worldmodels.agent import Agent
from worldmodels.controller.linear import ControllerConfig, num_parameters
from worldmodels.dream.config import DreamConfig
from worldmodels.dream.env import DreamVector
from worldmodels.dream.starts import build_starts
from worldmodels.envs.frames import FrameSpec
from worldmodels.memory import transformer
from worldmodels.memory.interface import Memory
from worldmodels.memory.kinds import KINDS, Kind, build
from worldmodels.memory.train import MemoryTrainConfig, fit_reward_model, train_memory
from worldmodels.memory.transformer import Transformer, TransformerConfig
from worldmodels.pipeline import run_pipeline
from worldmodels.pipeline.iteration import Iteration
from worldmodels.planning.actor_critic import train_policy
from worldmodels.planning.gradient import GradientConfig
from worldmodels.planning.networks import NetworkConfig
from worldmodels.planning.plan import ObjectiveConfig
from worldmodels.planning.planners import PlanningConfig
from worldmodels.planning.sampling import CEMConfig
from worldmodels.planning.streams import PolicyTrainConfig
from worldmodels.policies.planning import PlanningPolicy
from worldmodels.protocols import UserError
from worldmodels.run_config import RunConfig
from worldmodels.runs import config_hash, load_checkpoint, save_checkpoint
from worldmodels.stage_configs import MemoryStageConfig
from worldmodels.stages.files import MemoryFile, Source
from worldmodels.tasks.car_racing import CAR_RACING
from worldmodels.video.films import dream_along
from worldmodels.vision.vae import ConvVAE, VAEConfig

B, T, Z, A, H = 3, 70, 2, 1, 16
SHAPE = TransformerConfig(z_dim=Z, action_size=A, hidden_size=H, mixtures=2)


def make(kind: Kind = "transformer", residual: bool = False) -> Memory:
    torch.manual_seed(0)
    memory = build(KINDS[kind][0](z_dim=Z, action_size=A, hidden_size=H, residual=residual))
    with torch.no_grad():
        for name, parameter in memory.named_parameters():
            if name.endswith("distance_bias"):
                parameter.normal_()
    return memory.eval()


def inputs(steps: int = T) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn((B, steps, Z), generator=generator)
    return z, torch.randn((B, steps, A), generator=generator)


def close(one: object, other: object) -> None:
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", list(KINDS))
@torch.no_grad()
def test_pieces_and_steps_equal_the_sequence(kind: Kind, masked: bool, residual: bool) -> None:
    memory, (z, action) = make(kind, residual), inputs()
    memory.cfg = dataclasses.replace(memory.cfg, dropout=0.3 * masked)
    mask = memory.sample_mask(B, torch.Generator().manual_seed(2))
    whole, predicted, last = memory(z, action, None, mask)
    assert whole.abs().max() <= 1
    state, at = memory.initial_state(B), 0
    for steps in (1, 5, 40, 24):  # a window is 32
        h, output, state = memory(z[:, at : at + steps], action[:, at : at + steps], state, mask)
        close(h, whole[:, at : at + steps])
        close(output, type(output)(*(part[:, at : at + steps] for part in predicted)))
        at += steps
    close(state, last)
    state = memory.initial_state(B)
    for t in range(T):
        advanced = memory.advance(z[:, t], action[:, t], state)
        output, state = memory.step(z[:, t], action[:, t], state, mask)
        if mask is None:
            close(advanced, state)
        close(output, type(output)(*(part[:, t] for part in predicted)))
    assert state.c.shape == (B, memory.carry_size)


@pytest.mark.parametrize("kind", list(KINDS))
@torch.no_grad()
def test_a_state_of_zeros_is_the_beginning(kind: Kind) -> None:
    memory, (z, action) = make(kind), inputs(12)
    _, _, state = memory(z[:, :7], action[:, :7])
    kept = torch.tensor([True, False, True])[:, None]
    h, _, last = memory(z[:, 7:], action[:, 7:], state.kept(kept))
    close(h[1], memory(z[1:2, 7:], action[1:2, 7:])[0][0])
    close(h[[0, 2]], memory(z, action)[0][[0, 2], 7:])
    assert torch.isfinite(last.c).all()


@torch.no_grad()
def test_long_sequences_are_run_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, (z, action) = make(), inputs()
    whole = memory(z, action)
    monkeypatch.setattr(transformer, "PIECE", 33)
    close(memory(z, action), whole)


def test_nothing_of_the_future_and_nothing_beyond_the_window_counts() -> None:
    memory, (z, action) = make(), inputs(100)
    z.requires_grad_()
    assert isinstance(memory, Transformer)
    reach = memory.cfg.layers * (memory.cfg.context - 1)
    h, _, _ = memory(z, action)
    at = 80
    (gradient,) = torch.autograd.grad(h[:, at].sum(), z)
    felt = gradient.abs().sum((0, 2)).nonzero().flatten()
    assert (int(felt[0]), int(felt[-1])) == (at - reach, at)

    alone = Transformer(dataclasses.replace(SHAPE, layers=1)).eval()
    (gradient,) = torch.autograd.grad(alone(z, action)[0][:, at].sum(), z)
    felt = gradient.abs().sum((0, 2)).nonzero().flatten()
    assert felt.tolist() == list(range(at - 31, at + 1))


def test_where_a_window_begins_does_not_matter() -> None:
    memory, (z, action) = make(), inputs(100)
    with torch.no_grad():
        whole, late = (memory(z[:, f:], action[:, f:])[0][:, -1] for f in (0, 37))
    close(whole, late)


@torch.no_grad()
def test_bfloat16_stays_near_float32() -> None:
    memory, (z, action) = make(), inputs()
    exact, _, _ = memory(z, action)
    with torch.autocast("cpu", torch.bfloat16):
        h, _, state = memory(z, action)
        _, state = memory.step(z[:, 0], action[:, 0], state)
    assert state.h.dtype == state.c.dtype == torch.float32
    assert (h.float() - exact).abs().max() < 0.1


def test_it_learns_the_system_and_one_seed_gives_one_result() -> None:
    latents, lines = system(), list[dict[str, float]]()
    cfg = MemoryTrainConfig(
        steps=120, batch_size=8, sequence_length=10, log_every=20, learning_rate=1e-2
    )
    reward = fit_reward_model(latents, "event")
    first, again = (
        train_memory(
            cfg, SHAPE, reward, latents, seed=0, holdout=system(1), log=lambda **x: lines.append(x)
        )
        for _ in range(2)
    )
    nll = [line["nll"] for line in lines[: len(lines) // 2]]
    assert nll[-1] < nll[0] - 1.5
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def make_agent() -> Agent:
    torch.manual_seed(0)
    cfg = TransformerConfig(z_dim=Z, action_size=PEDALS.size, hidden_size=H, mixtures=2)
    memories: list[Memory] = [Transformer(cfg).eval() for _ in range(2)]
    latents = dataclasses.replace(
        system(), action=np.zeros((system().num_frames, PEDALS.size), np.float32)
    )
    controller = ControllerConfig.for_action_space(PEDALS, CAR_RACING.squash)
    parameters = np.random.default_rng(0).standard_normal(num_parameters(controller, Z, H))
    return Agent(
        ConvVAE(VAEConfig(z_dim=Z, width=2)),
        memories,
        controller,
        parameters,
        env_id="CarRacing-v3",
        frame_spec=FrameSpec(),
        action_spec=PEDALS,
        reward_model=REWARD,
        starts=build_starts(memories, latents, 6, 40, np.random.default_rng(0)),
    )


def test_an_agent_saves_loads_and_drives(tmp_path: Path) -> None:
    agent = make_agent()
    loaded = Agent.from_pretrained(agent.save_pretrained(tmp_path / "a", "float32"))
    assert json.loads((tmp_path / "a/config.json").read_text())["memory"]["kind"] == "transformer"
    assert loaded.memories[0].cfg == agent.memories[0].cfg
    frames = np.random.default_rng(0).integers(0, 256, (4, 2, 96, 96, 3), dtype=np.uint8)
    states = [None, None]
    for t, seen in enumerate(frames):
        begins = np.array([False, t == 2])
        (mine, states[0]), (theirs, states[1]) = (  # type: ignore[call-overload]  # None at first
            agent_.predict(seen, state, begins, deterministic=True)
            for agent_, state in zip((agent, loaded), states, strict=True)
        )
        np.testing.assert_array_equal(mine, theirs)


def test_a_file_of_m_says_which_kind_it_is(tmp_path: Path) -> None:
    agent, path = make_agent(), tmp_path / "m.pt"
    source = Source(agent.env_id, agent.frame_spec, agent.action_spec)
    MemoryFile(agent.memories, REWARD, source, "digest").save(path)
    loaded = MemoryFile.load(path)
    assert loaded.models[0].cfg == agent.memories[0].cfg
    close(loaded.models[1].state_dict(), agent.memories[1].state_dict())
    content = load_checkpoint(path)
    save_checkpoint(path, {**content, "config": {**content["config"], "kind": "gru"}})
    with pytest.raises(UserError, match="kind is 'gru'; it must be one of lstm, transformer"):
        MemoryFile.load(path)


def test_dreams_run_in_torch_and_kernels_are_refused() -> None:
    agent = make_agent()
    assert agent.starts is not None and agent.reward_model is not None
    dreams = DreamVector(agent, 4, dropout=0.2)
    obs, _ = dreams.reset(seed=0, options={"start": np.arange(4)})
    np.testing.assert_array_equal(obs[:, Z:], agent.starts.h[0, :4])
    for _ in range(3):
        obs, *_ = dreams.step(np.zeros((4, 3), np.float32))
    assert obs.shape == (4, Z + H) and dreams.observation_space.contains(obs)
    says = "backend is 'kernels'; it must be torch or auto, since M is a Transformer"
    with pytest.raises(UserError, match=says):
        DreamVector(agent, 4, backend="kernels")


@pytest.mark.parametrize("method", ["cem", "gradient", "rollout"])
def test_planners_search_in_its_dreams(method: str) -> None:
    cfg = PlanningConfig(
        ObjectiveConfig(horizon=3, particles=2, proposal=True),
        CEMConfig(samples=8, iterations=2),
        gradient=GradientConfig(iterations=2, restarts=2),
    )
    policy, state = PlanningPolicy(make_agent(), method, cfg), None
    for t in range(2):
        seen = np.random.default_rng(t).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
        action, state = policy.predict(seen, state, deterministic=True)
    assert action.shape == (2, 3) and state is not None
    assert state.c.shape == (2, 2, policy.agent.memories[0].carry_size) and state.c.any()


@pytest.mark.parametrize("gradient", ["model", "reinforce"])
def test_an_actor_learns_in_its_dreams(gradient: Literal["model", "reinforce"]) -> None:
    network = NetworkConfig(8, 1, components=0)
    cfg = PolicyTrainConfig(steps=3, batch_size=6, horizon=3, gradient=gradient, network=network)
    actor, _ = train_policy(make_agent(), cfg, seed=0)
    assert all(torch.isfinite(parameter).all() for parameter in actor.parameters())


def test_a_recorded_drive_is_dreamt_along() -> None:
    agent, mu = make_agent(), torch.randn(41, Z, generator=torch.Generator().manual_seed(0))
    z = dream_along(agent, mu, np.zeros((40, 3), np.float32), sync=10).z
    assert torch.equal(z[::10][:4], mu[::10][:4]) and not torch.equal(z[5], mu[5])


def test_what_the_kind_does_not_allow_is_refused_under_the_stages_name() -> None:
    with pytest.raises(UserError, match=r"MemoryStageConfig.hidden_size is 30; .* multiple of 4"):
        MemoryStageConfig(kind="transformer", hidden_size=30)
    memory = MemoryStageConfig(kind="transformer")
    with pytest.raises(UserError, match=r"dream.backend is 'kernels'; .* memory.kind transformer"):
        RunConfig(memory=memory, dream=DreamConfig(backend="kernels"))
    assert config_hash(memory) != config_hash(MemoryStageConfig())


def test_a_run_with_it_ends_with_a_report(tmp_path: Path) -> None:
    cfg = tiny()
    cfg = dataclasses.replace(cfg, memory=dataclasses.replace(cfg.memory, kind="transformer"))
    run_pipeline(cfg, tmp_path, seed=1, workers=1, preset="tiny")
    assert (tmp_path / "report.html").is_file()
    agent = Agent.from_pretrained(tmp_path / "agent")
    assert all(isinstance(memory, Transformer) for memory in agent.memories)
    file = Iteration(0, tmp_path / "iterations" / "00").load_memory()
    assert isinstance(file.models[0], Transformer)
