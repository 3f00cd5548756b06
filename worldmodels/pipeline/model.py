"""The stages that learn the world: collect, V, latents, M.

Each function takes the run's context and a round, works in the round's folder, and returns what
later stages and the report want to know. The pipeline decides whether it is called.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save

from worldmodels.agent import Agent
from worldmodels.config import from_json
from worldmodels.experience.collect import CollectConfig
from worldmodels.experience.collect import collect as collect_episodes
from worldmodels.experience.episode import Episode
from worldmodels.experience.exploration import AgentNoiseConfig, AR1Config, BehaviourConfig
from worldmodels.experience.store import EpisodeStore
from worldmodels.memory.calibration import calibrate
from worldmodels.memory.mdn_rnn import MDNRNN, MDNRNNConfig, RewardModel
from worldmodels.memory.train import fit_reward_model, reward_kind
from worldmodels.memory.train import train_memory as train_one_memory
from worldmodels.pipeline.context import Context, Iteration
from worldmodels.presets import ExperienceConfig, RunConfig
from worldmodels.protocols import TRAINING_SEED_LIMIT
from worldmodels.runs import (
    atomic_path,
    atomic_write,
    load_checkpoint,
    read_json,
    save_checkpoint,
    write_json,
)
from worldmodels.tasks import Symmetry
from worldmodels.vision.latents import Latents, encode_episodes
from worldmodels.vision.train import train_vision as train_one_vision
from worldmodels.vision.vae import ConvVAE

HOLDOUT_EVERY = 20
"""One episode in so many is kept from training and used for the validation losses."""


# --- collect


def collect(ctx: Context, this: Iteration, previous: Iteration | None, key: str) -> dict[str, Any]:
    """Collect by random driving, or by the previous round's driver with noise."""
    cfg = ctx.cfg.experience
    this.keys["collect"] = key
    out = this.experience(ctx)
    behaviours = _explorers(cfg)
    episodes, steps, patience = cfg.explore_episodes, cfg.explore_steps, cfg.patience
    if previous is not None:
        behaviours = [
            AgentNoiseConfig(
                folder,
                scale=scale,
                bias_spread=cfg.driver_bias_spread if scale else 0.0,
                kick_probability=cfg.kick_probability,
                kick_steps=cfg.kick_steps,
            )
            for folder in drivers(previous, cfg.driver_snapshots)
            for scale in cfg.driver_noise
        ]
        episodes, steps, patience = cfg.driver_episodes, cfg.driver_steps, cfg.driver_patience
    seeds = _training_seeds(ctx, this.number, episodes)
    total, returns, seconds = 0, 0.0, 0.0
    shares = np.array_split(seeds, len(behaviours))
    for number, (behaviour, share) in enumerate(zip(behaviours, shares, strict=True)):
        if not len(share):
            continue
        summary = collect_episodes(
            CollectConfig(cfg.group, steps, patience, ctx.cfg.action_repeat),
            ctx.cfg.env_id,
            behaviour,
            share.tolist(),
            out / f"{number}",
            executor=ctx.executor,
            load_policy=load_driver,
            frame_spec=ctx.cfg.frame_spec,
        )
        total += summary.frames
        returns += summary.mean_return * summary.episodes
        seconds += summary.seconds
    ctx.run.count_frames("collection", total, f"collect/{this.number:02d}/{key[:8]}")
    store = EpisodeStore(_folders(out))
    ctx.run.log(
        "collection",
        iteration=this.number,
        frames=total,
        episodes=len(store),
        mean_return=returns / len(store),
        max_return=max(record.entry.total_reward for record in store.episodes),
        seconds=seconds,
        frames_per_second=total / seconds,
        behaviour=[type(behaviour).__name__ for behaviour in behaviours],
    )
    for old in out.parent.glob(f"{this.number:02d}-*"):
        if old != out:
            shutil.rmtree(old)
    return {"frames": total, "episodes": len(store), "fingerprint": store.fingerprint}


def drivers(previous: Iteration, which: Literal["selected", "all"]) -> list[Path]:
    """Folders for `load_driver`: the round's agent, or one of each snapshot of its evolution."""
    if which == "selected":
        return [previous.agent]
    snapshots = load_checkpoint(previous.folder / "controllers.pt")["snapshots"]
    folders = []
    for generation in sorted(snapshots):
        folder = previous.folder / "drivers" / f"{generation:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / "parameters.safetensors", save({"parameters": snapshots[generation]}))
        write_json(folder / "driver.json", {"agent": os.path.relpath(previous.agent, folder)})
        folders.append(folder)
    return folders


def load_driver(folder: Path) -> Agent:
    """Open an agent for collection: V in bfloat16, which is faster and exact enough for data.

    A folder of `drivers` has another controller for the agent that its `driver.json` names.
    """
    snapshot = folder / "driver.json"
    if snapshot.exists():
        agent = Agent.from_pretrained(folder / read_json(snapshot)["agent"])
        parameters = load_file(folder / "parameters.safetensors")["parameters"]
        agent = agent.with_parameters(parameters.numpy())
    else:
        agent = Agent.from_pretrained(folder)
    agent.bfloat16 = True
    return agent


