"""All policies on an agent's V and M, by their names on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias, get_args

import tyro

from worldmodels.agent import Agent, find
from worldmodels.config import show
from worldmodels.planning import planners
from worldmodels.planning.planners import PlanningConfig
from worldmodels.policies.ensemble import Ensemble, other_members
from worldmodels.policies.learned import PolicyFile
from worldmodels.policies.planning import PlanningPolicy
from worldmodels.protocols import UserError
from worldmodels.runs import config_hash

Learned: TypeAlias = Literal["residual", "policy-network", "imitation", "actor-critic"]
"""Policies that `worldmodels train-policy` makes."""


def names() -> list[str]:
    """Whatever can act on an agent's V and M."""
    return ["controller", "ensemble", *get_args(Learned), *planners.PLANNERS]


Named: TypeAlias = Annotated[str | None, tyro.conf.arg(metavar="{" + ",".join(names()) + "}")]
"""An option that names one."""


def policy_path(agent: str | Path, kind: str) -> Path:
    """Where a trained policy lies unless said otherwise: in its agent's folder."""
    return find(agent) / f"{kind}.safetensors"


def best_policy(agent: str | Path) -> str:
    """What acts when nothing else is named: the agent's ensemble where it has one, or it alone."""
    return "ensemble" if other_members(agent) else own_policy(agent)


def own_policy(agent: str | Path) -> Literal["residual", "controller"]:
    """What acts for an agent alone: C, with its residual where there is one."""
    return "residual" if policy_path(agent, "residual").is_file() else "controller"


def open_policy(
    agent: str | Path,
    driver: str | None = None,
    cfg: PlanningConfig | None = None,
    weights: Path | None = None,
) -> Agent | PlanningPolicy | Ensemble:
    """Open an agent under any of its policies.

    Args:
        agent: folder, or name of an agent that comes with the package.
        driver: name of the policy; by default the agent's ensemble, or its C with its residual, as
            far as it has them.
        cfg: of planners; None takes the planner's defaults.
        weights: file of the trained policy, or of the critic that a planner uses; by default the
            one in the agent's folder.

    Raises:
        UserError: no such agent, policy or file, or a file of another agent.
    """
    driver = best_policy(agent) if driver is None else driver
    if driver not in names():
        raise UserError(f"there is no policy {show(driver)}; there are {', '.join(names())}")
    if driver == "ensemble":
        if not (others := other_members(agent)):
            raise UserError(f"{agent} has no ensemble; `worldmodels ensemble` makes one")
        return Ensemble([open_member(folder) for folder in (find(agent), *others)])
    opened = Agent.from_pretrained(agent)
    if driver == "controller":
        return opened
    if driver in planners.PLANNERS:
        return _open_planner(agent, opened, driver, cfg or planners.defaults(driver), weights)
    file = PolicyFile.load(weights or policy_path(agent, driver), opened)
    return opened.with_policy(
        file.control, config_hash([file.digest, file.memory, opened.metadata])
    )


def _open_planner(
    agent: str | Path, opened: Agent, method: str, cfg: PlanningConfig, weights: Path | None
) -> PlanningPolicy:
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
    return PlanningPolicy(opened, method, cfg, critic, drive=drive, drive_digest=digest)


def open_member(agent: str | Path) -> Agent:
    """Open an agent alone, under its own best policy."""
    member = open_policy(agent, own_policy(agent))
    assert isinstance(member, Agent), "neither planners nor ensembles are an agent's own"
    return member
