"""The stage that evolves C in the dream of M."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from worldmodels.agent import Agent
from worldmodels.artifacts import load_checkpoint, save_checkpoint
from worldmodels.controller import linear
from worldmodels.controller.evolve import EvolveResult, Generation, evolve
from worldmodels.controller.linear import (
    Components,
    ControllerConfig,
    InputStats,
    Parameters,
    controller_inputs,
)
from worldmodels.dream.config import DreamConfig
from worldmodels.dream.engine import DreamEngine, DreamReturns
from worldmodels.dream.starts import DreamStarts, before_off_track, build_starts, with_beginnings
from worldmodels.envs import from_file
from worldmodels.envs.spaces import ActionSpec
from worldmodels.executors import Executor
from worldmodels.memory.interface import Memory
from worldmodels.memory.rewards import RewardModel
from worldmodels.metrics import GenerationStep
from worldmodels.protocols import UserError
from worldmodels.runs import progress
from worldmodels.stage_configs import ControllerStageConfig, StartsConfig
from worldmodels.stages.context import StageContext
from worldmodels.stages.files import LatentsFile, MemoryFile, Source, VisionFile
from worldmodels.stages.learning import originals
from worldmodels.tasks import task_for
from worldmodels.vision.latents import Latents
from worldmodels.vision.vae import ConvVAE

AGENT_STARTS = 512
"""Dream starts in an agent's folder."""


@dataclass(frozen=True)
class Candidates:
    """Snapshots of an evolution, for the selection."""

    snapshots: Mapping[int, NDArray[np.float32]]
    """generation -> (N,) parameters of C"""
    dreamed: Mapping[int, float]
    """generation -> return in the dream"""

    def save(self, path: Path) -> None:
        """Write them, atomically."""
        save_checkpoint(path, vars(self), "controllers")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        content = load_checkpoint(path)
        snapshots = {g: np.asarray(found) for g, found in content["snapshots"].items()}
        return cls(snapshots, content["dreamed"])


@dataclass(frozen=True)
class Evolved:
    """Result of an evolution in the dream."""

    agent: Agent
    """with the mean of the last generation"""
    candidates: Candidates
    """the means of several generations"""
    search: DreamEvolution
    """the dream, to judge other parameters in"""
    frames: int
    """dreamed steps of M"""


