"""Training in the dream: returns by the book, resumed as if never stopped, and it learns."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.planning.conftest import PEDALS, MakeAgent
from tests.test_threads import assert_independent_of_threads, of_weights
from worldmodels.agent import Agent
from worldmodels.artifacts import read_tensors
from worldmodels.dream.starts import DreamStarts
from worldmodels.envs.spaces import ActionSpec
from worldmodels.memory.mdn_rnn import MDNRNN
from worldmodels.memory.rewards import RewardModel
from worldmodels.planning.actor_critic import lambda_returns, losses, train_policies, train_policy
from worldmodels.planning.gradient import shortened
from worldmodels.planning.networks import (
    Actor,
    Critic,
    Inputs,
    NetworkConfig,
)
from worldmodels.planning.streams import Imagined, PolicyTrainConfig, Streams, residual_training
from worldmodels.policies.learned import MeanActor, PolicyFile, StackedActors, origin
from worldmodels.protocols import UserError

T, B = 5, 3
SMALL = PolicyTrainConfig(
    steps=6, batch_size=8, horizon=4, network=NetworkConfig(16, 1), checkpoint_every=3, log_every=1
)


def test_lambda_returns_are_weighted_sums_of_n_step_returns() -> None:
    g = torch.Generator().manual_seed(0)
    reward, going, values = (torch.rand(T, B, generator=g).double() for _ in range(3))
    discount, trace = 0.9, 0.7
    found = lambda_returns(reward, going, values, discount, trace)

    def n_step(t: int, n: int) -> torch.Tensor:
        total, weight = torch.zeros(B).double(), torch.ones(B).double()
        for k in range(t, t + n):
            total, weight = total + weight * reward[k], weight * discount * going[k]
        return total + weight * values[t + n - 1]

    for t in range(T):
        longest = T - t
        mixed = sum(
            ((1 - trace) * trace ** (n - 1) * n_step(t, n) for n in range(1, longest)),
            torch.zeros(B).double(),
        )
        expected = mixed + trace ** (longest - 1) * n_step(t, longest)
        torch.testing.assert_close(found[t], expected)


def test_a_residual_actor_begins_as_c_and_stays_near_it(make_agent: MakeAgent) -> None:
    torch.manual_seed(0)  # of 300 seeds eight draw an actor that begins a little further from C
    agent = make_agent()
    actor = Actor.of(agent, NetworkConfig(16, 1, residual=0.3, noise=0.05))
    z, h = torch.randn(64, agent.z_dim), torch.randn(64, agent.h_dim)
    drive = agent.linear(z, h)
    torch.testing.assert_close(actor.mode(z, h), drive, atol=0.06, rtol=0)
    with torch.no_grad():
        actor.body[-1].get_parameter("bias").add_(100)
    mean, log_std = actor(z, h)
    half = (actor.high - actor.low) / 2
    base = torch.atanh(((drive - actor.low) / half - 1).clamp(-0.995, 0.995))
    torch.testing.assert_close(mean, base + 0.3, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(log_std.exp(), torch.full_like(log_std, 0.05))


def test_the_critic_can_learn_first_and_the_average_is_kept(make_agent: MakeAgent) -> None:
    agent = make_agent()
    fresh = dataclasses.replace(SMALL, steps=1, critic_warmup_steps=1)
    first, _ = train_policy(agent, fresh, seed=1)
    waited, _ = train_policy(
        agent, dataclasses.replace(fresh, steps=3, critic_warmup_steps=3), seed=1
    )
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, waited.state_dict()[name]), name
    last, _ = train_policy(agent, dataclasses.replace(SMALL, steps=1), seed=1)
    kept, _ = train_policy(agent, dataclasses.replace(SMALL, steps=1, ema_decay=0.75), seed=1)
    for name, weight in kept.state_dict().items():
        between = torch.lerp(first.state_dict()[name], last.state_dict()[name], 0.25)
        torch.testing.assert_close(weight, between)


@pytest.mark.parametrize("residual", [0.0, 0.3])
@pytest.mark.parametrize("components", [0, 5])
@pytest.mark.parametrize("spec", [PEDALS, ActionSpec("discrete", 4)], ids=["box", "discrete"])
def test_stacked_actors_act_as_each_on_its_own(
    make_agent: MakeAgent, spec: ActionSpec, components: int, residual: float
) -> None:
    actors = []
    agent = make_agent(spec=spec)
    for seed in range(3):
        torch.manual_seed(seed)
        cfg = NetworkConfig(16, 2, components=components, residual=residual)
        actor = Actor.of(agent, cfg)
        last = actor.body[-1]
        assert isinstance(last, torch.nn.Linear)
        torch.nn.init.normal_(last.weight)
        actors.append(actor.requires_grad_(False))
    z, h = torch.randn(B, agent.z_dim), torch.randn(B, agent.h_dim)
    want = MeanActor(*actors)(z, h)
    torch.testing.assert_close(StackedActors(actors)(z, h), want)


def test_a_residual_belongs_to_one_c(make_agent: MakeAgent, tmp_path: Path) -> None:
    agent = make_agent()
    cfg = NetworkConfig(16, 1, residual=0.3)
    path = tmp_path / "policy.safetensors"
    PolicyFile((Actor.of(agent, cfg),), None, "actor-critic", origin(agent, cfg)).save(path)
    z, h = torch.randn(4, agent.z_dim), torch.randn(4, agent.h_dim)
    assert PolicyFile.load(path, agent).policy(z, h).shape == (4, 3)
    with pytest.raises(UserError, match="another M or C"):
        PolicyFile.load(path, agent.with_parameters(agent.parameters + 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actors": 10**9}, "actors is 1000000000; it must be"),
        ({"actors": 2}, r"lacks the tensor 'actor\.1\."),
        ({"network": {"hidden": 65_536, "layers": 1}}, r"has shape .* needs \(65536, "),
        ({"network": []}, "network is .*; it must be an object"),
        ({"memory": None}, "memory is None; it must be a text"),
    ],
)
def test_a_damaged_policy_is_named(
    make_agent: MakeAgent, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    agent, cfg, path = make_agent(), NetworkConfig(16, 1), tmp_path / "policy.safetensors"
    PolicyFile((Actor.of(agent, cfg),), None, "actor-critic", origin(agent, cfg)).save(path)
    file = read_tensors(path, "")
    save_file(file.tensors, path, {"worldmodels": json.dumps({**json.loads(file.text), **change})})
    with pytest.raises(UserError, match=message):
        PolicyFile.load(path, agent)


def test_actors_drive_by_the_mean_of_their_u(make_agent: MakeAgent, tmp_path: Path) -> None:
    agent = make_agent()
    cfg = dataclasses.replace(SMALL, steps=2, actors=2)
    actors, critic = train_policies(agent, cfg, seed=1, checkpoint=tmp_path / "policy.pt")
    alone, _ = train_policy(agent, cfg, seed=1)
    z, h = torch.randn(4, agent.z_dim), torch.randn(4, agent.h_dim)
    torch.testing.assert_close(actors[0](z, h), alone(z, h))
    assert not torch.equal(actors[0](z, h)[0], actors[1](z, h)[0])
    file = PolicyFile(actors, critic, "actor-critic", origin(agent, cfg.network))
    file.save(tmp_path / "file.safetensors")
    control = PolicyFile.load(tmp_path / "file.safetensors", agent).policy
    mean = (actors[0](z, h)[0] + actors[1](z, h)[0]) / 2
    torch.testing.assert_close(control(z, h), alone.act(mean))
    again, _ = train_policies(agent, cfg, seed=1, checkpoint=tmp_path / "policy.pt")
    torch.testing.assert_close(again[1](z, h), actors[1](z, h))


@pytest.mark.parametrize("gradient", ["model", "reinforce"])
def test_interrupted_training_ends_like_uninterrupted(
    make_agent: MakeAgent, tmp_path: Path, gradient: str
) -> None:
    agent = make_agent()
    cfg = dataclasses.replace(SMALL, gradient=gradient)  # type: ignore[arg-type]
    whole, _ = train_policy(agent, cfg, seed=1)
    again, _ = train_policy(agent, cfg, seed=1)
    path = tmp_path / "policy.pt"
    train_policy(agent, dataclasses.replace(cfg, steps=3), seed=1, checkpoint=path)
    resumed, _ = train_policy(agent, cfg, seed=1, checkpoint=path)
    for one in (again, resumed):
        for name, weight in whole.state_dict().items():
            torch.testing.assert_close(one.state_dict()[name], weight, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("gradient", "critic"), [("model", True), ("model", False), ("reinforce", True)]
)
def test_it_learns_what_m_pays_for(make_agent: MakeAgent, gradient: str, critic: bool) -> None:
    """M is made to pay for the first action of the step: its reward head reads one unit of h."""
    agent = make_agent()
    memory = agent.memories[0]
    assert isinstance(memory, MDNRNN)
    weight = memory.lstm.all_weights[0][0]
    with torch.no_grad():
        weight[:, 4] = 0.0
        weight[2 * 16, 4] = 3.0  # cell candidate of unit 0 from the first action
        memory.reward.weight.zero_()
        memory.reward.weight[0, 0] = 4.0
    agent.reward_model = RewardModel("raw")
    rewards: list[float] = []
    cfg = dataclasses.replace(
        SMALL,
        steps=60,
        batch_size=32,
        critic=critic,
        gradient=gradient,  # type: ignore[arg-type]
        learning_rate=1e-2,
        discount=0.8,
    )
    train_policy(agent, cfg, seed=0, log=lambda **m: rewards.append(m["dream_reward"]))
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5]) + 0.3


def test_reinforce_and_the_model_s_gradient_agree_in_direction(make_agent: MakeAgent) -> None:
    agent = make_agent()
    torch.manual_seed(0)
    plain = dataclasses.replace(SMALL.network, components=0)
    cfg = dataclasses.replace(
        SMALL, batch_size=8192, horizon=1, lambda_=1.0, entropy=0.0, network=plain
    )
    actor = Actor(agent.z_dim, agent.h_dim, agent.action_spec, cfg.network)
    critic = Critic(agent.z_dim, agent.h_dim, cfg.network)
    last_bias = list(actor.body.parameters())[-1]
    found = []
    for gradient in ("model", "reinforce"):
        kind = dataclasses.replace(cfg, gradient=gradient)
        streams = Streams(agent, kind, torch.Generator().manual_seed(0))
        dreamt = streams.imagine(actor, gradient == "model")
        loss, _, _ = losses(dreamt, critic, copy.deepcopy(critic), kind)
        (last,) = torch.autograd.grad(loss, [last_bias])
        found.append(last[:3])  # of the mean
    assert torch.cosine_similarity(found[0], found[1], dim=0) > 0.95


def test_no_dream_s_gradient_is_longer_than_allowed(make_agent: MakeAgent) -> None:
    """A dream through which the gradient explodes must not be all that the actor hears."""
    rows = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [float("nan"), 1.0]])
    expected = torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(shortened(rows, 1.0), expected)
    agent, found = make_agent(), []
    for limit in (0.0, 1e6, 1e-6):
        cfg = dataclasses.replace(SMALL, horizon=4, max_grad_norm_per_rollout=limit)
        torch.manual_seed(0)
        actor = Actor(agent.z_dim, agent.h_dim, agent.action_spec, cfg.network)
        streams = Streams(agent, cfg, torch.Generator().manual_seed(0))
        streams.imagine(actor, gradient=True).reward.mean().backward()
        found.append([p.grad for p in actor.body.parameters() if p.grad is not None])
    torch.testing.assert_close(found[1], found[0])
    free, limited = (torch.cat([g.flatten() for g in found[i]]).norm() for i in (0, 2))
    assert 0 < limited < 0.01 * free


def test_each_memory_dreams_its_share_and_the_first_gives_h(make_agent: MakeAgent) -> None:
    two = make_agent(members=2)
    assert two.starts is not None

    def with_memories(*members: int) -> Agent:
        other, starts, kept = copy.copy(two), two.starts, list(members)
        assert starts is not None
        other.memories = [two.memories[m] for m in members]
        other.starts = DreamStarts(starts.z, starts.h[kept], starts.c[kept])
        return other

    actor = Actor.of(two, SMALL.network)

    def dreams(agent: Agent) -> list[Imagined]:
        streams = Streams(agent, SMALL, torch.Generator().manual_seed(0))
        return [streams.imagine(actor, gradient=True) for _ in range(3)]

    share = SMALL.batch_size // 2
    for alone, twins, both in zip(
        dreams(with_memories(0)), dreams(with_memories(0, 0)), dreams(two), strict=True
    ):
        torch.testing.assert_close(twins.h, alone.h)
        torch.testing.assert_close(twins.reward, alone.reward)
        torch.testing.assert_close(both.z[:, :share], alone.z[:, :share])
        assert not torch.allclose(both.z[1:, share:], alone.z[1:, share:])


def test_threads_change_no_policy(make_agent: MakeAgent) -> None:
    agent = make_agent(members=2)
    cfg = dataclasses.replace(residual_training(), steps=3, critic_warmup_steps=1)

    def policy() -> list[Any]:
        actor, critic = train_policy(agent, cfg, seed=3)
        assert critic is not None
        return of_weights(actor, []) + of_weights(critic, [])

    assert_independent_of_threads(policy)


def test_bfloat16_changes_a_policy_little(make_agent: MakeAgent) -> None:
    agent, found = make_agent(members=2), []
    for low in (False, True):
        cfg = dataclasses.replace(SMALL, batch_size=64, bfloat16=low)
        torch.manual_seed(0)
        actor = Actor.of(agent, cfg.network)
        streams = Streams(agent, cfg, torch.Generator().manual_seed(0))
        dreamt = streams.imagine(actor, gradient=True)
        assert dreamt.z.dtype == streams.h.dtype == torch.float32
        slopes = torch.autograd.grad(dreamt.reward.mean(), list(actor.parameters()))
        found.append(torch.cat([slope.flatten() for slope in slopes]))
    assert torch.cosine_similarity(found[0], found[1], dim=0) > 0.9


def test_training_needs_recorded_states(make_agent: MakeAgent) -> None:
    agent = make_agent()
    agent.starts = None
    with pytest.raises(UserError, match="no recorded starts"):
        train_policy(agent, SMALL, seed=0)


def test_reinforce_needs_a_critic() -> None:
    with pytest.raises(UserError, match="must be 'model' without a critic"):
        PolicyTrainConfig(gradient="reinforce", critic=False)


def test_a_critic_leaves_no_room_for_a_tail() -> None:
    with pytest.raises(UserError, match=r"tail is 3; it must be 0 with a critic"):
        PolicyTrainConfig(tail=3)


def test_a_tail_counts_what_c_is_paid_after_the_horizon(make_agent: MakeAgent) -> None:
    """C pays for the state that the actor has left it, and the actor feels it."""
    agent = make_agent()
    cfg = dataclasses.replace(SMALL, critic=False, batch_size=64, horizon=2, discount=0.9)
    actor = Actor(agent.z_dim, agent.h_dim, agent.action_spec, cfg.network)
    critic = Critic(agent.z_dim, agent.h_dim, cfg.network)
    found = {}
    for tail in (0, 5):
        kind = dataclasses.replace(cfg, tail=tail)
        streams = Streams(agent, kind, torch.Generator().manual_seed(0))
        dreamt = streams.imagine(actor, gradient=True)
        carried = streams.z
        loss, _, metrics = losses(dreamt, critic, copy.deepcopy(critic), kind)
        found[tail] = (carried, dreamt, metrics["dream_return"], loss)
    torch.testing.assert_close(found[0][0], found[5][0])  # dreams go on at the horizon's end
    torch.testing.assert_close(found[0][1].reward, found[5][1].reward)
    assert not found[0][1].tail_return.any()
    dreamt = found[5][1]
    reached = dreamt.alive.cumprod(0)[-1] * cfg.discount**cfg.horizon
    more = (found[5][2] - found[0][2]).item()
    assert more == pytest.approx((reached * dreamt.tail_return).mean().item(), rel=1e-4)
    (slope,) = torch.autograd.grad(dreamt.tail_return.mean(), [list(actor.body.parameters())[-1]])
    assert slope.abs().sum() > 0


def test_networks_see_whitened_components_of_the_recorded_states(make_agent: MakeAgent) -> None:
    agent = make_agent()
    assert agent.starts is not None
    z, h = (torch.from_numpy(x).float() for x in (agent.starts.z, agent.starts.h[0]))
    inputs = Inputs(agent.z_dim, agent.h_dim, NetworkConfig(components=3)).fit(agent)
    seen = inputs(z, h)
    assert seen.shape == (len(z), 3)
    torch.testing.assert_close(seen.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen.std(0, correction=0), torch.ones(3), atol=1e-3, rtol=0)
    more = Inputs(agent.z_dim, agent.h_dim, NetworkConfig(components=99)).fit(agent)
    assert more(z, h).shape == (len(z), agent.z_dim + agent.h_dim)
    plain = Inputs(agent.z_dim, agent.h_dim, NetworkConfig(components=0)).fit(agent)
    torch.testing.assert_close(plain(z, h), torch.cat((z, h), 1))
