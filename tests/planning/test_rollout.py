"""Policy improvement by rollouts: what it compares, and when it overrules the driver."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.planning.conftest import MakeAgent
from tests.planning.test_objective import belief_of
from worldmodels.envs.spaces import ActionSpec
from worldmodels.planning.objective import DreamObjective, Imagination
from worldmodels.planning.plan import ObjectiveConfig
from worldmodels.planning.planners import PlanningConfig
from worldmodels.planning.rollout import RolloutConfig, RolloutObjective, Rollouts
from worldmodels.policies.planning import PlanningPolicy
from worldmodels.protocols import UserError

A, E = 2, 16
NONE = np.empty((0, 1, A), np.float32)
GUESS = np.zeros((1, A), np.float32)
CFG = ObjectiveConfig(horizon=4, particles=3)


class Quadratic:
    """A driver at 0 whose best change is known, judged with noise of a known scatter."""

    def __init__(self, best: NDArray[np.float32], scatter: float = 0.0) -> None:
        self.low, self.high = np.full(A, -1, np.float32), np.full(A, 1, np.float32)
        self.own, self.best, self.scatter, self.calls = np.zeros(A, np.float32), best, scatter, 0

    def returns(self, changes: NDArray[np.float32], hold: int) -> NDArray[np.float64]:
        self.calls += len(changes)
        merit = -((changes - self.best) ** 2).sum(1)
        noise = np.random.default_rng(0).standard_normal((len(changes), E))
        noise -= noise.mean(1, keepdims=True)  # the means are right, their scatter is not small
        returns: NDArray[np.float64] = merit[:, None] + self.scatter * noise
        return returns


def plan(objective: Quadratic, **changes: float) -> NDArray[np.float32]:
    cfg = dataclasses.replace(RolloutConfig(changes=400, init_std=0.5), **changes)  # type: ignore[arg-type]
    found = Rollouts(cfg).plan(objective, GUESS, NONE, np.random.default_rng(0))
    action: NDArray[np.float32] = found.actions[0]
    return action


def test_the_best_change_is_found() -> None:
    best = np.array([0.4, -0.3], np.float32)
    np.testing.assert_allclose(plan(Quadratic(best)), best, atol=0.1)


def test_a_gain_within_the_dreams_scatter_overrules_nobody() -> None:
    best = np.array([0.4, -0.3], np.float32)
    assert not plan(Quadratic(best, scatter=1.0), margin=2.0).any()
    assert plan(Quadratic(best, scatter=1.0), margin=0.5).any()


def test_without_alarm_there_is_no_search() -> None:
    objective = Quadratic(np.array([0.4, -0.3], np.float32))
    assert not plan(objective, alarm=1.0).any()  # all dreams return the same
    assert objective.calls == 1


def test_the_last_change_competes_again() -> None:
    best = np.array([0.9, 0.9], np.float32)
    cfg = RolloutConfig(changes=1, init_std=0.0)
    found = Rollouts(cfg).plan(Quadratic(best), GUESS, best[None, None], np.random.default_rng(0))
    np.testing.assert_array_equal(found.actions[0], best)
    np.testing.assert_array_equal(found.shifted().kept[0, 0], best)


@pytest.mark.parametrize("spec", [None, ActionSpec("discrete", 4)], ids=["box", "discrete"])
def test_no_change_is_the_policy_itself(make_agent: MakeAgent, spec: ActionSpec | None) -> None:
    agent = make_agent() if spec is None else make_agent(spec=spec)
    imagination = Imagination(agent, CFG)
    belief = belief_of(agent)
    objective = RolloutObjective(imagination, belief, 5)
    none = np.zeros((1, len(objective.own)), np.float32)
    unchanged = objective.returns(none, hold=3)
    assert unchanged.shape == (1, 3)
    np.testing.assert_allclose(unchanged, objective.returns(none, hold=0), rtol=1e-6)
    # a plan of one action, the policy's own, and the policy after it
    tail = dataclasses.replace(CFG, horizon=1, tail=3)
    one = DreamObjective(Imagination(agent, tail), belief, 5)
    np.testing.assert_allclose(one.returns(objective.own[None, None]), unchanged, rtol=1e-5)


def test_a_change_lasts_as_long_as_it_is_held(make_agent: MakeAgent) -> None:
    agent = make_agent()
    objective = RolloutObjective(Imagination(agent, CFG), belief_of(agent), 5)
    change = np.array([[0.5, -1.0, 1.0]], np.float32)
    held = [objective.returns(change, hold) for hold in (1, 2, 9)]
    assert not np.allclose(held[0], held[1]) and not np.allclose(held[1], held[2])
    np.testing.assert_array_equal(held[2], objective.returns(change, 4))


def test_another_policy_than_c_can_be_improved(make_agent: MakeAgent) -> None:
    agent = make_agent()
    still = torch.tensor([0.1, 0.2, 0.3])

    def act(z: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return still.expand(len(z), -1)

    cfg = PlanningConfig(CFG, rollout=RolloutConfig(changes=3, margin=1e9))
    policy = PlanningPolicy(agent, "rollout", cfg, base=act, base_digest="still")
    action, _ = policy.predict(np.zeros((2, 96, 96, 3), np.uint8), deterministic=True)
    np.testing.assert_allclose(action, np.tile(still.numpy(), (2, 1)))
    assert policy.digest != PlanningPolicy(agent, "rollout", cfg).digest


def test_bad_settings_are_named() -> None:
    with pytest.raises(UserError, match=r"RolloutConfig.alarm is 1.5; it must be from 0 to 1"):
        RolloutConfig(alarm=1.5)
    with pytest.raises(UserError, match=r"RolloutConfig.changes is 0"):
        RolloutConfig(changes=0)
    with pytest.raises(
        UserError, match=r"ObjectiveConfig.around is 'me'; it must be one of best, controller"
    ):
        ObjectiveConfig(around="me")  # type: ignore[arg-type]
