"""The stage that trains V on frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from worldmodels.envs import from_file
from worldmodels.experience.store import EpisodeStore
from worldmodels.stages.context import StageContext
from worldmodels.tasks import Symmetry, task_for
from worldmodels.vision import train
from worldmodels.vision.train import VisionTrainConfig
from worldmodels.vision.vae import ConvVAE, VAEConfig

HOLDOUT_EVERY = 20
"""One episode in so many is kept from training and used for the validation losses."""


def train_vision(
    cfg: VisionTrainConfig,
    shape: VAEConfig,
    store: EpisodeStore,
    ctx: StageContext,
    *,
    mirror: bool = False,
    init: Mapping[str, Tensor] | None = None,
) -> ConvVAE:
    """Train V and return it on the CPU, in evaluation mode.

    Args:
        cfg: the training.
        shape: of V.
        store: episodes of all iterations so far; one in twenty is held out.
        ctx: seed, device, checkpoints and metrics.
        mirror: flip half of the frames horizontally.
        init: weights to fine-tune (for ``cfg.finetune_steps``); None trains from scratch.

    Raises:
        UserError: the environment has no known horizontal flip, or the loss is not finite.
    """
    kept, holdout = split(store)
    flip = mirror_of(store) if mirror else None
    seed = ctx.seed_for("vision")

    def batches(start: int) -> Iterator[NDArray[np.uint8]]:
        frames = kept.frame_batches(cfg.batch_size, seed, start=start)
        return frames if flip is None else half_mirrored(frames, flip, seed, start)

    validation = sample_frames(holdout, 512)
    if flip is not None:
        validation[1::2] = flip.frames(validation[1::2])
    return train.train_vision(
        cfg,
        shape,
        batches,
        validation,
        seed=seed,
        init=None if init is None else dict(init),
        checkpoint=ctx.checkpoint("state.safetensors"),
        log=partial(ctx.log, "vision"),
        device=ctx.device,
    ).cpu()


def mirror_of(store: EpisodeStore) -> Symmetry:
    """The horizontal flip of a store's environment.

    Raises:
        UserError: it has none that is known, or the episodes name a module that is not imported.
    """
    env_id = from_file(store.env_id, "a header of the episodes")
    return task_for(env_id).flip(store.env_id, store.frame_spec, store.action_spec)


def half_mirrored(
    batches: Iterator[NDArray[np.uint8]], mirror: Symmetry, seed: int, start: int
) -> Iterator[NDArray[np.uint8]]:
    """Flip every other frame by chance; the same ones whenever batch number k comes."""
    for number, batch in enumerate(batches, start):
        rows = np.random.default_rng((seed, number)).random(len(batch)) < 0.5
        yield np.where(rows[:, None, None, None], mirror.frames(batch), batch)


def split(store: EpisodeStore) -> tuple[EpisodeStore, EpisodeStore]:
    """Training and held-out episodes; a store of one episode is both."""
    held = list(range(0, len(store), HOLDOUT_EVERY))
    kept = [index for index in range(len(store)) if index % HOLDOUT_EVERY]
    return store.subset(kept or held), store.subset(held)


def sample_frames(store: EpisodeStore, count: int) -> NDArray[np.uint8]:
    """At most ``count`` frames (N, 64, 64, 3), evenly spaced over a store."""
    every = max(1, store.num_frames // count)
    frames = [store.read(index).obs for index in range(len(store))]
    return np.concatenate(frames)[::every][:count]
