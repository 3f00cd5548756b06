"""Agents that act together: each has its own V, M and C, so their errors differ and average out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, TypeAlias

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from worldmodels._agent_files import CONFIG
from worldmodels.agent import Agent, AgentState, find
from worldmodels.artifacts import weights_digest
from worldmodels.policies.observations import StateWatch
from worldmodels.protocols import UserError
from worldmodels.runs import config_hash, derive_seed

FOLDER = "ensemble"
"""Folder of the other members in the first one's folder."""
FORMER_FOLDER = "committee"
"""The same in agents of earlier versions."""

EnsembleState: TypeAlias = tuple[AgentState, ...]
"""One state for each member."""


class Ensemble:
    """A `Policy` that acts by the mean of its members' actions, or by their majority.

    The M of every member is stepped with the action that was executed.
    """

    def __init__(self, members: Sequence[Agent]) -> None:
        """Join agents of one environment and one `action_repeat`; earlier ones win ties.

        Raises:
            UserError: no members, or they do not fit each other.
        """
        if not members:
            raise UserError("an ensemble needs at least one agent")
        first = members[0]
        for number, member in enumerate(members):
            for name in ("env_id", "action_spec", "action_repeat"):
                mine, theirs = getattr(first, name), getattr(member, name)
                if mine != theirs:
                    raise UserError(
                        f"member {number} has {name} {theirs}, but member 0 has {mine}; "
                        "all must act in one environment with one action_repeat"
                    )
        self.members = tuple(members)
        self.digest = config_hash(["ensemble", [_identity(member) for member in members]])
        """identifies it in evaluations that can be resumed"""
        self._watch = StateWatch()

    def __repr__(self) -> str:
        """Name its members."""
        return f"Ensemble({', '.join(map(repr, self.members))})"

    def __copy__(self) -> Self:
        """Copy the members: see `HoldingPolicy.__copy__`."""
        return type(self)([copy.copy(member) for member in self.members])

    @property
    def looks_every(self) -> int:
        """See `HoldingPolicy.looks_every`."""
        return self.members[0].looks_every

    def check_env(self, env: gym.Env[Any, Any]) -> None:
        """Same as `Agent.check_env`, for every member."""
        for member in self.members:
            member.check_env(env)

    def reseed(self, seed: int) -> None:
        """Seed the random numbers of each member."""
        for number, member in enumerate(self.members):
            member.reseed(derive_seed(seed, "member", number))

    def predict(
        self,
        observation: NDArray[np.uint8],
        state: EnsembleState | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], EnsembleState]:
        """Combine the members' actions; arguments, results and errors of `Agent.predict`."""
        self._watch.note(state, episode_start)
        if state is None and episode_start is None:
            episode_start = np.ones(1, np.bool_)  # one warning for all members
        before = (None,) * len(self.members) if state is None else state
        answers = [
            member.predict(observation, own, episode_start, deterministic)
            for member, own in zip(self.members, before, strict=True)
        ]
        action = self._combine(np.stack([answer for answer, _ in answers]))
        rows = np.atleast_1d(action) if self._votes else np.atleast_2d(action)
        states = [
            member.executed(own, rows)
            for member, (_, own) in zip(self.members, answers, strict=True)
        ]
        return action, tuple(states)

    @property
    def _votes(self) -> bool:
        return self.members[0].action_spec.kind == "discrete"

    def _combine(self, answers: NDArray[Any]) -> NDArray[Any]:
        """One action of the members' (N, ...): the mean of numbers, the most frequent choice."""
        if not self._votes:
            mean: NDArray[np.float32] = answers.mean(0, dtype=np.float32)
            return self.members[0].action_spec.to_env(mean)
        agreeing = (answers[:, None] == answers[None]).sum(1)  # (N, ...) of the same choice
        choice: NDArray[np.int64] = np.take_along_axis(answers, agreeing.argmax(0)[None], 0)[0]
        return choice


def other_members(agent: str | Path) -> list[Path]:
    """Folders of the members after the first; empty for an agent alone."""
    folder = find(agent)
    found = [folder / name for name in (FOLDER, FORMER_FOLDER) if (folder / name).is_dir()][:1]
    return sorted(file.parent for each in found for file in each.glob(f"*/{CONFIG}"))


def _identity(member: Agent) -> list[Any]:
    """Everything that its actions depend on; what only dreams need is left out."""
    weights = weights_digest(member.vision.without_decoder(), *member.memories)
    return [weights, member.parameters, member.digest]
