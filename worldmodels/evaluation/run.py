"""Evaluations: policies x groups of seeds, driven in lockstep, one process per core.

Groups have one fixed width, so an episode's return depends on the driver and on its group's seeds,
not on the workers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from worldmodels import envs, executors, runs
from worldmodels.config import Between, Count, Seed, require
from worldmodels.evaluation.policies import (
    AgentParameters,
    PolicySpec,
    build_behaviour,
    check_picklable,
    describe,
    stamp,
)
from worldmodels.evaluation.records import EpisodeRecord, EvaluationResult
from worldmodels.evaluation.statistics import summarize
from worldmodels.executors import Executor
from worldmodels.experience.rollout import (
    GROUP_WIDTH,
    Behaviour,
    EpisodeResult,
    GroupStep,
    run_group,
    shared_envs,
)
from worldmodels.protocols import UserError

GROUP_SIZE = 8
"""Episodes driven in step. Wider groups are no faster on a CPU, and leave cores idle at the end."""


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
    executor: Executor | None = None,
    name: str | None = None,
    group_size: int = GROUP_SIZE,
    deterministic: bool = True,
    max_steps: int | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    keep_actions: bool = False,
    resume: Path | None = None,
) -> EvaluationResult:
    """Drive one episode per seed.

    Args:
        policy: an agent's folder or name, "random", "zeros", a checkpoint, or an object with
            `predict`, which must be picklable where there are several workers.
        env_id: any environment that `envs.make` accepts.
        seeds: one per episode.
        workers: processes, where no executor is given; None takes all cores.
        executor: where to work.
        name: what the result calls the policy; its spec if not given.
        group_size: episodes in step; part of what fixes the floats.
        deterministic: ask the policy for its mode.
        max_steps: truncate episodes, beside the environment's own limit.
        env_kwargs: passed to `envs.make`.
        keep_actions: put each episode's actions into its record, to replay it.
        resume: a JSON file that keeps finished groups, so that a long evaluation can go on after
            an interruption; removed in the end. Not with ``keep_actions``.

    Raises:
        UserError: no seeds, an unknown agent or environment, an agent for another action space.
    """
    options: dict[str, Any] = {"group_size": group_size, "max_steps": max_steps}
    options |= {"deterministic": deterministic, "env_kwargs": env_kwargs}
    options |= {"keep_actions": keep_actions, "resume": resume}
    names = None if name is None else [name]
    return evaluate_many(
        [policy], env_id, seeds, workers, executor=executor, names=names, **options
    )[0]


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
    """Drive several policies on the same seeds, all groups of all policies side by side.

    See `evaluate`; the result is one record per policy, in order. Each one's seconds are a share of
    the whole wall clock.
    """
    began = time.perf_counter()
    seeds = _check_seeds(seeds, group_size)
    if resume is not None and keep_actions:
        raise UserError("resume keeps no actions; evaluate without one of them")
    settings = _Settings(
        env_id, dict(env_kwargs or {}), group_size, max_steps, deterministic, keep_actions
    )
    env = shared_envs(env_id, 1, settings.env_kwargs)[0]
    for policy in policies:  # a mistake is told before any process starts
        build_behaviour(policy, env, deterministic)
    envs.note_endless(env, max_steps)
    groups = [tuple(seeds[i : i + group_size]) for i in range(0, len(seeds), group_size)]
    tasks = [(p, group) for p in range(len(policies)) for group in groups]
    key = "" if resume is None else _key(policies, seeds, settings)
    done = _finished_groups(resume, key)
    work = partial(_drive, tuple(policies), settings)
    with _given_or_new(executor, workers, len(tasks) - len(done), policies) as pool:
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


def _check_seeds(seeds: Sequence[int], group_size: int) -> list[int]:
    listed = [int(seed) for seed in seeds]
    if not listed:
        raise UserError("there are no seeds to evaluate; give at least one episode")
    if min(listed) < 0:
        raise UserError(f"seed {min(listed)} is negative; seeds are 0 or more")
    require("group_size", group_size, Annotated[int, Between(1, GROUP_WIDTH)])
    return listed


Done: TypeAlias = "dict[int, list[EpisodeRecord]]"


def _run(
    pool: Executor,
    work: Callable[[tuple[int, tuple[int, ...]]], list[EpisodeRecord]],
    tasks: Sequence[tuple[int, tuple[int, ...]]],
    done: Done,
    resume: tuple[Path, str] | None,
) -> None:
    """Do the missing tasks; ``done`` grows as they come, and the resume file with it."""
    missing = [t for t in range(len(tasks)) if t not in done]
    total = sum(len(seeds) for _, seeds in tasks)
    began, frames = time.perf_counter(), 0
    with runs.progress(total, "evaluating", unit="episodes") as bar:
        bar.advance(sum(len(episodes) for episodes in done.values()))
        for index, episodes in pool.map(work, [tasks[t] for t in missing]):
            done[missing[index]] = episodes
            frames += sum(episode.length for episode in episodes)
            mean = float(np.mean([e.total_reward for group in done.values() for e in group]))
            rate = frames / (time.perf_counter() - began)
            bar.advance(len(episodes), mean=mean, frames_per_second=rate)
            if resume is not None:
                kept = {str(t): [e.to_json() for e in group] for t, group in done.items()}
                runs.write_json(resume[0], {"key": resume[1], "groups": kept})


def _drive(
    policies: Sequence[PolicySpec], settings: _Settings, task: tuple[int, tuple[int, ...]]
) -> list[EpisodeRecord]:
    """Drive one group; this is what a worker does."""
    which, seeds = task
    pool = shared_envs(settings.env_id, len(seeds), settings.env_kwargs)
    actions: list[NDArray[Any]] = []

    def note(step: GroupStep) -> None:
        if step.action is not None:
            actions.append(step.action.copy())

    with one_thread():
        seed = runs.derive_seed("evaluate", *seeds)
        driver = Stopwatch(build_behaviour(policies[which], pool[0], settings.deterministic, seed))
        results = run_group(
            pool,
            driver,
            seeds,
            max_steps=settings.max_steps,
            width=settings.width,
            on_step=note if settings.keep_actions else None,
        )
    taken = np.stack(actions) if actions else None
    return [
        _record(
            result,
            None if taken is None else taken[: result.length, row].copy(),
            1000 * float(driver.seconds[row]) / result.length,
        )
        for row, result in enumerate(results)
    ]


class Stopwatch:
    """A behaviour, and the time that its decisions take; active rows share a call's time."""

    def __init__(self, behaviour: Behaviour) -> None:
        """Watch a behaviour."""
        self._behaviour = behaviour
        self.seconds = np.zeros(GROUP_WIDTH)
        """(W,) for each row so far"""

    def start(self, seeds: Sequence[int]) -> None:
        """See `Behaviour.start`."""
        self._behaviour.start(seeds)
        self.seconds[:] = 0

    def act(self, obs: NDArray[np.uint8], active: NDArray[np.bool_]) -> NDArray[Any]:
        """See `Behaviour.act`."""
        began = time.perf_counter()
        actions = self._behaviour.act(obs, active)
        self.seconds[: len(active)][active] += (time.perf_counter() - began) / active.sum()
        return actions


