"""`worldmodels evaluate`: how good a driver is, on any seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from baselines import drivers
from worldmodels import envs
from worldmodels._agent_files import CONFIG, read_config
from worldmodels._files import is_stream
from worldmodels.agent import find
from worldmodels.commands.stage import use_all_cores
from worldmodels.config import Count, Episodes, Seed, Workers
from worldmodels.evaluation import EvaluationResult, PolicySpec, evaluate
from worldmodels.planning import planners
from worldmodels.planning.planners import PlanningConfig
from worldmodels.policies.opening import Named, best_driver, open_driver
from worldmodels.presets import DEFAULT_ENV, RunConfig
from worldmodels.protocols import TEST_SEED_START, UserError
from worldmodels.runs import FilePath, FolderPath, RunFolder, config_hash, read_json
from worldmodels.tasks import task_for

CONTROLS = ("random", "zeros")
"""Drivers that need no agent: uniform actions, and none."""


@dataclass(frozen=True)
class Evaluate:
    """Measure a driver in the real environment: one episode for each of the seeds S, ..., S+N-1.

    Prints the statistics; the JSON has every episode too.
    """

    agent: str
    """folder of an agent, of a baseline's driver or of a run, whose agent it then is; name of an
    agent that comes with the package; `random` or `zeros`"""
    policy: Named = None
    """what drives on the agent's V and M: its own C, a planner, or a policy of `train-policy`; None
    for the agent's committee, or its C with its residual, as far as it has them"""
    weights: Path | None = None
    """file of `train-policy` for a learned policy or for the critic of a planner; None takes the
    one in the agent's folder"""
    planning: PlanningConfig = field(default_factory=PlanningConfig)
    """the planner, where the policy is one"""
    env: str | None = None
    """Gymnasium id; None takes the agent's own, and of CarRacing the stock one"""
    episodes: Episodes = 20
    """number of episodes"""
    seed: Seed = TEST_SEED_START
    """first seed; the test tracks are 1000000 to 1000099"""
    json: FilePath | None = None
    """write the result to this JSON file; None does not write"""
    workers: Workers | None = None
    """processes; None takes one per usable core. The result is the same for any number"""
    resume: bool = False
    """keep finished episodes beside the JSON, and go on with them after an interruption"""
    deterministic: bool = True
    """drive by V's mean; otherwise z is sampled"""
    max_steps: Count | None = None
    """truncate episodes after so many steps, beside the environment's own limit; one without a
    limit needs it"""
    run: FolderPath | None = None
    """run folder whose ledger counts the frames; None writes nothing"""

    @classmethod
    def defaults(cls, preset: RunConfig, flags: Mapping[str, str]) -> Self:
        """Only the agent must be given."""
        return cls(agent=tyro.MISSING, planning=planners.defaults(flags.get("policy")))

    def ignored(self) -> Mapping[str, str]:
        """Settings of planners that do not drive, and weights that nobody reads."""
        try:
            policy = self._policy
        except UserError:  # no such agent, which is said when it is opened
            return {}
        found = planners.unused(policy)
        if policy in planners.PLANNERS and not self.planning.objective.critic:
            found["weights"] = "the planner uses no critic; set --planning.objective.critic"
        return found

    def execute(self) -> None:
        """Drive, print the table, write the JSON."""
        if self.resume and self.json is None:
            raise UserError("--resume keeps finished episodes beside the JSON; give --json too")
        if self.resume and self.json is not None and is_stream(self.json):
            raise UserError(f"--resume keeps finished episodes beside {self.json}; name a file")
        if self.run is not None:
            with RunFolder(self.run).lock():
                pass  # a live run would refuse the count at the end, after all the work
        use_all_cores()
        seeds = range(self.seed, self.seed + self.episodes)
        result = evaluate(
            self._driver(),
            self.env or home_of(self.agent),
            seeds,
            self.workers,
            name=self.agent if self._policy == "controller" else f"{self.agent} ({self._policy})",
            deterministic=self.deterministic,
            max_steps=self.max_steps,
            resume=self._unfinished(),
        )
        if self.json is not None:
            result.write(self.json)
        if self.run is not None:
            key = config_hash([result.agent, result.env, list(seeds), result.returns])[:16]
            run = RunFolder(self.run)
            with run.lock(wait=60):  # other evaluations may count theirs
                run.count_frames("test", result.frames, f"test/{key}")
        Console().print(table(result, seeds))

    @property
    def _policy(self) -> str:
        """Who drives; controls and baselines drive themselves."""
        if self.policy is not None:
            return self.policy
        alone = self.agent in CONTROLS or drivers.is_driver(Path(self.agent))
        return "controller" if alone else best_driver(self.agent)

    def _driver(self) -> PolicySpec:
        if self.weights is not None and self._policy in ("controller", "committee"):
            raise UserError(
                f"--weights is {self.weights}, but {self._policy} takes no such file; name the "
                "policy that it is of, for example --policy residual"
            )
        if self._policy == "controller":
            return policy_of(self.agent)
        if self.agent in CONTROLS:
            raise UserError(f"{self.agent} has no V and M for {self.policy}; give an agent")
        return open_driver(self.agent, self._policy, self.planning, self.weights)

    def _unfinished(self) -> Path | None:
        if not self.resume or self.json is None:
            return None
        return self.json.with_name(f".{self.json.name}-resume")


def policy_of(agent: str) -> PolicySpec:
    """What `evaluate` can drive: an agent by its name or folder, a baseline's driver opened."""
    return drivers.load_driver(Path(agent)) if drivers.is_driver(Path(agent)) else agent


def home_of(agent: str) -> str:
    """The environment that an agent is measured in: its own, or the stock one of a faster one."""
    env_id = DEFAULT_ENV
    if agent not in CONTROLS:
        folder = find(agent)
        config = read_json(folder / CONFIG) if drivers.is_driver(folder) else read_config(folder)
        env_id = envs.from_file(str(config["env_id"]), folder / CONFIG)
    return task_for(env_id).test_env(env_id)


def table(result: EvaluationResult, seeds: range) -> Table:
    """The statistics of an evaluation, one line each."""
    cfg = result.summary
    rows = Table(show_header=False, box=None, title=Text(f"{result.agent} in {result.env}"))
    rows.add_row("mean return", f"{cfg.mean:.1f}")
    if cfg.ci95 is not None:
        rows.add_row("95% interval", f"{cfg.ci95[0]:.1f} to {cfg.ci95[1]:.1f}")
    rows.add_row("deviation", f"{cfg.std:.1f}")
    rows.add_row("median", f"{cfg.median:.1f}")
    rows.add_row("mean of the middle half", f"{cfg.iqm:.1f}")
    rows.add_row("tenth percentile", f"{cfg.p10:.1f}")
    if cfg.fraction_solved is not None:
        rows.add_row("solved", f"{cfg.fraction_solved:.0%}")
    laps = [episode.lap_finished for episode in result.episodes]
    if None not in laps:
        finished = task_for(result.env).words.finished or ("finished",)
        rows.add_row(finished[-1], f"{sum(map(bool, laps))} of {len(laps)}")
    if result.ms_per_action is not None:
        rows.add_row("time per action", f"{result.ms_per_action:.1f} ms")
    rows.add_row("seeds", f"{seeds[0]} to {seeds[-1]}")
    rows.add_row("frames", f"{result.frames:,} in {result.seconds:.1f} s")
    return rows
