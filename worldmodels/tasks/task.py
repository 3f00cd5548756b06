"""The record of what is known about one environment, and the record of knowing nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from worldmodels.envs.frames import FrameSpec
from worldmodels.envs.spaces import ActionSpec
from worldmodels.protocols import Squash, UserError


class Symmetry(Protocol):
    """A flip of the world that leaves its rules unchanged, such as left and right exchanged."""

    def frames(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Flipped copies of V's frames (..., S, S, 3)."""
        ...

    def actions(self, actions: NDArray[Any]) -> NDArray[Any]:
        """The actions (T, A) or (T,) that do in the flipped world what these do in the world."""
        ...


@dataclass(frozen=True)
class Words:
    """What reports and films call things."""

    episode: str = "episode"
    """one episode, in the singular"""
    agent: str = "agent"
    """what acts"""
    verb: str = "act"
    """what it does"""
    finished: tuple[str, str] | None = None
    """an episode that reached its goal, and several, where the environment tells: "lap finished",
    "laps finished" """
    score: str | None = None
    """what returns are made of, in a few sentences"""


@dataclass(frozen=True)
class Task:
    """What is known about one environment before its first frame; every part has a default."""

    name: str
    """stands in run folders; unique among registered tasks"""
    matches: Callable[[gym.Env[Any, Any]], bool] | None = None
    """whether an environment, wrapped or not, is one of these, by its class and spaces; None for a
    task that has whole ids only"""
    rows: int | None = None
    """rows of the environment's frames that V sees, from the top; None for all"""
    squash: tuple[Squash, ...] | None = None
    """how C's outputs become the numbers of a Box action; None scales tanh to the bounds"""
    explore_bias: tuple[float, ...] | None = None
    """centre of random Box actions in unit coordinates (-1 to 1); None for 0"""
    random_controller_bias: tuple[float, ...] | None = None
    """the same for random linear controllers"""
    symmetry: Callable[[FrameSpec, ActionSpec], Symmetry] | None = None
    """builds the flip of what V sees and of the actions; None where none is known"""
    stock: Mapping[str, str] = field(default_factory=dict)
    """from the id of a faster environment to the stock one that the final test uses"""
    finished_key: str | None = None
    """key of `info` in the last step that says whether the goal was reached; absent means no"""
    solved: float | None = None
    """mean return from which the task counts as solved"""
    lost: float | None = None
    """return below which an episode counts as lost"""
    returns: tuple[float, float] | None = None
    """smallest and largest return that reports draw; no policy can reach more than the second"""
    words: Words = field(default_factory=Words)
    """what reports and films call things"""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """from a preset's name to settings that it takes here, such as ``{"dream.horizon": 250}``"""

    @property
    def frame_spec(self) -> FrameSpec:
        """From the environment's frames to V's."""
        return FrameSpec(rows=self.rows)

    def flip(self, env_id: str, frames: FrameSpec, actions: ActionSpec) -> Symmetry:
        """The symmetry of what V sees and of the actions.

        Raises:
            UserError: none is known.
        """
        if self.symmetry is None:
            raise UserError(
                f"mirror is on for {env_id}, of which no symmetry is known; turn it off, or "
                "register a task with one (worldmodels.register_task)"
            )
        return self.symmetry(frames, actions)

    def test_env(self, env_id: str) -> str:
        """Where the final test is run: the stock environment of a faster one, else the same."""
        return self.stock.get(env_id, env_id)


DEFAULT = Task("default")
"""The task of an environment that nobody has described."""
