"""All planners, by their names on the command line: a new one is a file and a line at the end.

A planner that has options of its own also has a field in `PlanningConfig`, just below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Protocol, TypeAlias

import numpy as np
import tyro

from worldmodels.config import Config, show
from worldmodels.planning.gradient import GradientConfig, GradientPlanner
from worldmodels.planning.objective import Belief, DreamObjective, Imagination, UnrolledObjective
from worldmodels.planning.plan import Array, ObjectiveConfig, Plan
from worldmodels.planning.rollout import RolloutConfig, RolloutObjective, Rollouts
from worldmodels.planning.sampling import CEM, MPPI, CEMConfig, MPPIConfig
from worldmodels.protocols import UserError


@dataclass(frozen=True)
class PlanningConfig(Config):
    """The objective of plans, and the settings of each method."""

    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    cem: CEMConfig = field(default_factory=CEMConfig)
    """methods cem and icem"""
    mppi: MPPIConfig = field(default_factory=MPPIConfig)
    gradient: GradientConfig = field(default_factory=GradientConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)


class Search(Protocol):
    """A search for a plan by the objective that it is registered with."""

    def plan(
        self, objective: Any, guess: Array, candidates: Array, rng: np.random.Generator
    ) -> Plan:
        """Search; see `CEM.plan`."""


def near_controller(search: CEMConfig | None = None, particles: int = 4) -> PlanningConfig:
    """Settings of a small search near C, which is enough where C acts after the plan's end.

    See docs/results/entries/2026-11-24-planning.md. The fields' own defaults do without C.
    """
    cfg = PlanningConfig()
    return replace(
        cfg,
        objective=ObjectiveConfig(horizon=12, tail=12, proposal=True, particles=particles),
        cem=replace(search or cfg.cem, samples=48, iterations=2, init_std=0.15),
        mppi=replace(cfg.mppi, samples=64, iterations=1, init_std=0.1),
        gradient=replace(cfg.gradient, iterations=5, restarts=2),
    )


def _rollouts() -> PlanningConfig:
    """The settings of docs/results/entries/2026-11-26-rollouts.md."""
    objective = ObjectiveConfig(horizon=16, particles=16, discount=1.0)
    return PlanningConfig(objective=objective, rollout=RolloutConfig(alarm=0.75))


@dataclass(frozen=True)
class Planner:
    """A method of planning, and what the command line must know of it."""

    make: Callable[[PlanningConfig], Search]
    settings: str | None = None
    """field of `PlanningConfig` with its own settings, where it has any"""
    objective: Callable[[Imagination, Belief, int], Any] = DreamObjective
    """scores its plans from a belief, by the common random numbers of a seed"""
    defaults: Callable[[], PlanningConfig] = near_controller  #: settings for planning with an agent
    proposals: bool = True  #: whether C's own plans may compete with the searched ones
    unused: Mapping[str, str] = field(default_factory=dict)
    """options of the objective that have no effect, each with the reason"""


PLANNERS: dict[str, Planner] = {
    "cem": Planner(lambda cfg: CEM(cfg.cem), "cem"),
    "icem": Planner(
        lambda cfg: CEM(cfg.cem), "cem", defaults=lambda: near_controller(CEMConfig.icem())
    ),
    "mppi": Planner(lambda cfg: MPPI(cfg.mppi), "mppi"),
    "gradient": Planner(
        lambda cfg: GradientPlanner(cfg.gradient),
        "gradient",
        UnrolledObjective,
        lambda: near_controller(particles=2),
        unused={"disagreement-penalty": "gradients have no such term"},
    ),
    "rollout": Planner(
        lambda cfg: Rollouts(cfg.rollout, cfg.objective.risk),
        "rollout",
        RolloutObjective,
        _rollouts,
        proposals=False,
        unused={"proposal": "rollouts begin at the proposal anyway"},
    ),
}
"""Name on the command line -> planner."""

Method: TypeAlias = Annotated[str, tyro.conf.arg(metavar="{" + ",".join(PLANNERS) + "}")]
"""An option that names one."""


def get(name: str) -> Planner:
    """A planner by its name; an unknown one is a UserError."""
    if name not in PLANNERS:
        raise UserError(f"the planner is {show(name)}; there are {', '.join(PLANNERS)}")
    return PLANNERS[name]


def defaults(name: str | None) -> PlanningConfig:
    """Settings of a planner for an agent; CEM's for other policies."""
    return PLANNERS[name].defaults() if name in PLANNERS else near_controller()


def unused(name: str) -> dict[str, str]:
    """Options of `PlanningConfig` that have no effect under a policy, each with the reason."""
    if name not in PLANNERS:
        return {"planning": f"{name} does not plan"}
    planner = PLANNERS[name]
    others = {part.name for part in fields(PlanningConfig)} - {"objective", planner.settings}
    found = {f"planning.{other}": f"the planner is {name}" for other in others}
    return found | {f"planning.objective.{option}": why for option, why in planner.unused.items()}
