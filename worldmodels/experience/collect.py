"""Collecting episodes: workers take groups of seeds, and each becomes one shard."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from worldmodels import envs, executors
from worldmodels.config import AtLeast, Between, Config, Count, Limit, Repeat
from worldmodels.envs.frames import FrameSpec, to_vision
from worldmodels.envs.spaces import ActionSpec
from worldmodels.executors import Executor
from worldmodels.experience.episode import EpisodeEncoder
from worldmodels.experience.exploration import (
    AgentNoiseConfig,
    BehaviourConfig,
    PolicyLoader,
    build_behaviour,
    describe,
)
from worldmodels.experience.rollout import GROUP_WIDTH, run_group, shared_envs
from worldmodels.experience.shards import SUFFIX, Shard, pack_shard, write_shard
from worldmodels.experience.store import MANIFEST, shard_files
from worldmodels.protocols import TRAINING_SEED_LIMIT, Policy, UserError
from worldmodels.runs import make_folder, progress, to_jsonable, versions, write_json
from worldmodels.tasks import task_of

VERSIONS_KEPT = ("worldmodels", "gymnasium", "box2d", "pygame", "numpy", "numba")
"""Packages that frames depend on; a shard records their versions, but not the machine."""

TrainingEpisodes: TypeAlias = Annotated[int, AtLeast(1), Limit(TRAINING_SEED_LIMIT)]
"""Episodes of training seeds."""
GroupSize: TypeAlias = Annotated[int, Between(1, GROUP_WIDTH)]
"""Episodes that run in step."""


@dataclass(frozen=True)
class CollectConfig(Config):
    """How episodes are grouped and how long they may be."""

    group: GroupSize = 8
    """episodes that one worker runs in step and writes into one shard"""
    max_steps: Count | None = None
    """truncate episodes after that many steps (default: the environment's limit)"""
    patience: Count | None = None
    """truncate episodes after that many steps without a reward above 0 (default: never)"""
    action_repeat: Repeat = 1
    """steps of the environment per action; stored are the frames at which an action is chosen, and
    the sums of the rewards in between"""


@dataclass(frozen=True)
class _Shared:
    """What all groups of a collection have in common."""

    env_id: str
    behaviour: BehaviourConfig
    cfg: CollectConfig
    spec: FrameSpec
    env_kwargs: Mapping[str, Any]
    load_policy: PolicyLoader | None

    def meta(self, action_spec: ActionSpec) -> dict[str, Any]:
        """The facts that every shard keeps."""
        try:
            kwargs = to_jsonable(self.env_kwargs)
        except TypeError as error:
            raise UserError(f"env_kwargs are kept with the episodes as JSON: {error}") from error
        found = versions()
        meta: dict[str, Any] = {
            "env_id": self.env_id,
            "env_kwargs": kwargs,
            "frame_spec": self.spec,
            "frame_shape": (self.spec.size, self.spec.size, 3),
            "action_spec": action_spec,
            "behaviour": describe(self.behaviour),
            "max_steps": self.cfg.max_steps,
            "patience": self.cfg.patience,
            "action_repeat": self.cfg.action_repeat,
            "versions": {name: found[name] for name in VERSIONS_KEPT},
        }
        return dict(to_jsonable(meta))


class _Group(NamedTuple):
    """The seeds of a shard."""

    seeds: tuple[int, ...]


class _Opened:
    """Stands for `load_policy` where the agent's folder is not: the policy goes with the work."""

    def __init__(self, policy: Policy) -> None:
        self._raw = pickle.dumps(policy)

    def __call__(self, folder: Path) -> Policy:
        policy: Policy = pickle.loads(self._raw)  # a fresh one, as from the folder
        return policy


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
) -> int:
    """Run one episode per seed, store those that ``out`` lacks, and return the steps this took.

    The files depend on the arguments only: any number of workers, and any number of interruptions,
    end with the same bytes.

    Args:
        cfg: grouping and length.
        env_id: any environment that `envs.make` accepts.
        behaviour: what acts.
        seeds: distinct training seeds, below `TRAINING_SEED_LIMIT`.
        out: folder for this collection only.
        workers: processes to use if no executor is given.
        executor: where to work, such as the pipeline's one pool of processes.
        load_policy: opens an agent's folder, for `AgentNoiseConfig`; importable from a module.
        env_kwargs: passed to `envs.make`, and kept with the episodes as JSON.
        frame_spec: how frames are cropped and resized (default: as the task says).

    Raises:
        UserError: unusable seeds, a folder that holds another collection, an environment or an
            agent that cannot be used, a full disk.
    """
    seeds = [int(seed) for seed in seeds]
    _check_seeds(seeds)
    env = shared_envs(env_id, 1, env_kwargs)[0]
    build_behaviour(behaviour, env, load_policy)  # errors are raised before anything starts
    shared = _Shared(
        env_id,
        behaviour,
        cfg,
        frame_spec or task_of(env).frame_spec,
        env_kwargs or {},
        # other behaviours do not need it, so workers do not import its module
        load_policy if isinstance(behaviour, AgentNoiseConfig) else None,
    )
    meta = shared.meta(ActionSpec.from_space(env.action_space))
    make_folder(out)
    groups = [tuple(seeds[i : i + cfg.group]) for i in range(0, len(seeds), cfg.group)]
    tasks = {out / f"seeds-{g[0]:06d}-{g[-1]:06d}{SUFFIX}": g for g in groups}
    done = _existing(out, tasks, meta)
    missing = [path for path in tasks if path not in done]
    if missing:
        envs.note_endless(env, cfg.max_steps)
    if executor is not None and executor.remote and shared.load_policy is not None:
        assert isinstance(behaviour, AgentNoiseConfig)
        shared = replace(shared, load_policy=_Opened(shared.load_policy(Path(behaviour.agent))))
    work = partial(_collect_group, shared, meta)
    new_frames = _run(work, {path: tasks[path] for path in missing}, executor, workers)
    shards = [done.get(path) or Shard(path) for path in tasks]
    listed = {shard.path.name: _listed(shard) for shard in shards}
    write_json(out / MANIFEST, {"meta": meta, "shards": listed})
    return new_frames


