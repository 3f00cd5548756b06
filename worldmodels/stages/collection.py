"""The stage that collects: random actions first, then the newest agent with noise."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worldmodels.agent import Agent
from worldmodels.artifacts import load_checkpoint, save_checkpoint
from worldmodels.envs.frames import FrameSpec
from worldmodels.experience.collect import CollectConfig
from worldmodels.experience.collect import collect as collect_episodes
from worldmodels.experience.exploration import AgentNoiseConfig, AR1Config, BehaviourConfig
from worldmodels.experience.store import EpisodeStore
from worldmodels.metrics import Collection
from worldmodels.presets import ExperienceConfig
from worldmodels.protocols import TRAINING_SEED_LIMIT, UserError
from worldmodels.runs import derive_seed
from worldmodels.stages.context import StageContext
from worldmodels.stages.files import episode_folders

SNAPSHOT = "snapshot.safetensors"
"""File with the parameters of another C than the agent's own."""


@dataclass(frozen=True)
class Drives:
    """What is driven in one iteration."""

    behaviours: Sequence[BehaviourConfig]
    """what drives, an equal share of the episodes each"""
    episodes: int
    """number of episodes"""
    steps: int | None
    """longest episode; None leaves it to the environment"""
    patience: int | None
    """truncate episodes after so many steps without a reward above 0; None never does"""
    used: int
    """training seeds that earlier iterations have used"""


@dataclass(frozen=True)
class Collected:
    """What the folder of an iteration holds."""

    frames: int
    """steps of the environment"""
    episodes: int
    mean_return: float
    """mean of the episodes' returns"""
    fingerprint: str
    """of the episodes"""


def exploration(cfg: ExperienceConfig) -> Drives:
    """The first iteration: AR(1) noise of every scale around every centre."""
    centres: Sequence[tuple[float, ...] | None] = cfg.explore_bias or [None]
    behaviours = [
        AR1Config(rho=cfg.explore_rho, scale=scale, bias=bias)
        for scale in cfg.explore_scales
        for bias in centres
    ]
    return Drives(behaviours, cfg.explore_episodes, cfg.explore_steps, cfg.patience, used=0)


def by_agents(cfg: ExperienceConfig, folders: Sequence[Path], iteration: int) -> Drives:
    """A later iteration: each of these agents with each of the noises (see `load_driver`)."""
    behaviours = [
        AgentNoiseConfig(
            folder,
            scale=scale,
            bias_std=cfg.agent_bias_std if scale else 0.0,
            burst_probability=cfg.burst_probability,
            burst_steps=cfg.burst_steps,
        )
        for folder in folders
        for scale in cfg.agent_noise
    ]
    used = cfg.explore_episodes + (iteration - 1) * cfg.agent_episodes
    return Drives(behaviours, cfg.agent_episodes, cfg.agent_steps, cfg.agent_patience, used)


def training_seeds(seed: int, used: int, episodes: int) -> NDArray[np.int64]:
    """(episodes,) seeds of the environment, after ``used`` others of one shuffle of all of them.

    Raises:
        UserError: there are not so many.
    """
    if used < 0 or used + episodes > TRAINING_SEED_LIMIT:
        raise UserError(
            f"{episodes} episodes after {used} others need more seeds than collection has: "
            f"{TRAINING_SEED_LIMIT}"
        )
    order = np.random.default_rng(derive_seed(seed, "training seeds")).permutation(
        TRAINING_SEED_LIMIT
    )
    return np.asarray(order[used : used + episodes], np.int64)


def collect(
    drives: Drives,
    env_id: str,
    out: Path,
    ctx: StageContext,
    *,
    group: int,
    action_repeat: int,
    frame_spec: FrameSpec,
) -> Collected:
    """Drive and record, ``group`` episodes side by side; what the folder holds already is kept.

    Each behaviour gets a folder of its own in ``out``.

    Raises:
        UserError: as `worldmodels.experience.collect.collect`.
    """
    seeds = training_seeds(ctx.seed, drives.used, drives.episodes)
    shares = np.array_split(seeds, len(drives.behaviours))
    summaries = [
        collect_episodes(
            CollectConfig(group, drives.steps, drives.patience, action_repeat),
            env_id,
            behaviour,
            share.tolist(),
            out / f"{number}",
            executor=ctx.executor,
            load_policy=load_driver,
            frame_spec=frame_spec,
        )
        for number, (behaviour, share) in enumerate(zip(drives.behaviours, shares, strict=True))
        if len(share)
    ]
    store = EpisodeStore(episode_folders([out]))
    episodes = sum(summary.episodes for summary in summaries)
    returns = sum(summary.mean_return * summary.episodes for summary in summaries)
    frames = sum(summary.frames for summary in summaries)
    found = Collected(frames, episodes, returns / episodes, store.fingerprint)
    seconds = sum(summary.seconds for summary in summaries)
    ctx.log(
        "collection",
        **Collection(
            frames=frames,
            episodes=episodes,
            mean_return=found.mean_return,
            max_return=max(record.entry.total_reward for record in store.episodes),
            seconds=seconds,
            frames_per_second=sum(summary.new_frames for summary in summaries) / seconds,
            behaviour=[type(behaviour).__name__ for behaviour in drives.behaviours],
        ),
    )
    ctx.count_frames("collection", frames)
    return found


def snapshot_folders(
    agent: Path, snapshots: Mapping[int, NDArray[np.float32]], out: Path
) -> list[Path]:
    """Folders in ``out`` for `load_driver`, one for each snapshot (N,) of an agent's C."""
    folders = []
    for generation in sorted(snapshots):
        folder = out / f"{generation:04d}"
        place = os.path.relpath(agent, folder)
        content = {"agent": place, "parameters": snapshots[generation]}
        save_checkpoint(folder / SNAPSHOT, content, "snapshot")
        folders.append(folder)
    return folders


def load_driver(folder: Path) -> Agent:
    """Open an agent for collection: V in bfloat16, which is faster and exact enough for data.

    A folder of `snapshot_folders` has another C for the agent that it names.
    """
    if (folder / SNAPSHOT).exists():
        snapshot = load_checkpoint(folder / SNAPSHOT)
        agent = Agent.from_pretrained(folder / snapshot["agent"])
        agent = agent.with_parameters(snapshot["parameters"])
    else:
        agent = Agent.from_pretrained(folder)
    agent.bfloat16 = True
    return agent
