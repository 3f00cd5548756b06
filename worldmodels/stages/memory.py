"""The stage that trains M on latents."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from worldmodels.memory import train
from worldmodels.memory.calibration import calibrate
from worldmodels.memory.rewards import RewardKind, RewardModel
from worldmodels.memory.train import MemoryTrainConfig, fit_reward_model
from worldmodels.presets import MemoryStageConfig
from worldmodels.runs import derive_seed
from worldmodels.stages.context import StageContext
from worldmodels.stages.files import LatentsFile, MemoryFile
from worldmodels.stages.vision import held_out
from worldmodels.vision.latents import Latents


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

    With ``init`` M is fine-tuned, for ``training.finetune_steps``. For ``cfg.reward`` "auto",
    ``kind`` is the form of the reward that earlier iterations found; None takes that of ``init``,
    or reads it off the rewards. M is returned on the CPU, in evaluation mode.
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
        train.train_memory(
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
    """What the reward head's target is, by the rewards of some latents.

    Its form is that of ``cfg``; for "auto" it is ``kind``, or what the rewards look like.
    """
    if cfg.reward != "auto":
        kind = cfg.reward
    return fit_reward_model(latents, kind or train.reward_kind(latents))
