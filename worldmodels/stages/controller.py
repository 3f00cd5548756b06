"""The stage that evolves C in the dream of M."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from worldmodels.agent import Agent
from worldmodels.controller.evolve import Generation
from worldmodels.dream.config import DreamConfig
from worldmodels.dream.starts import DreamStarts, before_losses, build_starts
from worldmodels.memory.interface import Memory
from worldmodels.memory.rewards import RewardModel
from worldmodels.presets import ControllerStageConfig, StartsConfig
from worldmodels.protocols import UserError
from worldmodels.runs import load_checkpoint, save_checkpoint
from worldmodels.stages.context import StageContext
from worldmodels.stages.evolution import DreamEvolution, generation_metrics
from worldmodels.stages.files import Source
from worldmodels.stages.latents import originals
from worldmodels.vision.latents import Latents
from worldmodels.vision.vae import ConvVAE


@dataclass(frozen=True)
class World:
    """What C is evolved in: V, M, and all that is recorded under this V."""

    source: Source
    """of the frames"""
    vision: ConvVAE
    memories: Sequence[Memory]
    """all of them dream; C sees the first one's h"""
    reward: RewardModel
    """meaning of the memories' reward heads"""
    parts: Sequence[Latents]
    """of each iteration, the newest last"""
    mirror: bool = False
    """whether every second episode of the latents is a horizontal flip"""
    posterior_noise: float = 1.0
    """share of V's posterior deviation that is sampled into z, as in M's training"""


@dataclass(frozen=True)
class Candidates:
    """What an evolution leaves for the selection."""

    snapshots: Mapping[int, NDArray[np.float32]]
    """generation -> (N,) parameters of C"""
    dreamed: Mapping[int, float]
    """generation -> return in the dream"""

    def save(self, path: Path) -> None:
        """Write them, atomically."""
        snapshots = {g: torch.from_numpy(p.copy()) for g, p in self.snapshots.items()}
        content = {"snapshots": snapshots, "dreamed": dict(self.dreamed)}
        save_checkpoint(path, content, "controllers")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        content = load_checkpoint(path)
        snapshots = {g: tensor.numpy() for g, tensor in content["snapshots"].items()}
        return cls(snapshots, content["dreamed"])


@dataclass(frozen=True)
class Evolved:
    """What evolution in the dream found."""

    agent: Agent
    """with the mean of the last generation"""
    candidates: Candidates
    """the means of several generations"""
    search: DreamEvolution
    """the dream, to judge other parameters in"""
    frames: int
    """dreamt steps of M"""


def evolve_controller(
    cfg: ControllerStageConfig,
    dream: DreamConfig,
    starts: StartsConfig,
    world: World,
    ctx: StageContext,
    *,
    init: Agent | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Evolved:
    """Evolve C inside the dream; keep its mean at several generations for the selection.

    Args:
        cfg: what C sees, and its evolution.
        dream: the dream.
        starts: where dreams begin.
        world: V, M and the latents.
        ctx: seed, device, checkpoints and metrics.
        init: agent whose C the search begins at; None begins at zero.
        metadata: of the agent.

    Raises:
        UserError: ``init`` has another C, or the latents are too few.
    """
    device = "cpu" if dream.backend == "kernels" else ctx.device
    memories = [memory.to(device) for memory in world.memories]
    begins = recorded_starts(
        starts,
        originals(world.parts, world.mirror),
        memories,
        ctx.seed_for("starts"),
        world.posterior_noise,
    )
    source = world.source
    search = DreamEvolution.of(
        cfg, dream, memories, world.reward, begins, source.env_id, source.action_spec
    )
    seed = ctx.seed_for("controller")

    def log(record: Generation) -> None:
        ctx.log("controller", **generation_metrics(record))

    x0 = _first_parameters(search, seed, init)
    result = search.run(seed, x0, ctx.checkpoint("state.safetensors"), log, ctx.key)
    dreamed = {g.generation: g.mean_return for g in result.history if g.mean_return is not None}
    agent = Agent(
        world.vision,
        [memory.cpu() for memory in memories],
        search.shape,
        result.parameters,
        env_id=source.env_id,
        frame_spec=source.frame_spec,
        action_spec=source.action_spec,
        reward_model=world.reward,
        input_stats=search.stats,
        starts=fewer_starts(begins),
        action_repeat=source.action_repeat,
        metadata=None if metadata is None else dict(metadata),
    )
    dreams = len(result.history) * cfg.evolve.strategy.population + len(result.snapshots)
    frames = dreams * dream.episodes * dream.horizon
    return Evolved(agent, Candidates(result.snapshots, dreamed), search, frames)


def _first_parameters(search: DreamEvolution, seed: int, init: Agent | None) -> NDArray[np.float32]:
    """(N,) parameters that the search begins at."""
    x0 = search.first_parameters(seed)
    if init is None:
        return x0
    if init.controller != search.shape or init.parameters.size != len(x0):
        raise UserError(
            f"the agent to begin at has {init.controller} with {init.parameters.size} parameters; "
            f"expected {search.shape} with {len(x0)}"
        )
    return init.parameters


def recorded_starts(
    cfg: StartsConfig,
    parts: Sequence[Latents],
    memories: Sequence[Memory],
    seed: int,
    posterior_noise: float,
) -> DreamStarts:
    """Recorded states, weighted as ``cfg`` says, each with every memory's state warmed up to it.

    Args:
        cfg: how many, and their weights.
        parts: latents of each iteration, the newest last. None of them is a flipped episode: V and
            M know both worlds, C drives in one.
        memories: warmed up to every state.
        seed: fixes the choice.
        posterior_noise: share of V's posterior deviation that is sampled into z.
    """
    latents = Latents.concatenate(parts)
    weight = np.ones(latents.num_frames)
    weight[-parts[-1].num_frames :] = cfg.newest_weight
    if cfg.loss_weight != 1:
        before, streak = cfg.loss_before, cfg.loss_streak
        weight[before_losses(latents.reward, latents.offsets, before, streak)] *= cfg.loss_weight
    rng = np.random.default_rng(seed)
    return build_starts(memories, latents, cfg.count, cfg.warmup, rng, weight, posterior_noise)


def fewer_starts(starts: DreamStarts, count: int = 512) -> DreamStarts:
    """As many starts as an agent's folder is given."""
    every = max(1, len(starts) // count)
    return DreamStarts(
        *(a[..., ::every, :][..., :count, :] for a in (starts.z, starts.h, starts.c))
    )
