"""The dream as a judge of C's parameters, and the evolution of C in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from worldmodels.controller import linear
from worldmodels.controller.evolve import EvolveResult, Generation, OnGeneration, evolve
from worldmodels.controller.linear import (
    Components,
    ControllerConfig,
    InputStats,
    Parameters,
    controller_inputs,
)
from worldmodels.dream.config import DreamConfig
from worldmodels.dream.engine import DreamEngine, DreamReturns
from worldmodels.dream.starts import DreamStarts
from worldmodels.envs import from_file
from worldmodels.envs.spaces import ActionSpec
from worldmodels.memory.interface import Memory
from worldmodels.memory.rewards import RewardModel
from worldmodels.metrics import GenerationStep
from worldmodels.presets import ControllerStageConfig
from worldmodels.runs import progress
from worldmodels.tasks import task_for


@dataclass(frozen=True)
class DreamEvolution:
    """A controller's shape, and the dream that it is evolved in."""

    stage: ControllerStageConfig
    """what C sees and how it is evolved"""
    dream: DreamConfig
    """the dream, its penalties included"""
    memories: Sequence[Memory]
    """the first one's h is what C sees"""
    reward: RewardModel
    """meaning of the memories' reward heads"""
    starts: DreamStarts
    """where dreams begin"""
    shape: ControllerConfig
    """of C"""
    stats: InputStats | None
    """mean and deviation of C's inputs over the starts; None where they are not standardised"""

    @classmethod
    def of(
        cls,
        stage: ControllerStageConfig,
        dream: DreamConfig,
        memories: Sequence[Memory],
        reward: RewardModel,
        starts: DreamStarts,
        env_id: str,
        action_spec: ActionSpec,
    ) -> Self:
        """Find the shape that the environment's actions ask for."""
        shape = ControllerConfig.for_action_space(
            action_spec,
            task_for(from_file(env_id, "V's file")).squash if action_spec.kind == "box" else None,
            inputs=stage.inputs,
            hidden=stage.hidden,
            normalize=stage.normalize,
        )
        stats = None
        if shape.normalize:
            stats = InputStats.of(
                torch.from_numpy(controller_inputs(shape, starts.z, starts.h[0])), floor=0.05
            )
        return cls(stage, dream, memories, reward, starts, shape, stats)

    def first_parameters(self, seed: int) -> Parameters:
        """(N,) where a search begins that carries nothing on."""
        size = self.memories[0].cfg
        return linear.initial_parameters(self.shape, size.z_dim, size.hidden_size, seed)

    def returns(self, **changes: object) -> DreamReturns:
        """Judge of populations (P, N) by the dream's rewards alone, no penalty for misses.

        Args:
            changes: fields of `DreamConfig` that are to be otherwise.
        """
        changes = {"miss_penalty": 0.0, **changes}
        return self._judge(dataclasses.replace(self.dream, **changes))  # type: ignore[arg-type]  # mypy takes the dict's values for one type

    def run(
        self,
        seed: int,
        x0: Parameters,
        checkpoint: Path | None = None,
        on_generation: OnGeneration | None = None,
        key: str = "",
    ) -> EvolveResult:
        """Evolve; as `evolve`. The means of snapshots are judged without the penalty for misses."""
        returns, after = self.returns(), self.stage.miss_after
        penalised = self._judge(self.dream) if self.dream.miss_penalty else returns

        def objective(
            population: NDArray[np.float32], seed: int, generation: int
        ) -> NDArray[np.float64]:
            return (penalised if generation > after else returns)(population, seed)

        with progress(self.stage.evolve.generations, "C", unit="generations") as bar:

            def note(record: Generation) -> None:
                bar.advance(dream=record.mean)
                if on_generation is not None:
                    on_generation(record)

            return evolve(
                returns,
                self.stage.evolve,
                seed,
                x0,
                checkpoint=checkpoint,
                on_generation=note,
                key=key,
                objective=objective,
                components=self._components(),
            )

    def _components(self) -> Components | None:
        """Principal components of what C sees, over the starts; None where none are asked for."""
        if not self.stage.components:
            return None
        seen = controller_inputs(self.shape, self.starts.z, self.starts.h[0])
        return Components.of(seen, self.stage.components, self.shape)

    def _judge(self, cfg: DreamConfig) -> DreamReturns:
        size = self.memories[0].cfg
        make_act = partial(
            linear.Controllers,
            cfg=self.shape,
            z_dim=size.z_dim,
            h_dim=size.hidden_size,
            stats=self.stats,
        )
        return DreamReturns(DreamEngine(self.memories, self.reward, self.starts, cfg), make_act)


def generation_metrics(record: Generation) -> GenerationStep:
    """One generation as a line of metrics."""
    return {
        "generation": record.generation,
        "dream_best": record.best,
        "dream_mean": record.mean,
        "dream_std": record.std,
        "dream_of_mean": record.mean_return,
        "sigma": record.sigma,
        "seconds": record.seconds,
    }
