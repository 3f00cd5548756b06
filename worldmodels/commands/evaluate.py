"""`worldmodels evaluate`: measure a policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar, Self

import tyro

from baselines import drivers
from worldmodels import envs
from worldmodels._agent_files import CONFIG, read_config
from worldmodels._files import is_stream
from worldmodels.agent import find
from worldmodels.commands.parsing import AgentName, Command
from worldmodels.config import Count, Episodes, Seed
from worldmodels.evaluation import EvaluationResult, PolicySpec, evaluate
from worldmodels.executors import Placement
from worldmodels.planning import planners
from worldmodels.planning.planners import PlanningConfig
from worldmodels.policies.opening import Named, best_policy, open_policy
from worldmodels.protocols import DEFAULT_AGENT, TEST_SEED_START, UserError
from worldmodels.run_config import DEFAULT_ENV, RunConfig
from worldmodels.runs import FilePath, FolderPath, RunFolder, config_hash, read_json
from worldmodels.tasks import task_for

CONTROLS = ("random", "zeros")
"""Policies that need no agent: uniform actions, and zeros."""


@dataclass(frozen=True)
class Evaluate(Command):
    """Measure a policy in the real environment: one episode for each of the seeds S, ..., S+N-1.

    Prints the statistics; the JSON has every episode too.
    """

    common: ClassVar[str] = (
        "agent policy weights env episodes seed json workers executor address resume max-steps run "
        "deterministic"
    )

    agent: AgentName = DEFAULT_AGENT
    """what to measure: an agent or a baseline (its folder, its run's folder, or the name of a
    bundled one), `random` or `zeros`"""
    policy: Named = None
    """policy on the agent's V and M: its C, a planner, or a network of `train-policy` (default: the
    agent's ensemble or residual where it has one, else its C)"""
    weights: Path | None = None
    """file of `train-policy` with the network, or with a planner's critic (default: the one in the
    agent's folder)"""
    planning: PlanningConfig = field(default_factory=PlanningConfig)
    """the planner, where --policy is one"""
    env: str | None = None
    """Gymnasium id; --obs-key KEY chooses among its images, --env-kwargs '{"name": value}' passes
    arguments (default: the agent's own environment, or the stock one of a faster one)"""
    episodes: Episodes = 20
    """number of episodes"""
    seed: Seed = TEST_SEED_START
    """first seed; the published test seeds are 1000000 to 1000099"""
    json: FilePath | None = None
    """write the result to this JSON file (default: do not write)"""
    placement: Annotated[Placement, tyro.conf.arg(name="")] = field(default_factory=Placement)
    """where episodes are played"""
    resume: bool = False
    """keep finished episodes beside the JSON, and resume from them after an interruption"""
    deterministic: bool = True
    """act on V's mean; otherwise z is sampled"""
    max_steps: Count | None = None
    """truncate episodes after so many steps; needed where the environment has no time limit"""
    run: FolderPath | None = None
    """run folder to log the frames into (default: do not log)"""

    @classmethod
    def defaults(cls, preset: RunConfig, flags: Mapping[str, str]) -> Self:
        """The planner's own settings."""
        planning = planners.defaults(flags.get("policy"))
        return replace(super().defaults(preset, flags), planning=planning)

    def ignored(self) -> Mapping[str, str]:
        """Settings of other planners, and weights without a use."""
        try:
            policy = self._policy
        except UserError:  # no such agent: refused when it is opened
            return {}
        found = planners.unused(policy)
        if policy in planners.PLANNERS and not self.planning.objective.critic:
            found["weights"] = "the planner uses no critic; set --planning.objective.critic"
        return found

    def measure(self) -> EvaluationResult:
        """Run the episodes."""
        unfinished = None
        if self.resume:
            if self.json is None:
                raise UserError("--resume keeps finished episodes beside the JSON; give --json too")
            if is_stream(self.json):
                raise UserError(f"--resume keeps finished episodes beside {self.json}; name a file")
            unfinished = self.json.with_name(f".{self.json.name}-resume")
        env_id = self.env or home_of(self.agent)
        if self.run is not None:
            require_same_env(self.run, env_id)
            with RunFolder(self.run).lock():
                pass  # a live run would refuse the count of frames at the end
        name = self.agent if self._policy == "controller" else f"{self.agent} ({self._policy})"
        remote = self.placement.executor == "ray"
        with self.placement.make() if remote else nullcontext() as executor:
            return evaluate(
                self._open(),
                env_id,
                self._seeds,
                self.placement.workers,
                executor=executor,
                name=name,
                deterministic=self.deterministic,
                max_steps=self.max_steps,
                resume=unfinished,
            )

    def execute(self) -> None:
        """Evaluate, print the table, write the JSON."""
        result, seeds = self.measure(), self._seeds
        if self.json is not None:
            result.write(self.json)
        if self.run is not None:
            key = config_hash([result.agent, result.env, list(seeds), result.returns])[:16]
            run = RunFolder(self.run)
            with run.lock(wait=60):  # other evaluations may count theirs
                run.ledger.add("test", result.frames, f"test/{key}")
        print(f"{result.agent} in {result.env}")
        for name, value in statistics(result, seeds):
            print(f"  {name:20} {value}")

    @property
    def _seeds(self) -> range:
        return range(self.seed, self.seed + self.episodes)

    @property
    def _policy(self) -> str:
        """The policy that acts; of controls and baselines "controller"."""
        if self.policy is not None:
            return self.policy
        alone = self.agent in CONTROLS or drivers.is_driver(Path(self.agent))
        return "controller" if alone else best_policy(self.agent)

    def _open(self) -> PolicySpec:
        if self.weights is not None and self._policy in ("controller", "ensemble"):
            raise UserError(
                f"--weights is {self.weights}, but {self._policy} takes no such file; name the "
                "policy that the file holds, for example --policy residual"
            )
        if self._policy == "controller":
            folder = Path(self.agent)
            return drivers.load_driver(folder) if drivers.is_driver(folder) else self.agent
        if self.agent in CONTROLS:
            raise UserError(f"{self.agent} has no V and M for {self.policy}; give an agent")
        return open_policy(self.agent, self._policy, self.planning, self.weights)