def _check_seeds(seeds: Sequence[int]) -> None:
    if not seeds:
        raise UserError("there are no seeds to collect; give at least one")
    if len(set(seeds)) != len(seeds):
        raise UserError("a seed is given twice; every episode needs its own")
    wrong = [seed for seed in seeds if not 0 <= seed < TRAINING_SEED_LIMIT]
    if wrong:
        raise UserError(
            f"seed {wrong[0]} is reserved: collection uses 0 to {TRAINING_SEED_LIMIT - 1}, and "
            "selection and tests use higher ones"
        )


def _listed(shard: Shard) -> dict[str, Any]:
    """A shard's entry in the manifest, by which a missing one is found."""
    return {
        "header_sha256": shard.header_sha256,
        "episodes": len(shard.entries),
        "steps": sum(entry.length for entry in shard.entries),
        "bytes": shard.path.stat().st_size,
    }


def _existing(
    out: Path, wanted: Mapping[Path, tuple[int, ...]], meta: Mapping[str, Any]
) -> dict[Path, Shard]:
    """Open the shards that are there; refuse those of another collection."""
    for leftover in out.glob(f".*{SUFFIX}"):  # left by a killed writer
        leftover.unlink(missing_ok=True)
    found = {}
    for path in shard_files(out):
        shard = Shard(path)
        for key, value in meta.items():
            if shard.meta.get(key) != value:
                raise UserError(
                    f"{path} was collected with {key} {shard.meta.get(key)}, not {value}; "
                    "choose an empty folder, or delete this one"
                )
        if tuple(entry.seed for entry in shard.entries) != wanted.get(path):
            raise UserError(
                f"{path} holds other groups of seeds than those to collect; "
                "choose an empty folder, or the same seeds and group size"
            )
        found[path] = shard
    return found


def _run(
    work: Callable[[_Group], tuple[bytes, int]],
    missing: Mapping[Path, tuple[int, ...]],
    executor: Executor | None,
    workers: int,
) -> int:
    """Make and write the missing shards; return the environment steps taken."""
    if not missing:
        return 0
    paths, groups = [*missing], [_Group(seeds) for seeds in missing.values()]
    taken, episodes = 0, sum(len(group.seeds) for group in groups)
    with (
        executors.given_or_new(executor, workers, len(groups)) as pool,
        progress(range(episodes), "collecting", unit="episodes") as bar,
    ):
        began = time.perf_counter()
        for index, (shard, frames) in pool.map(work, groups):
            write_shard(paths[index], shard)
            taken += frames
            rate = taken / (time.perf_counter() - began)
            bar.advance(len(groups[index].seeds), frames_per_second=rate)
    return taken


def _collect_group(shared: _Shared, meta: Mapping[str, Any], group: _Group) -> tuple[bytes, int]:
    """Run one group, frames compressed as they come; return its shard and the steps taken."""
    cfg, seeds = shared.cfg, group.seeds
    pool = shared_envs(shared.env_id, len(seeds), shared.env_kwargs)
    behaviour = build_behaviour(shared.behaviour, pool[0], shared.load_policy)
    encoders = [EpisodeEncoder(seed) for seed in seeds]

    def record(obs: NDArray[np.uint8], seen: NDArray[np.bool_]) -> None:
        rows = np.flatnonzero(seen)
        for row, frame in zip(rows.tolist(), to_vision(obs[rows], shared.spec), strict=True):
            encoders[row].add(frame)

    with executors.one_thread():  # a policy's sums depend on torch's threads
        results = run_group(
            pool,
            behaviour,
            seeds,
            max_steps=cfg.max_steps,
            patience=cfg.patience,
            action_repeat=cfg.action_repeat,
            width=cfg.group,
            on_frames=record,
        )
    episodes = [encoder.finish(result) for encoder, result in zip(encoders, results, strict=True)]
    return pack_shard(episodes, meta), sum(result.length for result in results)
