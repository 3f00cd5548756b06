"""Collecting episodes: workers take groups of seeds, and each becomes one shard."""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

import gymnasium as gym
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

WRITERS = 4
"""Shards that are written at once: a disk syncs several files in little more time than one."""

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


class Part(NamedTuple):
    """What one behaviour records, and where."""

    behaviour: BehaviourConfig
    """what acts"""
    seeds: Sequence[int]
    """distinct training seeds, below `TRAINING_SEED_LIMIT`"""
    out: Path
    """folder for these episodes only"""


@dataclass(frozen=True)
class _Shared:
    """What all groups of a part have in common."""

    env_id: str
    behaviour: BehaviourConfig
    cfg: CollectConfig
    spec: FrameSpec
    env_kwargs: Mapping[str, Any]
    load_policy: PolicyLoader | None
    action_spec: ActionSpec

    @cached_property
    def meta(self) -> dict[str, Any]:
        """The facts that every shard keeps, found where the call is made and sent along."""
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
            "action_spec": self.action_spec,
            "behaviour": describe(self.behaviour),
            "max_steps": self.cfg.max_steps,
            "patience": self.cfg.patience,
            "action_repeat": self.cfg.action_repeat,
            "versions": {name: found[name] for name in VERSIONS_KEPT},
        }
        return dict(to_jsonable(meta))


class _Group(NamedTuple):
    """A shard's seeds, and the position of its part."""

    seeds: tuple[int, ...]
    part: int


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
    """`collect_parts` with one part."""
    return collect_parts(
        cfg,
        env_id,
        [Part(behaviour, seeds, out)],
        workers,
        executor=executor,
        load_policy=load_policy,
        env_kwargs=env_kwargs,
        frame_spec=frame_spec,
    )


def collect_parts(
    cfg: CollectConfig,
    env_id: str,
    parts: Sequence[Part],
    workers: int = 1,
    *,
    executor: Executor | None = None,
    load_policy: PolicyLoader | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    frame_spec: FrameSpec | None = None,
) -> int:
    """Run one episode per seed, store those that the folders lack, and return the steps this took.

    The files depend on the arguments only: any number of workers, and any number of interruptions,
    end with the same bytes. Workers take the groups of all parts in turn.

    Args:
        cfg: grouping and length.
        env_id: any environment that `envs.make` accepts.
        parts: what acts, the seeds, and a folder for each.
        workers: processes to use if no executor is given.
        executor: where to work, such as the pipeline's one pool of processes.
        load_policy: opens an agent's folder, for `AgentNoiseConfig`; importable from a module.
        env_kwargs: passed to `envs.make`, and kept with the episodes as JSON.
        frame_spec: how frames are cropped and resized (default: as the task says).

    Raises:
        UserError: unusable seeds, a folder that holds another collection, an environment or an
            agent that cannot be used, a full disk.
    """
    parts = [part._replace(seeds=[int(seed) for seed in part.seeds]) for part in parts]
    for part in parts:
        _check_seeds(part.seeds)
    env = shared_envs(env_id, 1, env_kwargs)[0]
    spec = frame_spec or task_of(env).frame_spec
    loaders = _loaders(parts, env, load_policy, executor is not None and executor.remote)
    actions, kwargs = ActionSpec.from_space(env.action_space), env_kwargs or {}
    shared = [
        _Shared(env_id, part.behaviour, cfg, spec, kwargs, loader, actions)
        for part, loader in zip(parts, loaders, strict=True)
    ]
    tasks, done = dict[Path, _Group](), dict[Path, Shard]()
    for number, part in enumerate(parts):
        make_folder(part.out)
        wanted = {path: _Group(own, number) for path, own in _shards(part, cfg.group)}
        done |= _existing(part.out, wanted, shared[number].meta)
        tasks |= wanted
    missing = {path: group for path, group in tasks.items() if path not in done}
    if missing:
        envs.note_endless(env, cfg.max_steps)
    new_frames = _run(partial(_collect_group, shared), missing, executor, workers)
    for part, common in zip(parts, shared, strict=True):
        shards = [done.get(path) or Shard(path) for path, _ in _shards(part, cfg.group)]
        listed = {shard.path.name: _listed(shard) for shard in shards}
        write_json(part.out / MANIFEST, {"meta": common.meta, "shards": listed})
    return new_frames


def _loaders(
    parts: Sequence[Part], env: gym.Env[Any, Any], load_policy: PolicyLoader | None, remote: bool
) -> list[PolicyLoader | None]:
    """How workers open each part's agent; raises what is wrong with a part before anything runs.

    Other behaviours get None, so that workers do not import the loader's module.
    """
    load = None if load_policy is None else cache(load_policy)
    for part in parts:
        build_behaviour(part.behaviour, env, load)

    @cache
    def opened(folder: Path) -> PolicyLoader:  # each agent travels once
        assert load is not None
        return _Opened(load(folder))

    def loader(behaviour: BehaviourConfig) -> PolicyLoader | None:
        if not isinstance(behaviour, AgentNoiseConfig):
            return None
        return opened(Path(behaviour.agent)) if remote else load_policy

    return [loader(part.behaviour) for part in parts]


def _shards(part: Part, group: int) -> list[tuple[Path, tuple[int, ...]]]:
    """The paths of a part's shards, and their seeds."""
    groups = [tuple(part.seeds[i : i + group]) for i in range(0, len(part.seeds), group)]
    return [(part.out / f"seeds-{own[0]:06d}-{own[-1]:06d}{SUFFIX}", own) for own in groups]


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
    out: Path, wanted: Mapping[Path, _Group], meta: Mapping[str, Any]
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
        seeds = tuple(entry.seed for entry in shard.entries)
        if path not in wanted or seeds != wanted[path].seeds:
            raise UserError(
                f"{path} holds other groups of seeds than those to collect; "
                "choose an empty folder, or the same seeds and group size"
            )
        found[path] = shard
    return found


def _run(
    work: Callable[[_Group], tuple[bytes, int]],
    missing: Mapping[Path, _Group],
    executor: Executor | None,
    workers: int,
) -> int:
    """Make and write the missing shards; return the environment steps taken."""
    if not missing:
        return 0
    paths, groups = [*missing], [*missing.values()]
    taken, episodes = 0, sum(len(group.seeds) for group in groups)
    writes = deque[Future[Shard]]()
    with (
        executors.given_or_new(executor, workers, len(groups)) as pool,
        progress(range(episodes), "collecting", unit="episodes") as bar,
        ThreadPoolExecutor(WRITERS) as writers,
    ):
        began = time.perf_counter()
        for index, (shard, frames) in pool.map(work, groups):
            writes.append(writers.submit(write_shard, paths[index], shard))
            while writes and (writes[0].done() or len(writes) > WRITERS):
                writes.popleft().result()
            taken += frames
            rate = taken / (time.perf_counter() - began)
            bar.advance(len(groups[index].seeds), frames_per_second=rate)
        for write in writes:
            write.result()
    return taken


def _collect_group(parts: Sequence[_Shared], group: _Group) -> tuple[bytes, int]:
    """Run one group, frames compressed as they come; return its shard and the steps taken."""
    shared, seeds = parts[group.part], group.seeds
    cfg = shared.cfg
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
    return pack_shard(episodes, shared.meta), sum(result.length for result in results)
