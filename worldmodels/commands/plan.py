"""`worldmodels plan`: a planner at work in the dream, in figures and as a film."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from rich.console import Console
from rich.table import Table

from worldmodels.commands.parsing import Command
from worldmodels.config import Count, CountOrZero, Seed
from worldmodels.planning.config import METHODS, Method, PlanningConfig
from worldmodels.planning.drivers import open_driver
from worldmodels.planning.policy import PlanningPolicy
from worldmodels.presets import RunConfig
from worldmodels.runs import FilePath, FilmPath, write_json
from worldmodels.video import VideoConfig, write_video
from worldmodels.video.plans import PlannedStep, plan_frames, plan_in_dream


@dataclass(frozen=True)
class PlanOnce(Command):
    """Plan from a recorded state, take the first action in the dream, and plan again.

    Prints what each decision expects and how long it took; the film shows the plan's dream.
    """

    common: ClassVar[str] = (
        "agent policy weights start decisions seed video json planning.objective.horizon "
        "planning.objective.particles planning.cem.samples planning.cem.iterations"
    )

    agent: str
    """agent: its folder, its run's folder, or the name of a bundled one"""
    policy: Method = "icem"
    """planner"""
    planning: PlanningConfig = field(default_factory=PlanningConfig)
    """the planner"""
    weights: Path | None = None
    """file of `train-policy` with the critic, where the planner uses one (default: the one in the
    agent's folder)"""
    start: CountOrZero = 0
    """index of the recorded state to start from"""
    decisions: Count = 20
    """decisions in the dream, at most"""
    seed: Seed = 0
    """random seed of the search and the dream"""
    video: FilmPath | None = None
    """write a film of the plans over the dream to this mp4 file (default: do not write)"""
    json: FilePath | None = None
    """write every decision to this JSON file (default: do not write)"""

    @classmethod
    def defaults(cls, preset: RunConfig, flags: Mapping[str, str]) -> Self:
        """The planner's own settings."""
        planning = PlanningConfig.of(flags.get("policy", "icem"))
        return replace(super().defaults(preset, flags), planning=planning)

    def ignored(self) -> Mapping[str, str]:
        """Settings of other planners, and weights that nobody reads."""
        found = of_planners(self.policy)
        if not self.planning.objective.critic:
            found["weights"] = "the planner uses no critic; set --planning.objective.critic"
        return found

    def execute(self) -> None:
        """Plan, print, and write what was asked for."""
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
    heads = ("decision", "action", "plan's score", "M's reward", "plans judged")
    for name in (*heads, "ms", "aleatoric", "epistemic"):
        rows.add_column(name, justify="right")
    for t, step in enumerate(steps):
        rows.add_row(
            str(t),
            " ".join(f"{number:+.2f}" for number in step.plan.actions[0]),
            f"{step.plan.score:+.2f}",
            f"{step.reward:+.2f}",
            str(step.plan.samples),
            f"{1000 * step.plan.seconds:.1f}",
            f"{step.aleatoric.mean():.3f}",
            f"{step.epistemic.mean():.3f}",
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


def of_planners(policy: str) -> dict[str, str]:
    """Options of `PlanningConfig` that have no effect under a policy."""
    if policy not in METHODS:
        return {"planning": f"{policy} does not plan"}
    used = "cem" if policy == "icem" else policy
    others = ("cem", "mppi", "gradient", "rollout")
    found = {f"planning.{name}": f"the planner is {policy}" for name in others if name != used}
    if policy == "rollout":
        found["planning.objective.proposal"] = "rollouts begin at the proposal anyway"
    if policy == "gradient":
        found["planning.objective.disagreement-penalty"] = "gradients have no such term"
    return found
