"""What an evaluation leaves behind: episodes, statistics, frames, versions."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from worldmodels import runs
from worldmodels.evaluation.statistics import Summary


@dataclass(frozen=True)
class EpisodeRecord:
    """How one episode went."""

    seed: int
    """the environment was reset with it"""
    total_reward: float
    """the return: undiscounted, unshaped; "return" in JSON"""
    length: int
    """steps"""
    lap_finished: bool | None
    """None for environments without laps"""
    terminated: bool
    """ended by the environment's rules, not by the time limit"""
    actions: NDArray[Any] | None = field(default=None, repr=False, compare=False)
    """(T, A) or (T,) executed actions, if asked for: with the seed they are the episode"""

    ms_per_action: float | None = field(default=None, compare=False)
    """milliseconds of the driver's time per step of the environment, its share of the group's"""

    def to_json(self) -> dict[str, Any]:
        """The record without its actions."""
        return {
            "seed": self.seed,
            "return": self.total_reward,
            "length": self.length,
            "lap_finished": self.lap_finished,
            "terminated": self.terminated,
            "ms_per_action": self.ms_per_action,
        }


@dataclass(frozen=True)
class EvaluationResult:
    """What `worldmodels evaluate` writes."""

    agent: str
    """what was evaluated"""
    env: str
    """environment id"""
    episodes: tuple[EpisodeRecord, ...]
    """in the order of the seeds"""
    summary: Summary
    """statistics of the returns"""
    deterministic: bool
    """whether the policy was asked for its mode"""
    seconds: float
    """wall clock"""

    @property
    def returns(self) -> NDArray[np.float64]:
        """(E,) returns in the order of the seeds."""
        return np.array([episode.total_reward for episode in self.episodes])

    @property
    def mean(self) -> float:
        """Mean return."""
        return self.summary.mean

    @property
    def frames(self) -> int:
        """Real environment frames, for the ledger."""
        return sum(episode.length for episode in self.episodes)

    @property
    def ms_per_action(self) -> float | None:
        """Milliseconds of the driver's time per step; None where nobody took the time."""
        timed = [e for e in self.episodes if e.ms_per_action is not None]
        steps = sum(e.length for e in timed)
        return sum((e.ms_per_action or 0) * e.length for e in timed) / steps if steps else None

    def pick(self, which: Literal["best", "median", "worst"]) -> EpisodeRecord:
        """The best, the (lower) median or the worst episode; of equals, the first."""
        ranked = sorted(self.episodes, key=lambda episode: episode.total_reward)
        place = {"best": -1, "median": (len(ranked) - 1) // 2, "worst": 0}[which]
        value = ranked[place].total_reward
        return next(episode for episode in self.episodes if episode.total_reward == value)

    def to_json(self) -> dict[str, Any]:
        """The record that goes to disk: episodes, statistics, frames, versions, machine."""
        laps = [episode.lap_finished for episode in self.episodes]
        return {
            "agent": self.agent,
            "env": self.env,
            "versions": runs.versions(),
            "machine": runs.machine(),
            "deterministic": self.deterministic,
            "seconds": round(self.seconds, 2),
            "frames": self.frames,
            "ms_per_action": self.ms_per_action,
            "episodes": [episode.to_json() for episode in self.episodes],
            **asdict(self.summary),
            "laps_finished": None if None in laps else sum(map(bool, laps)),
        }

    def write(self, path: Path) -> None:
        """Write the JSON, atomically."""
        runs.write_json(path, self.to_json())
