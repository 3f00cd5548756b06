"""The stages that learn: V on frames, latents of them by V, and M on the latents."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from worldmodels.envs import from_file
from worldmodels.experience.episode import Episode
from worldmodels.experience.store import EpisodeStore
from worldmodels.memory.calibration import calibrate
from worldmodels.memory.rewards import RewardKind, RewardModel
from worldmodels.memory.train import MemoryTrainConfig, fit_reward_model, reward_kind
from worldmodels.memory.train import train_memory as fit_memory
from worldmodels.runs import derive_seed, progress
from worldmodels.stage_configs import MemoryStageConfig
from worldmodels.stages.context import StageContext
from worldmodels.stages.files import LatentsFile, MemoryFile, Source, VisionFile
from worldmodels.tasks import Symmetry, task_for
from worldmodels.vision.latents import Latents, encode_episodes
from worldmodels.vision.train import VisionTrainConfig
from worldmodels.vision.train import train_vision as fit_vision
from worldmodels.vision.vae import VAEConfig

HOLDOUT_EVERY = 20
"""One episode in so many is held out for the validation losses."""


def train_vision(
    cfg: VisionTrainConfig,
    shape: VAEConfig,
    store: EpisodeStore,
    ctx: StageContext,
    *,
    horizontal_flip: bool = False,
    init: VisionFile | None = None,
) -> VisionFile:
    """Train V on a store's episodes, one in twenty of which is held out.

    ``horizontal_flip`` flips half of the frames. With ``init`` V is fine-tuned, in the shape that
    it has. It is returned on the CPU, in evaluation mode.

    Raises:
        UserError: the environment has no known horizontal flip, the loss is not finite, or V
            explains no more than the mean frame.
    """
    kept, holdout = split(store)
    flip = flip_of(store) if horizontal_flip else None
    seed = ctx.seed_for("vision")

    def batches(start: int) -> Iterator[NDArray[np.uint8]]:
        frames = kept.frame_batches(cfg.batch_size, seed, start=start)
        return frames if flip is None else half_flipped(frames, flip, seed, start)

    validation, neighbours = sample_frames(holdout, 512)
    if flip is not None:
        for part in (validation, neighbours):
            part[1::2] = flip.frames(part[1::2])
    model = fit_vision(
        cfg,
        shape if init is None else init.model.cfg,
        batches,
        validation,
        neighbours,
        seed=seed,
        init=None if init is None else init.model.state_dict(),
        checkpoint=ctx.checkpoint("state.safetensors"),
        log=partial(ctx.log, "vision"),
        device=ctx.device,
    )
    return VisionFile(model.cpu(), Source.of(store), horizontal_flip)


def encode(
    vision: VisionFile,
    store: EpisodeStore,
    ctx: StageContext,
    *,
    horizontal_flip: bool | None = None,
) -> LatentsFile:
    """Encode every episode of a store with V.

    With ``horizontal_flip`` (default: if V was trained on flips) each episode is followed by its
    flip.
    """
    if horizontal_flip is None:
        horizontal_flip = vision.horizontal_flip
    flip, digest = flip_of(store) if horizontal_flip else None, vision.digest
    indices = progress(range(len(store)), "encoding", unit="episodes")
    episodes = (seen for index in indices for seen in _with_flip(store.read(index), flip))
    latents = encode_episodes(vision.model.to(ctx.device), episodes, store.action_spec)
    return LatentsFile(latents, vision.source, digest, horizontal_flip)


def flip_of(store: EpisodeStore) -> Symmetry:
    """The horizontal flip of a store's environment; `UserError` where none is known."""
    env_id = from_file(store.env_id, "a header of the episodes")
    return task_for(env_id).flip(store.env_id, store.frame_spec, store.action_spec)


def half_flipped(
    batches: Iterator[NDArray[np.uint8]], flip: Symmetry, seed: int, start: int
) -> Iterator[NDArray[np.uint8]]:
    """Flip each frame with a chance of one half, in batch number k always the same ones."""
    for number, batch in enumerate(batches, start):
        rows = np.random.default_rng((seed, number)).random(len(batch)) < 0.5
        yield np.where(rows[:, None, None, None], flip.frames(batch), batch)