def evolve_controller(
    cfg: ControllerStageConfig,
    dream: DreamConfig,
    starts: StartsConfig,
    vision: VisionFile,
    memories: Sequence[MemoryFile],
    parts: Sequence[LatentsFile],
    ctx: StageContext,
    *,
    init: Agent | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Evolved:
    """Evolve C inside the dream; keep its mean at several generations for the selection.

    All memories dream, the newest first; C sees h of the first one's first M. The latents of each
    iteration are under this V, the newest last. The search begins at the C of ``init``, or at zero.

    Raises:
        UserError: ``init`` has another C, or the latents are too few.
    """
    device = _device(dream, ctx)
    models = [model.to(device) for file in memories for model in file.models]
    newest = memories[0]
    begins = recorded_starts(
        starts, originals(parts), models, ctx.seed_for("starts"), newest.posterior_noise
    )
    dreamt = (vision.model, models, newest.reward, begins, vision.source)
    return _evolve(cfg, dream, *dreamt, ctx, init, metadata)


def evolve_again(
    cfg: ControllerStageConfig, dream: DreamConfig, agent: Agent, ctx: StageContext
) -> Evolved:
    """Evolve another C from zero in an agent's dream, which begins at the starts in its folder.

    Raises:
        UserError: an agent that cannot dream.
    """
    reward, begins = agent.to_dream()
    models = [memory.to(_device(dream, ctx)) for memory in agent.memories]
    return _evolve(cfg, dream, agent.vision, models, reward, begins, agent, ctx)


def _device(dream: DreamConfig, ctx: StageContext) -> str:
    return "cpu" if dream.backend == "kernels" else ctx.device


def _evolve(
    cfg: ControllerStageConfig,
    dream: DreamConfig,
    vision: ConvVAE,
    models: Sequence[Memory],
    reward: RewardModel,
    begins: DreamStarts,
    source: Source | Agent,
    ctx: StageContext,
    init: Agent | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Evolved:
    """Evolve C in the dream of ``models``; the ``source`` tells of the environment."""
    models[0].seen_size(cfg.inputs == "zhc")
    several = ctx.executor is not None and ctx.executor.workers > 1
    spread = several and _device(dream, ctx) == "cpu" and not dream.threads
    search = DreamEvolution(
        cfg,
        dream,
        models,
        reward,
        begins,
        source.env_id,
        source.action_spec,
        ctx.executor if spread else None,
    )
    seed = ctx.seed_for("controller")
    result = search.run(seed, _first_parameters(search, seed, init), ctx)
    dreamed = {g.generation: g.mean_return for g in result.history if g.mean_return is not None}
    agent = Agent(
        vision,
        [model.cpu() for model in models],
        search.shape,
        result.parameters,
        env_id=source.env_id,
        frame_spec=source.frame_spec,
        action_spec=source.action_spec,
        reward_model=reward,
        input_stats=search.stats,
        starts=_thinned(begins),
        action_repeat=source.action_repeat,
        ends=dream.ends,
        metadata=None if metadata is None else dict(metadata),
    )
    dreams = len(result.history) * cfg.evolve.strategy.population + len(result.snapshots)
    frames = dreams * dream.episodes * dream.horizon
    ctx.count_frames("dream", frames)
    return Evolved(agent, Candidates(result.snapshots, dreamed), search, frames)


def _first_parameters(search: DreamEvolution, seed: int, init: Agent | None) -> Parameters:
    """(N,) parameters at which the search begins."""
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

    The episodes, the newest last, are not flipped, since C acts in the original world only.
    ``posterior_noise`` is the fraction of V's posterior standard deviation sampled into z.
    """
    latents = Latents.concatenate(parts)
    weight = np.ones(latents.num_frames)
    weight[-parts[-1].num_frames :] = cfg.newest_weight
    if cfg.off_track_weight != 1:
        before, streak = cfg.off_track_before, cfg.off_track_streak
        weight[before_off_track(latents.reward, latents.offsets, before, streak)] *= (
            cfg.off_track_weight
        )
    if cfg.beginnings:
        weight = with_beginnings(weight, latents.offsets, cfg.beginnings)
    rng = np.random.default_rng(seed)
    return build_starts(memories, latents, cfg.count, cfg.warmup, rng, weight, posterior_noise)


def _thinned(starts: DreamStarts) -> DreamStarts:
    every = max(1, len(starts) // AGENT_STARTS)
    arrays = (starts.z, starts.h, starts.c)
    return DreamStarts(*(a[..., ::every, :][..., :AGENT_STARTS, :] for a in arrays))


class DreamEvolution:
    """A controller's shape, and the dream that it is evolved in."""

    def __init__(
        self,
        stage: ControllerStageConfig,
        dream: DreamConfig,
        memories: Sequence[Memory],
        reward: RewardModel,
        starts: DreamStarts,
        env_id: str,
        action_spec: ActionSpec,
        executor: Executor | None = None,
    ) -> None:
        """Derive C's shape from the environment's actions; C sees the first memory's h.

        With an ``executor`` its workers dream, else this process's threads.
        """
        self.stage, self.dream, self.starts = stage, dream, starts
        self.memories, self.reward, self.executor = memories, reward, executor
        task = task_for(from_file(env_id, "V's file"))
        self.shape = ControllerConfig.for_action_space(
            action_spec,
            task.squash,
            inputs=stage.inputs,
            hidden=stage.hidden,
            normalize=stage.normalize,
            discrete=stage.discrete,
            order=task.choice_order,
        )
        self.stats: InputStats | None = None
        """mean and standard deviation of C's inputs over the starts, if they are standardised"""
        if self.shape.normalize:
            self.stats = InputStats.of(torch.from_numpy(self._seen()), floor=0.05)

    def _seen(self) -> NDArray[np.float32]:
        """(S, I) C's inputs at the starts."""
        return controller_inputs(self.shape, self.starts.z, self.starts.seen(self.shape.carry))

    def first_parameters(self, seed: int) -> Parameters:
        """(N,) parameters at which a search from scratch begins."""
        size = self.memories[0].cfg
        return linear.initial_parameters(self.shape, size.z_dim, size.hidden_size, seed)

    def returns(self, **changes: object) -> DreamReturns:
        """Judge of populations (P, N) by the dream's rewards, without `no_event_penalty`.

        ``changes`` are other values of fields of `DreamConfig`.
        """
        changes = {"no_event_penalty": 0.0, **changes}
        return self._judge(dataclasses.replace(self.dream, **changes))  # type: ignore[arg-type]  # mypy takes the dict's values for one type

    def run(self, seed: int, x0: Parameters, ctx: StageContext) -> EvolveResult:
        """Evolve from ``x0`` (N,); the means of snapshots are judged without penalty."""
        returns, after = self.returns(), self.stage.no_event_after
        penalised = self._judge(self.dream) if self.dream.no_event_penalty else returns
        components = None
        if self.stage.components:
            components = Components.of(self._seen(), self.stage.components, self.shape)

        def objective(
            population: NDArray[np.float32], seed: int, generation: int
        ) -> NDArray[np.float64]:
            return (penalised if generation > after else returns)(population, seed)

        with progress(range(self.stage.evolve.generations), "C", unit="generations") as bar:

            def note(record: Generation) -> None:
                bar.advance(dream=record.mean)
                step = GenerationStep(
                    generation=record.generation,
                    dream_best=record.best,
                    dream_mean=record.mean,
                    dream_std=record.std,
                    dream_of_mean=record.mean_return,
                    sigma=record.sigma,
                    seconds=record.seconds,
                )
                ctx.log("controller", **step)

            return evolve(
                returns,
                self.stage.evolve,
                seed,
                x0,
                checkpoint=ctx.checkpoint("state.safetensors"),
                on_generation=note,
                key=ctx.key,
                objective=objective,
                components=components,
            )

    def _judge(self, cfg: DreamConfig) -> DreamReturns:
        size = self.memories[0].cfg
        make_act = partial(
            linear.Controllers,
            cfg=self.shape,
            z_dim=size.z_dim,
            h_dim=size.hidden_size,
            stats=self.stats,
        )
        parts = (self.memories, self.reward, self.starts, cfg, self.shape.carry)
        return DreamReturns(DreamEngine(*parts), make_act, self.executor)
