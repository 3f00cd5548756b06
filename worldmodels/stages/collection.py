"""The stage that collects: random actions first, then the newest agent with noise."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldmodels.agent import Agent
from worldmodels.artifacts import load_checkpoint, save_checkpoint
from worldmodels.envs.frames import FrameSpec
from worldmodels.experience.collect import CollectConfig, Part, collect_parts
from worldmodels.experience.exploration import AgentNoiseConfig, AR1Config, BehaviourConfig
from worldmodels.experience.store import EpisodeStore
from worldmodels.metrics import Collection
from worldmodels.protocols import TRAINING_SEED_LIMIT, UserError
from worldmodels.runs import derive_seed
from worldmodels.stage_configs import ExperienceConfig
from worldmodels.stages.context import StageContext

SNAPSHOT = "snapshot.safetensors"
"""File with the parameters of another C than the agent's own."""


@dataclass(frozen=True)
class CollectionPlan:
    """What one iteration collects."""

    behaviours: Sequence[BehaviourConfig]
    """what acts, each in an equal number of the episodes"""
    episodes: int
    """number of episodes"""
    steps: int | None
    """longest episode (None: the environment's limit)"""
    patience: int | None
    """truncate episodes after so many steps without a reward above 0 (None: never)"""
    used: int
    """training seeds that earlier iterations have used"""
    frames: int | None = None
    """steps of the environment up to which more episodes follow (None: no more)"""
    most: int = 0
    """episodes in all at most, where more follow"""


def exploration(cfg: ExperienceConfig) -> CollectionPlan:
    """The first iteration: AR(1) noise of every scale around every centre."""
    centres: Sequence[tuple[float, ...] | None] = cfg.explore_bias or [None]
    behaviours = [
        AR1Config(rho=cfg.explore_rho, scale=scale, bias=bias)
        for scale in cfg.explore_scales
        for bias in centres
    ]
    return CollectionPlan(behaviours, cfg.explore_episodes, cfg.explore_steps, cfg.patience, used=0)


def by_agents(cfg: ExperienceConfig, folders: Sequence[Path], iteration: int) -> CollectionPlan:
    """A later iteration: each of these agents with each of the noises (see `load_policy`)."""
    begun: dict[str, Any] = {}
    if cfg.agent_random_starts:
        begun = {
            "random_start_probability": cfg.agent_random_starts,
            "random_start_steps": cfg.burst_steps,
            "explore": AR1Config(rho=cfg.explore_rho),
        }
    behaviours = [
        AgentNoiseConfig(
            folder,
            scale=scale,
            bias_std=cfg.agent_bias_std if scale else 0.0,
            burst_probability=cfg.burst_probability,
            burst_steps=cfg.burst_steps,
            **begun,
        )
        for folder in folders
        for scale in cfg.agent_noise
    ]
    most = cfg.most_agent_episodes
    return CollectionPlan(
        behaviours,
        cfg.agent_episodes,
        cfg.agent_steps,
        cfg.agent_patience,
        used=cfg.explore_episodes + (iteration - 1) * most,
        frames=cfg.agent_frames,
        most=most,
    )


def training_seeds(seed: int, used: int, episodes: int) -> NDArray[np.int64]:
    """(episodes,) training seeds: those after the first ``used`` of a shuffle of all of them."""
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
    plan: CollectionPlan,
    env_id: str,
    out: Path,
    ctx: StageContext,
    *,
    group: int,
    action_repeat: int,
    frame_spec: FrameSpec,
) -> Collection:
    """Record a plan's episodes, ``group`` of them side by side; return the figures of all of them.

    Workers take the groups of all behaviours in turn. Each behaviour gets a folder of its own in
    ``out``, and another for the episodes that follow where the first ones have too few frames;
    episodes that are there already are kept. Errors are those of
    `worldmodels.experience.collect.collect`.
    """
    began = time.perf_counter()

    def record(first: int, episodes: int, name: str) -> tuple[int, list[Path]]:
        """Collect some of the plan's episodes; the new frames, and the folders."""
        seeds = training_seeds(ctx.seed, plan.used + first, episodes)
        shares = np.array_split(seeds, len(plan.behaviours))
        parts = [
            Part(behaviour, own.tolist(), out / name.format(number))
            for number, (behaviour, own) in enumerate(zip(plan.behaviours, shares, strict=True))
            if len(own)
        ]
        frames = collect_parts(
            CollectConfig(group, plan.steps, plan.patience, action_repeat),
            env_id,
            parts,
            executor=ctx.executor,
            load_policy=load_policy,
            frame_spec=frame_spec,
        )
        return frames, [part.out for part in parts]

    new_frames, folders = record(0, plan.episodes, "{}")
    if more := _missing(plan, EpisodeStore(folders)):
        new_frames += record(plan.episodes, more, "{}-more")[0]
    seconds = time.perf_counter() - began
    entries = [record.entry for record in EpisodeStore(out).episodes]
    returns, frames = [entry.total_reward for entry in entries], sum(e.env_steps for e in entries)
    found = Collection(
        frames=frames,
        episodes=len(entries),
        mean_return=float(np.mean(returns)),
        max_return=max(returns),
        seconds=seconds,
        frames_per_second=new_frames / seconds,
        behaviour=[type(behaviour).__name__ for behaviour in plan.behaviours],
    )
    ctx.log("collection", **found)
    ctx.count_frames("collection", frames)
    return found


def _missing(plan: CollectionPlan, first: EpisodeStore) -> int:
    """How many more episodes, as long as the first ones, have the plan's frames."""
    if plan.frames is None:
        return 0
    frames = sum(record.entry.env_steps for record in first.episodes)
    wanted = math.ceil((plan.frames - frames) * plan.episodes / frames)
    return max(0, min(wanted, plan.most - plan.episodes))


def snapshot_folders(
    agent: Path, snapshots: Mapping[int, NDArray[np.float32]], out: Path
) -> list[Path]:
    """Folders in ``out`` for `load_policy`, one for each snapshot (N,) of an agent's C."""
    folders = []
    for generation in sorted(snapshots):
        folder = out / f"{generation:04d}"
        place = os.path.relpath(agent, folder)
        content = {"agent": place, "parameters": snapshots[generation]}
        save_checkpoint(folder / SNAPSHOT, content, "snapshot")
        folders.append(folder)
    return folders


def load_policy(folder: Path) -> Agent:
    """Open an agent for collection, with V in bfloat16: faster, and exact enough for data.

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