def split(store: EpisodeStore) -> tuple[EpisodeStore, EpisodeStore]:
    """Training and held-out episodes; a store of one episode is both."""
    held = list(range(0, len(store), HOLDOUT_EVERY))
    kept = [index for index in range(len(store)) if index % HOLDOUT_EVERY]
    return store.subset(kept or held), store.subset(held)


def sample_frames(store: EpisodeStore, count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """At most ``count`` frames (N, 64, 64, 3), evenly spaced over a store, and one beside each.

    That is the frame after it, or before it at an episode's end.
    """
    every = max(1, store.num_frames // count)
    wanted = np.arange(0, store.num_frames, every)[:count]
    chosen = np.empty((2, len(wanted), *store.frame_shape), np.uint8)
    for record in store.episodes:
        at = wanted - record.first_frame
        rows = (at >= 0) & (at < record.num_frames)
        at = at[rows]
        near = np.where(at + 1 < record.num_frames, at + 1, at - 1)
        pairs = store.frames_at(record.index, np.concatenate([at, near]))
        chosen[:, rows] = pairs.reshape(2, len(at), *store.frame_shape)
    return chosen[0], chosen[1]


def _with_flip(episode: Episode, flip: Symmetry | None) -> list[Episode]:
    if flip is None:
        return [episode]
    obs, action = flip.frames(episode.obs), flip.actions(episode.action)
    return [episode, dataclasses.replace(episode, obs=obs, action=action)]


def originals(parts: Sequence[LatentsFile]) -> list[Latents]:
    """The latents without flipped episodes."""
    return [
        part.latents.select(np.arange(0, part.latents.num_episodes, 2))
        if part.horizontal_flip
        else part.latents
        for part in parts
    ]


def held_out(episodes: int, horizontal_flip: bool) -> NDArray[np.bool_]:
    """(E,) which encoded episodes are held out, each with its flip; never all of them."""
    copies = 2 if horizontal_flip else 1
    held: NDArray[np.bool_] = np.arange(episodes) // copies % HOLDOUT_EVERY == 0
    return ~held if held.all() else held


def train_memory(
    cfg: MemoryStageConfig,
    training: MemoryTrainConfig,
    parts: Sequence[LatentsFile],
    ctx: StageContext,
    *,
    init: MemoryFile | None = None,
    kind: RewardKind | None = None,
) -> MemoryFile:
    """Train every member of the ensemble on the latents of all iterations, the newest last.

    With ``init`` M is fine-tuned. For ``cfg.reward`` "auto", ``kind`` is the form of the reward in
    earlier iterations (default: that of ``init``, or what the rewards look like). M is returned on
    the CPU, in evaluation mode.
    """
    latents = Latents.concatenate([part.latents for part in parts])
    newest = parts[-1]
    held = held_out(latents.num_episodes, newest.horizontal_flip)
    repeats = np.ones(latents.num_episodes, np.int64)
    if len(parts) > 1:
        repeats[-newest.latents.num_episodes :] = cfg.newest_repeats
    reward = reward_model(cfg, latents, kind or (init.reward.kind if init else None))
    shape = cfg.network(latents.z_dim, latents.action.shape[1], reward.kind)
    holdout = latents.select(np.flatnonzero(held)) if held.any() else None
    models = [
        fit_memory(
            training,
            shape,
            reward,
            latents,
            seed=ctx.seed_for("memory", member),
            holdout=holdout,
            repeats=np.where(held, 0, repeats),
            init=None if init is None else init.models[member].state_dict(),
            checkpoint=ctx.checkpoint(f"memory-{member}.safetensors"),
            log=partial(ctx.log, "memory", member=member),
            device=ctx.device,
        ).cpu()
        for member in range(cfg.ensemble)
    ]
    if ctx.run is not None:
        seed = derive_seed(ctx.seed, "calibration")
        figures = calibrate(models[0], reward, holdout or latents, seed=seed)
        ctx.log("memory_calibration", **figures)
    return MemoryFile(models, reward, newest.source, newest.vision, training.posterior_noise)


def reward_model(
    cfg: MemoryStageConfig, latents: Latents, kind: RewardKind | None = None
) -> RewardModel:
    """The reward head's target, fitted to latents; for "auto" ``kind``, or what they look like."""
    if cfg.reward != "auto":
        kind = cfg.reward
    return fit_reward_model(latents, kind or reward_kind(latents))
