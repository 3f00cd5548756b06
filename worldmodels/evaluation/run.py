"""Evaluations: policies x groups of seeds, run in lockstep, one process per core.

Groups have one fixed width, so an episode's return depends on the policy and on its group's seeds,
not on the workers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from worldmodels import envs, executors, runs
from worldmodels.config import Count, Seed, require
from worldmodels.evaluation.policies import (
    PolicySpec,
    build_behaviour,
    check_picklable,
    describe,
    identify,
    opened,
)
from worldmodels.evaluation.statistics import Summary, summarize
from worldmodels.executors import Executor
from worldmodels.experience.collect import GroupSize
from worldmodels.experience.episode import EpisodeResult
from worldmodels.experience.rollout import run_group, shared_envs
from worldmodels.protocols import UserError

GROUP_SIZE = 8
"""Episodes run in step. Wider groups are no faster on a CPU, and leave cores idle at the end."""

_Episode = TypedDict(
    "_Episode",
    {
        "seed": Seed,
        "return": float,
        "length": Count,
        "lap_finished": bool | None,
        "terminated": bool,
        "ms_per_action": float | None,
    },
)
"""An episode in JSON."""


class Task(NamedTuple):
    """A group of episodes."""

    policy: int
    """its position"""
    seeds: tuple[int, ...]


Done: TypeAlias = dict[int, list[EpisodeResult]]
"""A task's position -> its episodes."""


class _Unfinished(TypedDict):
    key: str
    groups: dict[str, list[_Episode]]