def _explorers(cfg: ExperienceConfig) -> Sequence[BehaviourConfig]:
    centres: Sequence[tuple[float, ...] | None] = cfg.explore_bias or [None]
    return [
        AR1Config(rho=cfg.explore_rho, scale=scale, bias=bias)
        for scale in cfg.explore_scales
        for bias in centres
    ]


def _training_seeds(ctx: Context, number: int, episodes: int) -> NDArray[np.int64]:
    """Seeds of one round: disjoint slices of one shuffle of all training seeds."""
    order = np.random.default_rng(ctx.seed_for("training seeds")).permutation(TRAINING_SEED_LIMIT)
    cfg = ctx.cfg.experience
    first = 0 if number == 0 else cfg.explore_episodes + (number - 1) * cfg.driver_episodes
    return np.asarray(order[first : first + episodes], np.int64)


def _folders(out: Path) -> list[Path]:
    return sorted(path for path in out.iterdir() if path.is_dir())


def _store(ctx: Context, iterations: Sequence[Iteration]) -> EpisodeStore:
    """All episodes of some rounds, in order."""
    return EpisodeStore([f for it in iterations for f in _folders(it.experience(ctx))])


# --- V


def train_vision(
    ctx: Context, this: Iteration, before: Sequence[Iteration], key: str
) -> dict[str, Any]:
    """Train V on all frames so far, from the previous round's weights where there are any.

    After `VisionTrainConfig.finetune_rounds` it stays as it is, and so do the latents, until the
    first fresh round (`RunConfig.fresh`).
    """
    cfg, training = ctx.cfg, ctx.cfg.vision_training_of(this.number)
    this.folder.mkdir(parents=True, exist_ok=True)
    if not cfg.trains_vision(this.number):
        copy_file(before[-1].folder / "vision.pt", this.folder / "vision.pt")
        return {}
    store = _store(ctx, [*before, this])
    train, holdout = split(store)
    seed = ctx.seed_for("vision", this.number)

    def batches(start: int) -> Iterator[NDArray[np.uint8]]:
        frames = train.frame_batches(training.batch_size, seed, start=start)
        return frames if ctx.mirror is None else half_mirrored(frames, ctx.mirror, seed, start)

    validation = sample_frames(holdout, 512)
    if ctx.mirror is not None:
        validation[1::2] = ctx.mirror.frames(validation[1::2])
    model = train_one_vision(
        training,
        cfg.vision,
        batches,
        validation,
        seed=seed,
        init=None if cfg.begins_vision(this.number) else weights_of(before[-1], "vision.pt"),
        checkpoint=ctx.checkpoint_folder(f"vision/{this.number:02d}") / "state.pt",
        log=partial(ctx.run.log, "vision", iteration=this.number),
        device=ctx.device,
    ).cpu()
    save_checkpoint(this.folder / "vision.pt", model.state_dict())
    return {}


def half_mirrored(
    batches: Iterator[NDArray[np.uint8]], mirror: Symmetry, seed: int, start: int
) -> Iterator[NDArray[np.uint8]]:
    """Every other frame by chance in the mirror; the same ones whenever batch number k comes."""
    for number, batch in enumerate(batches, start):
        rows = np.random.default_rng((seed, number)).random(len(batch)) < 0.5
        yield np.where(rows[:, None, None, None], mirror.frames(batch), batch)


def weights_of(iteration: Iteration, name: str) -> dict[str, torch.Tensor]:
    """State dict of V or of an M as a round left it."""
    return load_checkpoint(iteration.folder / name)


def split(store: EpisodeStore) -> tuple[EpisodeStore, EpisodeStore]:
    """Training and held-out episodes; a store of one episode is both."""
    held = list(range(0, len(store), HOLDOUT_EVERY))
    kept = [index for index in range(len(store)) if index % HOLDOUT_EVERY]
    return store.subset(kept or held), store.subset(held)