def require_same_env(run: Path, env_id: str) -> None:
    """Refuse to count frames in a run of another environment; a folder of no run takes all."""
    from worldmodels.pages.data import Settings, read_part

    found = read_part(run / CONFIG, Settings).get("config") or {}
    own = [found[name] for name in ("env_id", "test_env_id") if found.get(name)]
    names = [replace(envs.parse(name), module="") for name in (env_id, *own)]
    if own and names[0] not in names[1:]:
        raise UserError(
            f"--run is {run}, a run of {own[0]}, and these are frames of {env_id}: name its agent "
            f"(--agent {run}), or leave --run out"
        )


def own_env(agent: str) -> str:
    """The environment that an agent learned."""
    if agent in CONTROLS:
        return DEFAULT_ENV
    folder = find(agent)
    config = read_json(folder / CONFIG) if drivers.is_driver(folder) else read_config(folder)
    return envs.from_file(str(config["env_id"]), folder / CONFIG)


def home_of(agent: str) -> str:
    """The environment that an agent is evaluated in: its own, or the stock one of a faster one."""
    env_id = own_env(agent)
    return task_for(env_id).test_env(env_id)


def statistics(result: EvaluationResult, seeds: range) -> Iterator[tuple[str, str]]:
    """Name and text of each figure of an evaluation."""
    from worldmodels.pages.text import decimals, plain

    found = result.summary
    low, high = found.ci95 or (found.mean, found.mean)
    digits = max(1, decimals((high - low) / 2))
    yield "mean return", plain(found.mean, digits)
    if found.ci95 is not None:
        yield "95% interval", f"{plain(low, digits)} to {plain(high, digits)}"
    yield "standard deviation", plain(found.std, digits)
    yield "median", plain(found.median, digits)
    yield "interquartile mean", plain(found.iqm, digits)
    yield "tenth percentile", plain(found.p10, digits)
    if found.fraction_solved is not None:
        yield "solved", f"{found.fraction_solved:.0%}"
    laps = [episode.lap_finished for episode in result.episodes]
    if None not in laps:
        finished = task_for(result.env).words.finished or ("finished",)
        yield finished[-1], f"{sum(map(bool, laps))} of {len(laps)}"
    if result.ms_per_action is not None:
        yield "time per action", f"{result.ms_per_action:.1f} ms"
    yield "seeds", f"{seeds[0]} to {seeds[-1]}"
    yield "frames", f"{result.frames:,} in {result.seconds:.1f} s"