@dataclass(frozen=True)
class EvaluationResult:
    """What `worldmodels evaluate` writes."""

    agent: str
    """what was evaluated"""
    env: str
    """environment id"""
    episodes: tuple[EpisodeResult, ...]
    """in the order of the seeds, without rewards"""
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
        """Milliseconds of the policy per step; None where it was not measured."""
        timed = [e for e in self.episodes if e.ms_per_action is not None]
        steps = sum(e.length for e in timed)
        return sum((e.ms_per_action or 0) * e.length for e in timed) / steps if steps else None

    def pick(self, which: Literal["best", "median", "worst"]) -> EpisodeResult:
        """The best, the (lower) median or the worst episode; of equals, the first."""
        ranked = np.sort(self.returns)
        value = {"best": ranked[-1], "median": ranked[(len(ranked) - 1) // 2], "worst": ranked[0]}
        return self.episodes[int(np.argmax(self.returns == value[which]))]

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


class Options(TypedDict, total=False):
    """Arguments of `evaluate_many` that `evaluate` passes on."""

    executor: Executor | None
    group_size: int
    deterministic: bool
    max_steps: int | None
    env_kwargs: Mapping[str, Any] | None
    keep_actions: bool
    resume: Path | None


@dataclass(frozen=True)
class _Settings:
    """What all groups of an evaluation share."""

    env_id: str
    env_kwargs: Mapping[str, Any]
    width: int
    max_steps: int | None
    deterministic: bool
    keep_actions: bool


def evaluate(
    policy: PolicySpec,
    env_id: str,
    seeds: Sequence[int],
    workers: int | None = None,
    *,
    name: str | None = None,
    **options: Unpack[Options],
) -> EvaluationResult:
    """Run one episode per seed with one policy; see `evaluate_many`."""
    names = None if name is None else [name]
    return evaluate_many([policy], env_id, seeds, workers, names=names, **options)[0]


def evaluate_many(
    policies: Sequence[PolicySpec],
    env_id: str,
    seeds: Sequence[int],
    workers: int | None = None,
    *,
    executor: Executor | None = None,
    names: Sequence[str] | None = None,
    group_size: int = GROUP_SIZE,
    deterministic: bool = True,
    max_steps: int | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    keep_actions: bool = False,
    resume: Path | None = None,
) -> list[EvaluationResult]:
    """Run several policies on the same seeds, all groups of all policies side by side.

    There is one record per policy, in order; its seconds are an equal part of the wall clock.

    Args:
        policies: each a `PolicySpec`; an object must be picklable for several workers.
        env_id: any environment that `envs.make` accepts.
        seeds: one per episode.
        workers: processes if no executor is given (default: all cores).
        executor: where to work, such as the pipeline's one pool of processes.
        names: what the results call the policies (default: their specs).
        group_size: episodes in step; the floats depend on it.
        deterministic: ask a policy for its mode.
        max_steps: truncate episodes, beside the environment's own limit.
        env_kwargs: passed to `envs.make`.
        keep_actions: put each episode's actions into its record, to replay it.
        resume: JSON file of finished groups, from which an interrupted evaluation resumes; deleted
            at the end. Not with ``keep_actions``.

    Raises:
        UserError: no seeds, an unknown agent or environment, an agent for another action space.
    """
    began = time.perf_counter()
    seeds = [int(seed) for seed in seeds]
    if not seeds:
        raise UserError("there are no seeds to evaluate; give at least one episode")
    require("seed", min(seeds), Seed)
    require("group_size", group_size, GroupSize)
    if resume is not None and keep_actions:
        raise UserError("resume keeps no actions; evaluate without one of them")
    settings = _Settings(
        env_id, dict(env_kwargs or {}), group_size, max_steps, deterministic, keep_actions
    )
    env = shared_envs(env_id, 1, settings.env_kwargs)[0]
    for policy in policies:  # raise errors before any process starts
        build_behaviour(policy, env, deterministic)
    envs.note_endless(env, max_steps)
    groups = [tuple(seeds[i : i + group_size]) for i in range(0, len(seeds), group_size)]
    tasks = [Task(p, group) for p in range(len(policies)) for group in groups]
    key = "" if resume is None else _key(policies, seeds, settings)
    done = _finished_groups(resume, key)
    with executors.given_or_new(executor, workers, len(tasks) - len(done)) as pool:
        if executor is None and pool.workers > 1:
            check_picklable(policies)
        acting = opened(policies) if pool.remote else policies
        work = partial(_run_group, tuple(acting), settings)
        _run(pool, work, tasks, done, None if resume is None else (resume, key))
    if resume is not None:
        resume.unlink(missing_ok=True)
    threshold = env.spec.reward_threshold if env.spec else None
    seconds = (time.perf_counter() - began) / max(len(policies), 1)
    results = []
    for p, policy in enumerate(policies):
        first = p * len(groups)
        episodes = tuple(e for g in range(len(groups)) for e in done[first + g])
        summary = summarize([e.total_reward for e in episodes], threshold)
        label = names[p] if names is not None else describe(policy)
        results.append(EvaluationResult(label, env_id, episodes, summary, deterministic, seconds))
    return results


def _run(
    pool: Executor,
    work: Callable[[Task], list[EpisodeResult]],
    tasks: Sequence[Task],
    done: Done,
    resume: tuple[Path, str] | None,
) -> None:
    """Do the missing tasks; ``done`` grows as they come, and the resume file with it."""
    missing = [t for t in range(len(tasks)) if t not in done]
    total = sum(len(seeds) for _, seeds in tasks)
    began, frames = time.perf_counter(), 0
    with runs.progress(range(total), "evaluating", unit="episodes") as bar:
        bar.advance(sum(map(len, done.values())))
        for index, episodes in pool.map(work, [tasks[t] for t in missing]):
            done[missing[index]] = episodes
            frames += sum(episode.length for episode in episodes)
            mean = float(np.mean([e.total_reward for group in done.values() for e in group]))
            rate = frames / (time.perf_counter() - began)
            bar.advance(len(episodes), mean=mean, frames_per_second=rate)
            if resume is not None:
                kept = {str(t): [e.to_json() for e in group] for t, group in done.items()}
                runs.write_json(resume[0], {"key": resume[1], "groups": kept})


def _run_group(
    policies: Sequence[PolicySpec], settings: _Settings, task: Task
) -> list[EpisodeResult]:
    """Run one group; this is what a worker does."""
    which, seeds = task
    pool = shared_envs(settings.env_id, len(seeds), settings.env_kwargs)
    with executors.one_thread():
        seed = runs.derive_seed("evaluate", *seeds)
        behaviour = build_behaviour(policies[which], pool[0], settings.deterministic, seed)
        results = run_group(
            pool, behaviour, seeds, max_steps=settings.max_steps, width=settings.width
        )
    keep = settings.keep_actions
    return [replace(r, rewards=None, actions=r.actions if keep else None) for r in results]


def _key(policies: Sequence[PolicySpec], seeds: Sequence[int], settings: _Settings) -> str:
    """Hash of all that an evaluation depends on, for the resume file."""
    identities = [identify(policy) for policy in policies]
    try:
        return runs.config_hash([identities, seeds, asdict(settings), runs.versions()])
    except TypeError as error:
        raise UserError(f"resume needs env_kwargs that JSON can hold: {error}") from error


def _finished_groups(resume: Path | None, key: str) -> Done:
    """Groups that an interrupted evaluation has finished; none of another evaluation."""
    if resume is None or not resume.exists():
        return {}
    content = runs.read_json(resume, _Unfinished)
    groups = content["groups"] if content["key"] == key else {}
    return {int(task): [_from_json(e) for e in episodes] for task, episodes in groups.items()}


def _from_json(episode: _Episode) -> EpisodeResult:
    same: Any = {name: value for name, value in episode.items() if name != "return"}
    return EpisodeResult(
        total_reward=episode["return"], truncated=not episode["terminated"], **same
    )