def sample_frames(store: EpisodeStore, count: int) -> NDArray[np.uint8]:
    """At most ``count`` frames (N, 64, 64, 3), evenly spread over a store."""
    every = max(1, store.num_frames // count)
    frames = [store.read(index).obs for index in range(len(store))]
    return np.concatenate(frames)[::every][:count]


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, atomically."""
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def load_vision(ctx: Context, iteration: Iteration) -> ConvVAE:
    """V as a round left it."""
    model = ConvVAE(ctx.cfg.vision)
    model.load_state_dict(weights_of(iteration, "vision.pt"))
    return model.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload, no-any-return]  # not in torch's types


# --- latents


def encode(ctx: Context, this: Iteration, before: Sequence[Iteration], key: str) -> dict[str, Any]:
    """Encode every episode so far with this round's V, one file per round.

    In a run that learns from mirror images each episode is followed by its own.
    """
    model = load_vision(ctx, this).to(ctx.device)
    frozen = not ctx.cfg.trains_vision(this.number)
    for iteration in [*before, this]:
        name = f"latents-{iteration.number:02d}.safetensors"
        if frozen and iteration is not this:
            copy_file(before[-1].folder / name, this.folder / name)
            continue
        store = _store(ctx, [iteration])
        episodes = (twin for index in range(len(store)) for twin in _twins(ctx, store.read(index)))
        latents = encode_episodes(model, episodes, ctx.action_spec)
        latents.save(this.folder / name)
    return {}


def _twins(ctx: Context, episode: Episode) -> list[Episode]:
    """An episode, and its mirror image where the run learns from it."""
    if ctx.mirror is None:
        return [episode]
    obs, action = ctx.mirror.frames(episode.obs), ctx.mirror.actions(episode.action)
    return [episode, dataclasses.replace(episode, obs=obs, action=action)]


def held_out(cfg: RunConfig, episodes: int) -> NDArray[np.bool_]:
    """(E,) which of a run's encoded episodes are kept for validation, both images of each."""
    twins = 2 if cfg.mirror else 1
    held: NDArray[np.bool_] = np.arange(episodes) // twins % HOLDOUT_EVERY == 0
    return held


def load_latents(this: Iteration, before: Sequence[Iteration]) -> list[Latents]:
    """Latents of every round so far under this round's V."""
    return [
        Latents.load(this.folder / f"latents-{iteration.number:02d}.safetensors")
        for iteration in [*before, this]
    ]


# --- M


def train_memory(
    ctx: Context, this: Iteration, before: Sequence[Iteration], key: str
) -> dict[str, Any]:
    """Train the memories on all latents so far, each from its own weights of the round before.

    In fresh rounds they begin anew.
    """
    cfg = ctx.cfg
    parts = load_latents(this, before)
    latents = Latents.concatenate(parts)
    held = held_out(cfg, latents.num_episodes)
    if held.all():
        held = ~held
    repeats = np.ones(latents.num_episodes, np.int64)
    repeats[-parts[-1].num_episodes :] = cfg.memory.newest_repeats if before else 1
    kind = cfg.memory.reward
    if kind == "auto":
        kind = load_reward_model(before[0]).kind if before else reward_kind(latents)
    reward = fit_reward_model(latents, kind)
    holdout = latents.select(np.flatnonzero(held)) if held.any() else None
    memories = []
    for member in range(cfg.memory.ensemble):
        label = f"memory-{member}.pt"
        checkpoints = ctx.checkpoint_folder(f"memory/{this.number:02d}")
        memory = train_one_memory(
            cfg.memory_training_of(this.number),
            cfg.memory.network(cfg.vision.z_dim, ctx.action_spec.size, kind),
            reward,
            latents,
            seed=ctx.seed_for("memory", this.number, member),
            holdout=holdout,
            repeats=np.where(held, 0, repeats),
            init=None if cfg.begins_memory(this.number) else weights_of(before[-1], label),
            checkpoint=checkpoints / label,
            log=partial(ctx.run.log, "memory", iteration=this.number, member=member),
            device=ctx.device,
        ).cpu()
        save_checkpoint(this.folder / label, memory.state_dict())
        memories.append(memory)
    write_json(this.folder / "reward.json", reward)
    report = calibrate(memories[0], reward, holdout or latents, seed=ctx.seed_for("calibration"))
    ctx.run.log("memory_calibration", iteration=this.number, **report)
    return {}


def load_reward_model(iteration: Iteration) -> RewardModel:
    """Meaning of the reward head that a round's memories have."""
    path = iteration.folder / "reward.json"
    return from_json(RewardModel, read_json(path), f"{path}: ")


def dreaming_memories(ctx: Context, this: Iteration, before: Sequence[Iteration]) -> list[MDNRNN]:
    """The memories that C is evolved in: this round's, and those of rounds before with the same V.

    `ControllerStageConfig.memory_rounds` says how many rounds' memories dream.
    """
    shape = ctx.cfg.memory.network(
        ctx.cfg.vision.z_dim, ctx.action_spec.size, load_reward_model(this).kind
    )
    folders = [iteration.folder for iteration in [*before, this]]
    return [
        memory
        for number in dreaming_rounds(ctx.cfg, this.number)
        for memory in load_memories(folders[number], shape, ctx.cfg.memory.ensemble)
    ]


def dreaming_rounds(cfg: RunConfig, number: int) -> list[int]:
    """Rounds whose memories dream in this one, the newest first.

    Rounds share V from the last one that trained it.
    """
    oldest = max(earlier for earlier in range(number + 1) if cfg.trains_vision(earlier))
    return [*range(number, oldest - 1, -1)][: cfg.controller.memory_rounds]


def load_memories(folder: Path, shape: MDNRNNConfig, count: int) -> list[MDNRNN]:
    """The memories as a round left them in its folder."""
    memories = []
    for member in range(count):
        memory = MDNRNN(shape)
        memory.load_state_dict(load_checkpoint(folder / f"memory-{member}.pt"))
        memories.append(memory.eval())
    return memories
