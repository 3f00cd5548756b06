"""All ways to drive an agent's V and M, by their names on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias, get_args

from worldmodels.agent import Agent, find
from worldmodels.planning.committee import Committee, other_members
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
    "committee",
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
    """Who drives when nobody else is named: the agent's committee where it has one, or it alone."""
    return "committee" if other_members(agent) else own_driver(agent)


def own_driver(agent: str | Path) -> Literal["residual", "controller"]:
    """Who drives an agent alone: C, with its residual where there is one."""
    return "residual" if policy_path(agent, "residual").is_file() else "controller"


def open_driver(
    agent: str | Path,
    driver: Driver | None = None,
    cfg: PlanningConfig | None = None,
    weights: Path | None = None,
) -> Agent | PlanningPolicy | Committee:
    """Open an agent under another driver than its C.

    Args:
        agent: folder, or name of an agent that comes with the package.
        driver: what drives; None for the agent's committee, or its C with its residual, as far as
            it has them.
        cfg: of planners; None takes the method's defaults.
        weights: file of the trained policy, or of the critic that a planner uses; None takes the
            one in the agent's folder.

    Raises:
        UserError: no such agent, no such file, or a file of another agent.
    """
    driver = best_driver(agent) if driver is None else driver
    if driver == "committee":
        return open_committee(agent)
    opened = Agent.from_pretrained(agent)
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


def open_committee(agent: str | Path) -> Committee:
    """Open an agent with the others of its committee, each under its own best driver.

    Raises:
        UserError: no such agent, it has no committee, or a member cannot be read.
    """
    others = other_members(agent)
    if not others:
        raise UserError(f"{agent} has no committee; `worldmodels committee` makes one")
    return Committee([open_member(folder) for folder in (find(agent), *others)])


def open_member(agent: str | Path) -> Agent:
    """Open an agent alone, under its own best driver."""
    member = open_driver(agent, own_driver(agent))
    assert isinstance(member, Agent), "neither planners nor committees are an agent's own"
    return member
