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
    """All policies on an agent's V and M."""
    return ["controller", "ensemble", *get_args(Learned), *planners.PLANNERS]


Named: TypeAlias = Annotated[str | None, tyro.conf.arg(metavar="{" + ",".join(names()) + "}")]
"""An option that names one."""


def policy_path(agent: str | Path, kind: str) -> Path:
    """Default file of a trained policy: in its agent's folder."""
    return find(agent) / f"{kind}.safetensors"


def best_policy(agent: str | Path) -> str:
    """The policy that acts by default: the agent's ensemble where it has one, else its own."""
    return "ensemble" if other_members(agent) else own_policy(agent)


def own_policy(agent: str | Path) -> Literal["residual", "controller"]:
    """The policy of an agent alone: C, with its residual where it has one."""
    return "residual" if policy_path(agent, "residual").is_file() else "controller"


def open_policy(
    agent: str | Path,
    policy: str | None = None,
    cfg: PlanningConfig | None = None,
    weights: Path | None = None,
) -> Agent | PlanningPolicy | Ensemble:
    """Open an agent under any of its policies.

    Args:
        agent: folder, or name of a bundled agent.
        policy: its name (default: see `best_policy`).
        cfg: settings of a planner (default: the planner's own).
        weights: file of the trained policy, or of the critic that a planner uses (default: the one
            in the agent's folder).

    Raises:
        UserError: no such agent, policy or file, or a file of another agent.
    """
    policy = best_policy(agent) if policy is None else policy
    if policy not in names():
        raise UserError(f"there is no policy {show(policy)}; there are {', '.join(names())}")
    if policy == "ensemble":
        if not (others := other_members(agent)):
            raise UserError(f"{agent} has no ensemble; `worldmodels ensemble` makes one")
        return Ensemble([open_member(folder) for folder in (find(agent), *others)])
    opened = Agent.from_pretrained(agent)
    if policy == "controller":
        return opened
    if policy in planners.PLANNERS:
        return _open_planner(agent, opened, policy, cfg or planners.defaults(policy), weights)
    file = PolicyFile.load(weights or policy_path(agent, policy), opened)
    return opened.with_policy(file.policy, config_hash([file.digest, file.memory, opened.metadata]))


def _open_planner(
    agent: str | Path, opened: Agent, method: str, cfg: PlanningConfig, weights: Path | None
) -> PlanningPolicy:
    critic = None
    if cfg.objective.critic:
        path = weights or policy_path(agent, "actor-critic")
        critic = PolicyFile.load(path, opened).critic
        if critic is None:
            raise UserError(f"{path} has no critic; take one of `--policy actor-critic`")
    base, digest = None, ""
    residual = policy_path(agent, "residual")
    if cfg.objective.around == "best" and residual.is_file():
        file = PolicyFile.load(residual, opened)
        base, digest = file.dream_policy, file.digest
    return PlanningPolicy(opened, method, cfg, critic, base=base, base_digest=digest)


def open_member(agent: str | Path) -> Agent:
    """Open an agent alone, under its `own_policy`."""
    member = open_policy(agent, own_policy(agent))
    assert isinstance(member, Agent)
    return member
