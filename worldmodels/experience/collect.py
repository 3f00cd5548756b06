"""Collecting episodes: groups of seeds are driven by workers, one shard for each group."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np

from worldmodels import envs, executors
from worldmodels.config import AtLeast, Between, Config, Count, Limit, Repeat
from worldmodels.envs.frames import FrameSpec
from worldmodels.envs.spaces import ActionSpec
from worldmodels.executors import Executor
from worldmodels.experience.exploration import (
    AgentNoiseConfig,
    BehaviourConfig,
    PolicyLoader,
    build_behaviour,
    describe,
)
from worldmodels.experience.folders import MANIFEST, shard_files
from worldmodels.experience.recorder import Recorder
from worldmodels.experience.rollout import (
    GROUP_WIDTH,
    run_group,
    shared_envs,
)
from worldmodels.experience.shards import SUFFIX, Shard, write_shard
from worldmodels.protocols import TRAINING_SEED_LIMIT, UserError
from worldmodels.runs import make_folder, progress, to_jsonable, versions, write_json
from worldmodels.tasks import task_of

VERSIONS_KEPT = ("worldmodels", "gymnasium", "box2d", "pygame", "numpy", "numba")
"""Packages that frames depend on; a shard records their versions and nothing of the machine."""


TrainingEpisodes: TypeAlias = Annotated[int, AtLeast(1), Limit(TRAINING_SEED_LIMIT)]
"""Episodes of training seeds."""
GroupSize: TypeAlias = Annotated[int, Between(1, GROUP_WIDTH)]
"""Episodes that are driven in step."""


@dataclass(frozen=True)
class CollectConfig(Config):
    """How episodes are grouped and how long they may be."""

    group: GroupSize = 8
    """episodes driven in step by one worker and written into one shard"""
    max_steps: Count | None = None
    """truncate episodes after that many steps; None leaves it to the environment"""
    patience: Count | None = None
    """truncate episodes after that many steps without a reward above 0; None never does"""
    action_repeat: Repeat = 1
    """steps of the environment that each action is held for; stored are the frames at which an
    action is chosen, and the sums of the rewards in between"""


@dataclass(frozen=True)
class CollectSummary:
    """What a collection holds, shards of an earlier call included."""

    frames: int
    """environment steps, which is what the frame ledger counts"""
    episodes: int
    """episodes"""
    seconds: float
    """wall-clock time of this call"""
    mean_return: float
    """mean of the episodes' returns"""
    new_frames: int
    """environment steps taken by this call; the rest had been collected before"""


@dataclass(frozen=True)
class _Task:
    """What a worker needs to know to make one shard."""

    path: Path
    seeds: tuple[int, ...]
    env_id: str
    behaviour: BehaviourConfig
    meta: Mapping[str, Any] = field(repr=False)
    env_kwargs: Mapping[str, Any] = field(repr=False)
    load_policy: PolicyLoader | None = field(repr=False)
    cfg: CollectConfig = field(repr=False)


def collect(
    cfg: CollectConfig,
    env_id: str,
    behaviour: BehaviourConfig,
    seeds: Sequence[int],
    out: Path,
    workers: int = 1,
    *,
    executor: Executor | None = None,
    load_policy: PolicyLoader | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    frame_spec: FrameSpec | None = None,
) -> CollectSummary:
    """Drive one episode for each seed and store them; what is there already is kept.

    The files depend on the arguments alone: any number of workers, and any number of interruptions,
    end with the same bytes.

    Args:
        cfg: grouping and length.
        env_id: any environment that `envs.make` accepts.
        behaviour: what drives.
        seeds: distinct training seeds, below `TRAINING_SEED_LIMIT`.
        out: folder, for this collection alone.
        workers: processes to use if no executor is given.
        executor: where to work, such as the pipeline's one pool of processes.
        load_policy: opens an agent's folder, for `AgentNoiseConfig`; importable from a module.
        env_kwargs: passed to `envs.make`.
        frame_spec: how frames are cropped and resized; None takes the task's.

    Returns:
        Totals of the whole collection.

    Raises:
        UserError: unusable seeds, a folder that holds another collection, an environment or an
            agent that cannot be used, a full disk.
    """
    begun = time.perf_counter()
    seeds = [int(seed) for seed in seeds]
    _check_seeds(seeds)
    env = shared_envs(env_id, 1, env_kwargs)[0]
    build_behaviour(behaviour, env, load_policy)  # a mistake is told before anything is started
    spec = frame_spec or task_of(env).frame_spec
    if not isinstance(behaviour, AgentNoiseConfig):
        load_policy = None  # workers need not import what it is defined in
    meta = _meta(cfg, env_id, behaviour, env_kwargs, spec, ActionSpec.from_space(env.action_space))
    make_folder(out)
    tasks = [
        _Task(path, group, env_id, behaviour, meta, env_kwargs or {}, load_policy, cfg)
        for path, group in _groups(out, seeds, cfg.group)
    ]
    done = _existing(out, tasks, meta)
    missing = [task for task in tasks if task.path not in done]
    if missing:
        envs.note_endless(env, cfg.max_steps)
    new_frames = sum(_run(missing, executor, workers))
    shards = [done.get(task.path) or Shard(task.path) for task in tasks]
    _write_manifest(out, shards, meta)
    entries = [entry for shard in shards for entry in shard.entries]
    return CollectSummary(
        frames=sum(entry.env_steps for entry in entries),
        episodes=len(entries),
        seconds=time.perf_counter() - begun,
        mean_return=float(np.mean([entry.total_reward for entry in entries])),
        new_frames=new_frames,
    )