def _record(result: EpisodeResult, actions: NDArray[Any] | None, ms: float) -> EpisodeRecord:
    return EpisodeRecord(
        seed=result.seed,
        total_reward=result.total_reward,
        length=result.length,
        lap_finished=result.lap_finished,
        terminated=result.terminated,
        actions=actions,
        ms_per_action=ms,
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread, as worker processes do, so that in-process floats are the same.

    It is the faster way, too, for the small batches of driving and filming on a busy machine.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _given_or_new(
    executor: Executor | None, workers: int | None, tasks: int, policies: Sequence[PolicySpec]
) -> Iterator[Executor]:
    """The caller's executor, or one of our own for the while."""
    if executor is not None:
        yield executor
        return
    number = max(1, min(workers or executors.usable_cores(), tasks))
    if number > 1:
        check_picklable(policies)
    with executors.make(None, number) as pool:
        yield pool


def _key(policies: Sequence[PolicySpec], seeds: Sequence[int], settings: _Settings) -> str:
    """Hash of all that an evaluation depends on, for the resume file."""
    identities: list[Any] = []
    for policy in policies:
        if policy in ("random", "zeros"):
            identities.append(policy)
        elif isinstance(policy, AgentParameters):
            identities.append([stamp(policy.agent)[1], policy.parameters])
        elif isinstance(policy, str | Path):
            identities.append(stamp(policy)[1])
        elif getattr(policy, "digest", ""):
            identities.append(getattr(policy, "digest", ""))
        else:
            raise UserError(
                "resume needs an agent's folder or name, or a policy that names its weights in an "
                "attribute `digest`"
            )
    try:
        return runs.config_hash([identities, seeds, asdict(settings), runs.versions()])
    except TypeError as error:
        raise UserError(f"resume needs env_kwargs that JSON can hold: {error}") from error


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


class _Unfinished(TypedDict):
    key: str
    groups: dict[str, list[_Episode]]


def _finished_groups(resume: Path | None, key: str) -> Done:
    """Groups that an interrupted evaluation has finished; none if it was another evaluation."""
    if resume is None or not resume.exists():
        return {}
    content = runs.read_json(resume, _Unfinished)
    if content["key"] != key:
        return {}
    return {
        int(task): [
            EpisodeRecord(
                e["seed"],
                e["return"],
                e["length"],
                e["lap_finished"],
                e["terminated"],
                ms_per_action=e["ms_per_action"],
            )
            for e in episodes
        ]
        for task, episodes in content["groups"].items()
    }
