"""What plans are worth: engine and unrolled M agree, gradients are right, C and critic count."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tests.planning.conftest import RAW, MakeAgent
from worldmodels.agent import Agent
from worldmodels.dream.engine import DreamEngine
from worldmodels.envs.spaces import ActionSpec
from worldmodels.memory.rewards import RewardModel
from worldmodels.planning.objective import (
    Belief,
    DreamObjective,
    Imagination,
    UnrolledObjective,
    conditional_value_at_risk,
)
from worldmodels.planning.plan import ObjectiveConfig, straight_through
from worldmodels.protocols import UserError

T, A, N = 5, 3, 4
CFG = ObjectiveConfig(horizon=T, particles=3, discount=0.9)


def belief_of(agent: Agent, start: int = 1) -> Belief:
    assert agent.starts is not None
    starts = agent.starts
    return Belief(starts.z[start], starts.h[:, start], starts.c[:, start])


def some_plans(seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(seed).uniform(0, 1, (N, T, A)).astype(np.float32)


def critic(z: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    return z.sum(-1) + h.sum(-1)


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temperature": 0.0},
        {"tail": 3},
        {"critic": True},
        {"risk": 0.34},
        {"no_event_penalty": 2.0},
        {"two_hot": True},
    ],
    ids=["samples", "mode", "tail", "critic", "risk", "misses", "two-hot"],
)
def test_unrolled_and_engine_agree(
    make_agent: MakeAgent, changes: dict[str, float], members: int
) -> None:
    reward = RAW
    if "no_event_penalty" in changes:  # only events can be missed
        reward = RewardModel("count", base=-0.4, event_value=3.0)
    if "two_hot" in changes:
        reward, changes = RewardModel("two_hot", low=-2.0, high=3.0), {}
    agent = make_agent(members, reward=reward)
    for memory in agent.memories:  # dreams that do not end: the two end them differently
        torch.nn.init.normal_(memory.reward.weight, std=0.03)
        torch.nn.init.constant_(memory.terminated.bias, -30.0)
    cfg = dataclasses.replace(CFG, **changes)  # type: ignore[arg-type]
    imagination = Imagination(agent, cfg, critic)
    engine = DreamEngine(
        agent.memories,
        imagination.reward_model,
        imagination.engine.starts,
        dataclasses.replace(imagination.engine.cfg, dtype="float32"),
    )
    imagination.engine = engine
    plans = some_plans()
    dreamt = DreamObjective(imagination, belief_of(agent), 7).score(plans)
    unrolled = UnrolledObjective(imagination, belief_of(agent), 7)
    with torch.no_grad():
        np.testing.assert_allclose(unrolled.returns(torch.from_numpy(plans)), dreamt, atol=2e-4)


def test_gradients_agree_with_finite_differences(make_agent: MakeAgent) -> None:
    agent = make_agent()
    agent.memories[0].double()
    cfg = dataclasses.replace(CFG, horizon=3, particles=2, tail=0)
    imagination = Imagination(make_agent(), cfg)
    objective = UnrolledObjective(imagination, belief_of(agent), 3)
    imagination.memories = agent.memories
    objective._belief = Belief(*(part.astype(np.float64) for part in objective._belief))  # type: ignore[arg-type]
    objective._uniform, objective._normal = objective._uniform.double(), objective._normal.double()
    plans = torch.from_numpy(some_plans()[:2, :3].astype(np.float64)).requires_grad_(True)
    assert torch.autograd.gradcheck(objective.returns, plans, atol=1e-6)


def test_a_plan_s_score_is_the_same_beside_others(make_agent: MakeAgent) -> None:
    agent = make_agent()
    objective = DreamObjective(Imagination(agent, CFG), belief_of(agent), 1)
    plans = some_plans()
    alone = np.concatenate([objective.score(plans[i : i + 1]) for i in range(N)])
    np.testing.assert_allclose(objective.score(plans), alone, rtol=1e-3, atol=1e-3)


def test_proposals_are_what_c_does(make_agent: MakeAgent) -> None:
    agent = make_agent()
    imagination = Imagination(agent, CFG)
    own = imagination.proposals(belief_of(agent), 5)
    assert own.shape == (CFG.particles, T, A)
    z, h = (torch.from_numpy(part) for part in (belief_of(agent).z[None], belief_of(agent).h[:1]))
    np.testing.assert_allclose(own[:, 0], imagination.controller(z, h).expand(3, -1), atol=1e-6)


def test_choices_are_planned_by_scores() -> None:
    scores = torch.tensor([[0.1, 0.9, -1.0], [0.5, 0.2, 0.4]], requires_grad=True)
    hard = straight_through(scores)
    torch.testing.assert_close(hard, torch.tensor([[0.0, 1, 0], [1, 0, 0]]))
    hard[:, 0].sum().backward()
    assert scores.grad is not None and (scores.grad[:, 0] > 0).all()


def test_discrete_agents_can_plan(make_agent: MakeAgent) -> None:
    agent = make_agent(spec=ActionSpec("discrete", 5))
    imagination = Imagination(agent, CFG)
    assert (imagination.low == -1).all() and len(imagination.low) == 5
    plans = np.random.default_rng(0).uniform(-1, 1, (N, T, 5)).astype(np.float32)
    assert DreamObjective(imagination, belief_of(agent), 1).score(plans).shape == (N,)


def test_risk_is_the_mean_of_the_worst() -> None:
    returns = np.array([[4.0, 1.0, 3.0, 2.0], [0.0, 0.0, 8.0, 8.0]])
    np.testing.assert_allclose(conditional_value_at_risk(returns, 1.0), [2.5, 4])
    np.testing.assert_allclose(conditional_value_at_risk(returns, 0.5), [1.5, 0])
    np.testing.assert_allclose(conditional_value_at_risk(returns, 0.01), [1, 0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"critic": True}, "no critic was given"), ({"disagreement_penalty": 1.0}, "several")],
)
def test_what_is_not_there_cannot_be_asked_for(
    make_agent: MakeAgent, changes: dict[str, float], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Imagination(make_agent(), dataclasses.replace(CFG, **changes))  # type: ignore[arg-type]


def test_steps_without_an_event_cost(make_agent: MakeAgent) -> None:
    agent, plans = make_agent(reward=RewardModel("event", event_value=3.0)), some_plans()
    torch.nn.init.constant_(agent.memories[0].reward.bias, -30.0)  # nothing but misses
    cfg = dataclasses.replace(CFG, discount=1.0, no_event_penalty=2.0)
    score = DreamObjective(Imagination(agent, cfg), belief_of(agent), 1).score(plans)
    np.testing.assert_allclose(score, -2.0 * 3.0 * (CFG.horizon + CFG.tail), rtol=1e-5)


def test_disagreement_costs(make_agent: MakeAgent) -> None:
    agent, plans = make_agent(2), some_plans()
    scores = [
        DreamObjective(
            Imagination(agent, dataclasses.replace(CFG, disagreement_penalty=penalty)),
            belief_of(agent),
            1,
        ).score(plans)
        for penalty in (0.01, 10.0)
    ]
    assert (scores[1] < scores[0]).all()