def _check_seeds(seeds: Sequence[int]) -> None:
    if not seeds:
        raise UserError("there are no seeds to collect; give at least one")
    if len(set(seeds)) != len(seeds):
        raise UserError("a seed is given twice; every episode needs its own")
    wrong = [seed for seed in seeds if not 0 <= seed < TRAINING_SEED_LIMIT]
    if wrong:
        raise UserError(
            f"seed {wrong[0]} is none for collection, which uses 0 to {TRAINING_SEED_LIMIT - 1}; "
            "higher ones are kept for selection and tests"
        )


def _meta(
    cfg: CollectConfig,
    env_id: str,
    behaviour: BehaviourConfig,
    env_kwargs: Mapping[str, Any] | None,
    spec: FrameSpec,
    action_spec: ActionSpec,
) -> dict[str, Any]:
    """Return the facts that all shards of the collection share."""
    found = versions()
    try:
        kwargs = to_jsonable(env_kwargs or {})
    except TypeError as error:
        raise UserError(f"env_kwargs are kept with the episodes as JSON: {error}") from error
    meta: dict[str, Any] = to_jsonable(
        {
            "env_id": env_id,
            "env_kwargs": kwargs,
            "frame_spec": spec,
            "frame_shape": (spec.size, spec.size, 3),
            "action_spec": action_spec,
            "behaviour": describe(behaviour),
            "max_steps": cfg.max_steps,
            "patience": cfg.patience,
            "action_repeat": cfg.action_repeat,
            "versions": {name: found[name] for name in VERSIONS_KEPT},
        }
    )
    return meta


def _groups(out: Path, seeds: Sequence[int], size: int) -> list[tuple[Path, tuple[int, ...]]]:
    """Cut the seeds into groups and name each group's shard."""
    groups = [tuple(seeds[first : first + size]) for first in range(0, len(seeds), size)]
    return [(out / f"seeds-{g[0]:06d}-{g[-1]:06d}{SUFFIX}", g) for g in groups]


def _existing(out: Path, tasks: Sequence[_Task], meta: Mapping[str, Any]) -> dict[Path, Shard]:
    """Open the shards that are there, and refuse those that are not of this collection."""
    for leftover in out.glob(f".*{SUFFIX}"):  # a killed writer's; nobody will finish it
        leftover.unlink(missing_ok=True)
    wanted = {task.path: task for task in tasks}
    found = {}
    for path in shard_files(out):
        shard = Shard(path)
        for key, value in meta.items():
            if shard.meta.get(key) != value:
                raise UserError(
                    f"{path} was collected with {key} {shard.meta.get(key)}, not {value}; "
                    "choose an empty folder, or delete this one"
                )
        seeds = tuple(entry.seed for entry in shard.entries)
        if path not in wanted or seeds != wanted[path].seeds:
            raise UserError(
                f"{path} holds other groups of seeds than those to collect; "
                "choose an empty folder, or the same seeds and group size"
            )
        found[path] = shard
    return found


def _run(tasks: Sequence[_Task], executor: Executor | None, workers: int) -> list[int]:
    """Make the missing shards; return the steps taken for each."""
    if not tasks:
        return []
    if executor is None:
        with executors.make(None, min(workers, len(tasks))) as made:
            return _run(tasks, made, workers)
    steps = []
    episodes = sum(len(task.seeds) for task in tasks)
    with progress(episodes, "collecting", unit="episodes") as bar:
        begun = time.perf_counter()
        for index, frames in executor.map(_collect_group, tasks):
            steps.append(frames)
            rate = sum(steps) / (time.perf_counter() - begun)
            bar.advance(len(tasks[index].seeds), frames_per_second=rate)
    return steps


def _collect_group(task: _Task) -> int:
    """Drive one group and write its shard; return the environment steps taken."""
    pool = shared_envs(task.env_id, len(task.seeds), task.env_kwargs)
    behaviour = build_behaviour(task.behaviour, pool[0], task.load_policy)
    spec = FrameSpec(**task.meta["frame_spec"])
    recorder = Recorder(task.seeds, spec)
    # A policy may use torch, whose sums depend on its threads; without one, torch stays unloaded.
    with nullcontext() if task.load_policy is None else executors.one_thread():
        results = run_group(
            pool,
            behaviour,
            task.seeds,
            max_steps=task.cfg.max_steps,
            patience=task.cfg.patience,
            action_repeat=task.cfg.action_repeat,
            width=task.cfg.group,
            on_step=recorder,
        )
    write_shard(task.path, recorder.finish(results), task.meta)
    return sum(result.length for result in results)


def _write_manifest(out: Path, shards: Sequence[Shard], meta: Mapping[str, Any]) -> None:
    """List the shards of the finished collection, so that a missing one is noticed."""
    listed = {
        shard.path.name: {
            "header_sha256": shard.header_sha256,
            "episodes": len(shard.entries),
            "steps": sum(entry.length for entry in shard.entries),
            "bytes": shard.path.stat().st_size,
        }
        for shard in shards
    }
    write_json(out / MANIFEST, {"meta": meta, "shards": listed})
