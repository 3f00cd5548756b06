"""`worldmodels plan`: a planner at work in the dream, in figures and as a film."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from worldmodels.commands.stage import use_all_cores
from worldmodels.config import Count, CountOrZero, Seed
from worldmodels.planning import planners
from worldmodels.planning.planners import PlanningConfig
from worldmodels.policies.opening import open_driver
from worldmodels.policies.planning import PlanningPolicy
from worldmodels.presets import RunConfig
from worldmodels.runs import FilePath, FilmPath, write_json
from worldmodels.video import VideoConfig, write_video
from worldmodels.video.plans import PlannedStep, plan_frames, plan_in_dream


@dataclass(frozen=True)
class PlanOnce:
    """Plan from a recorded state, go on in the dream, and plan again; no real frame is needed.

    Prints what each decision expects and how long it took; the film shows the plan's dream.
    """

    agent: str
    """folder of an agent or of its run, or name of an agent that comes with the package"""
    policy: planners.Method = "icem"
    """how to search"""
    planning: PlanningConfig = field(default_factory=PlanningConfig)
    """the planner"""
    weights: Path | None = None
    """file of `train-policy` with the critic, where one is used; None takes the agent's"""
    start: CountOrZero = 0
    """number of the recorded state"""
    decisions: Count = 20
    """decisions in the dream, at most"""
    seed: Seed = 0
    """of search and dream"""
    video: FilmPath | None = None
    """mp4 file of the plans over the dream; None writes nothing"""
    json: FilePath | None = None
    """file for every decision's figures; None writes nothing"""

    @classmethod
    def defaults(cls, preset: RunConfig, flags: Mapping[str, str]) -> Self:
        """The method's own settings."""
        return cls(agent=tyro.MISSING, planning=planners.defaults(flags.get("policy", "icem")))

    def ignored(self) -> Mapping[str, str]:
        """Settings of other planners, and weights that nobody reads."""
        found = planners.unused(self.policy)
        if not self.planning.objective.critic:
            found["weights"] = "the planner uses no critic; set --planning.objective.critic"
        return found

    def execute(self) -> None:
        """Plan, print, and write what was asked for."""
        planners.get(self.policy)
        use_all_cores()
        policy = open_driver(self.agent, self.policy, self.planning, self.weights)
        assert isinstance(policy, PlanningPolicy)
        steps = list(plan_in_dream(policy, self.decisions, self.start, self.seed))
        Console().print(table(steps))
        milliseconds = [1000 * step.plan.seconds for step in steps]
        total = sum(step.reward for step in steps)
        print(
            f"dream return {total:.1f} in {len(steps)} decisions; "
            f"{np.median(milliseconds):.1f} ms per decision (median)"
        )
        if self.json is not None:
            write_json(self.json, {"policy": self.policy, "decisions": [_facts(s) for s in steps]})
        if self.video is not None:
            cfg = VideoConfig(max_bytes=3_000_000)
            print(f"film: {write_video(self.video, plan_frames(policy, steps, cfg), cfg)}")


def table(steps: list[PlannedStep]) -> Table:
    """One line for each decision."""
    rows = Table(box=None)
    for name in (
        "decision",
        "action",
        "plan's score",
        "M's reward",
        "plans judged",
        "ms",
        "noise",
        "doubt",
    ):
        rows.add_column(name, justify="right")
    for t, step in enumerate(steps):
        action = " ".join(f"{number:+.2f}" for number in step.plan.actions[0])
        figures = (step.plan.score, step.reward)
        spread = (step.aleatoric.mean(), step.epistemic.mean())
        rows.add_row(
            str(t),
            action,
            *(f"{f:+.2f}" for f in figures),
            str(step.plan.samples),
            f"{1000 * step.plan.seconds:.1f}",
            *(f"{s:.3f}" for s in spread),
        )
    return rows


def _facts(step: PlannedStep) -> dict[str, object]:
    """A decision for JSON."""
    return {
        "actions": step.plan.actions.tolist(),
        "score": step.plan.score,
        "reward": step.reward,
        "samples": step.plan.samples,
        "iterations": step.plan.iterations,
        "ms": 1000 * step.plan.seconds,
        "aleatoric": step.aleatoric.tolist(),
        "epistemic": step.epistemic.tolist(),
    }
