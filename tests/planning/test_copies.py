"""Copies of what drives choose as the original does, sampled noise included."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.planning.conftest import MakeAgent
from worldmodels.planning.networks import Actor, NetworkConfig
from worldmodels.planning.plan import ObjectiveConfig
from worldmodels.planning.planners import PlanningConfig
from worldmodels.planning.sampling import CEMConfig
from worldmodels.policies.ensemble import Ensemble
from worldmodels.policies.learned import PolicyFile
from worldmodels.policies.opening import open_policy
from worldmodels.policies.planning import PlanningPolicy

PLAN = PlanningConfig(
    ObjectiveConfig(horizon=4, particles=2, proposal=True), CEMConfig(samples=8, iterations=2)
)
WAYS: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda policy: pickle.loads(pickle.dumps(policy)),
}


def drive(policy: Any, state: Any, steps: int = 6) -> tuple[NDArray[Any], Any]:
    """Actions (T, 3) on noise, z sampled, and the state after them."""
    frames = np.random.default_rng(0).integers(0, 256, (steps, 96, 96, 3), np.uint8)
    actions = []
    for frame in frames:
        action, state = policy.predict(frame, state)
        actions.append(action)
    return np.stack(actions), state


def same_drive(policy: Any) -> None:
    """Every copy, made in mid-drive, chooses what the original does, and disturbs it in nothing."""
    _, state = drive(policy, None)
    copies = {name: way(policy) for name, way in WAYS.items()}
    chosen = {name: drive(other, state)[0] for name, other in copies.items()}
    want, _ = drive(policy, state)
    assert len(np.unique(want, axis=0)) > 1
    for name, actions in chosen.items():
        np.testing.assert_array_equal(actions, want, name)
        assert copies[name].digest == policy.digest


@pytest.mark.parametrize("kind", ["controller", "residual", "ensemble", "planner"])
def test_a_copy_chooses_as_the_original(make_agent: MakeAgent, kind: str) -> None:
    agent = make_agent(2, action_repeat=1)
    actor = Actor.of(agent, NetworkConfig(8, 1, residual=0.3)).requires_grad_(False)
    residual = agent.with_policy(PolicyFile((actor,), None, "residual", "").policy, "a")
    policies: dict[str, Any] = {
        "controller": agent,
        "residual": residual,
        "ensemble": Ensemble([agent, residual]),
        "planner": PlanningPolicy(agent, "cem", PLAN),
    }
    same_drive(policies[kind])


def test_a_copy_of_the_shipped_driver_chooses_as_the_original() -> None:
    driver = open_policy("car-racing")
    assert isinstance(driver, Ensemble) and len(driver.members) == 3
    same_drive(driver)


def test_what_drives_holds_no_views_of_the_parameters(make_agent: MakeAgent) -> None:
    """Otherwise a change of the parameters would reach the original's bias, and no copy's."""
    agent = make_agent(action_repeat=1)
    z, h = torch.randn(1, agent.z_dim), torch.randn(1, agent.h_dim)
    controller = agent.linear
    want = agent.act(z, h), controller(z, h)
    agent.parameters[:] = 0
    for other in (agent, copy.deepcopy(agent)):
        torch.testing.assert_close(other.act(z, h), want[0], rtol=0, atol=0)
    torch.testing.assert_close(controller(z, h), want[1], rtol=0, atol=0)
