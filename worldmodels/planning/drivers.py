"""All ways to drive an agent's V and M, by their names on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias, get_args

from worldmodels.agent import Agent, find
from worldmodels.planning.config import METHODS, PlanningConfig
from worldmodels.planning.policy import PlanningPolicy
from worldmodels.planning.policy_file import PolicyFile
from worldmodels.protocols import UserError
from worldmodels.runs import config_hash

Learned: TypeAlias = Literal["residual", "policy-network", "imitation", "actor-critic"]
"""Policies that `worldmodels train-policy` makes."""

LEARNED: tuple[Learned, ...] = get_args(Learned)
"""All of them."""

Driver: TypeAlias = Literal[
    "controller",
    "residual",
    "cem",
    "icem",
    "mppi",
    "gradient",
    "rollout",
    "policy-network",
    "imitation",
    "actor-critic",
]
"""Whatever can drive."""


def policy_path(agent: str | Path, kind: str) -> Path:
    """Where a trained policy lies unless said otherwise: in its agent's folder."""
    return find(agent) / f"{kind}.safetensors"


def best_driver(agent: str | Path) -> Driver:
    """Who drives an agent when nobody else is named: C, with its residual where there is one."""
    return "residual" if policy_path(agent, "residual").is_file() else "controller"


def open_driver(
    agent: str | Path,
    driver: Driver | None = None,
    cfg: PlanningConfig | None = None,
    weights: Path | None = None,
) -> Agent | PlanningPolicy:
    """Open an agent under another driver than its C.

    Args:
        agent: folder, or name of an agent that comes with the package.
        driver: what drives; None for C, with its residual where the agent has one.
        cfg: of planners; None takes the method's defaults.
        weights: file of the trained policy, or of the critic that a planner uses; None takes the
            one in the agent's folder.

    Raises:
        UserError: no such agent, no such file, or a file of another agent.
    """
    opened = Agent.from_pretrained(agent)
    driver = best_driver(agent) if driver is None else driver
    if driver == "controller":
        return opened
    if driver in METHODS:
        cfg = PlanningConfig.of(driver) if cfg is None else cfg
        critic = None
        if cfg.objective.critic:
            path = weights or policy_path(agent, "actor-critic")
            critic = PolicyFile.load(path, opened).critic
            if critic is None:
                raise UserError(f"{path} has no critic; take one of `--policy actor-critic`")
        drive, digest = None, ""
        residual = policy_path(agent, "residual")
        if cfg.objective.around == "best" and residual.is_file():
            file = PolicyFile.load(residual, opened)
            drive, digest = file.drive, file.digest
        return PlanningPolicy(opened, driver, cfg, critic, drive=drive, drive_digest=digest)
    path = weights or policy_path(agent, driver)
    file = PolicyFile.load(path, opened)
    digest = config_hash([file.digest, file.memory, opened.metadata])
    return opened.with_control(file.control, digest)


__all__ = ["LEARNED", "Driver", "Learned", "best_driver", "open_driver", "policy_path"]
