"""`worldmodels train-controller`: C, evolved in the dream, and the agent with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import tyro

from worldmodels.agent import Agent, find
from worldmodels.commands.files import (
    LatentsFile,
    MemoryFile,
    VisionFile,
    file_digest,
    load_latents,
    require_same,
    require_vision,
)
from worldmodels.commands.parsing import DEFAULT_PRESET, PresetName, load_preset
from worldmodels.commands.stage import Stage, open_stage, use_all_cores
from worldmodels.controller import linear
from worldmodels.controller.components import evolve_within
from worldmodels.controller.evolve import Generation
from worldmodels.controller.linear import ControllerConfig
from worldmodels.dream.config import DreamConfig
from worldmodels.dream.starts import DreamStarts, build_starts
from worldmodels.pipeline import driver
from worldmodels.presets import ControllerStageConfig, RunConfig, StartsConfig
from worldmodels.protocols import UserError
from worldmodels.runs import derive_seed, progress, versions


@dataclass(frozen=True)
class TrainController:
    """Evolve C inside the dream of M and save V, M and C as an agent.

    The agent has the mean of the last generation. Nothing is selected by real driving here, which
    `worldmodels run` does. The same command again goes on where it was stopped.
    """

    preset: PresetName
    """where the settings come from"""
    vision: Path
    """file of V, from `worldmodels train-vision`"""
    memory: Path
    """file of M, from `worldmodels train-memory`"""
    latents: tuple[Path, ...]
    """files of latents that dreams begin at, from `worldmodels encode` with the same V"""
    out: Path
    """folder for the agent"""
    dream: DreamConfig
    """the dream"""
    starts: StartsConfig
    """where dreams begin"""
    controller: ControllerStageConfig
    """C and its evolution"""
    init: str | None = None
    """folder or name of an agent whose controller the search begins at; None begins at zero"""
    seed: int = 0
    """fixes starts, samples and noise"""
    run: Path | None = None
    """run folder that gets metrics and the count of dreamt frames; None for none"""

    @classmethod
    def defaults(cls, preset: RunConfig, flags: Mapping[str, str]) -> Self:
        """The preset's dream and C."""
        return cls(
            preset=flags.get("preset", DEFAULT_PRESET),
            vision=tyro.MISSING,
            memory=tyro.MISSING,
            latents=tyro.MISSING,
            out=tyro.MISSING,
            dream=preset.dream,
            starts=preset.starts,
            controller=preset.controller,
        )

    def execute(self) -> None:
        """Evolve and save the agent."""
        use_all_cores()
        vision, memory, latents = self._read()
        begins = None if self.init is None else str(find(self.init))
        files = [file_digest(path) for path in (self.vision, self.memory, *self.latents)]
        inputs = [self.dream, self.starts, self.controller, self.seed, begins, files]
        with open_stage("controller", self.out, inputs, self.run) as stage:
            agent, dreamt = self._evolve(vision, memory, latents, stage)
            agent.save_pretrained(self.out, dtype="float32")
            stage.count_frames("dream", dreamt)
        print(f"agent, evolved over {dreamt:,} dreamt frames: {self.out}")

    def _read(self) -> tuple[VisionFile, MemoryFile, LatentsFile]:
        """V, M and latents, which must belong together."""
        vision, memory = VisionFile.load(self.vision), MemoryFile.load(self.memory)
        latents = load_latents(self.latents)
        for path, file in ((self.memory, memory), (self.latents[0], latents)):
            require_same(path, file.source, self.vision, vision.source)
            require_vision(path, file.vision, self.vision, vision.digest)
        return vision, memory, latents

    def _evolve(
        self, vision: VisionFile, memory: MemoryFile, latents: LatentsFile, stage: Stage
    ) -> tuple[Agent, int]:
        """The agent, and how many frames were dreamt for it."""
        cfg = self.controller.evolve
        rng = np.random.default_rng(derive_seed(self.seed, "starts", 0))
        count, warmup = self.starts.count, self.starts.warmup
        noise = load_preset(self.preset).memory_training.posterior_noise
        starts = build_starts(
            memory.models, latents.latents, count, warmup, rng, posterior_noise=noise
        )
        seed = derive_seed(self.seed, "controller", 0)
        agent = self._beginner(vision, memory, starts, seed)
        returns = driver.dream_returns(
            self.dream, memory.models, memory.reward, starts, agent.controller, agent.input_stats
        )
        with progress(cfg.generations, "C", unit="generations") as bar:

            def note(record: Generation, mean: Any) -> None:
                log_generation(stage, record)
                bar.advance(dream=record.mean)

            result = evolve_within(
                driver.components(agent.controller, starts, self.controller.components),
                returns,
                cfg,
                seed,
                agent.parameters,
                checkpoint=stage.state / "state.json",
                on_generation=note,
            )
        dreams = len(result.history) * cfg.strategy.population + len(result.snapshots)
        dreamt = dreams * self.dream.episodes * self.dream.horizon
        return agent.with_parameters(result.parameters), dreamt

    def _beginner(
        self, vision: VisionFile, memory: MemoryFile, starts: DreamStarts, seed: int
    ) -> Agent:
        """The agent as it is before its evolution."""
        cfg, source = self.controller, vision.source
        shape = ControllerConfig.for_action_space(
            source.action_spec,
            source.env_id,
            inputs=cfg.inputs,
            hidden=cfg.hidden,
            normalize=cfg.normalize,
        )
        hidden_size = memory.models[0].cfg.hidden_size
        x0 = linear.initial_parameters(shape, vision.model.cfg.z_dim, hidden_size, seed)
        if self.init is not None:
            init = Agent.from_pretrained(self.init)
            if init.controller != shape or init.parameters.size != len(x0):
                raise UserError(
                    f"agent {self.init!r} has {init.controller} with {init.parameters.size} "
                    f"parameters; needed is {shape} with {len(x0)}"
                )
            x0 = init.parameters
        return Agent(
            vision.model,
            memory.models,
            shape,
            x0,
            env_id=source.env_id,
            frame_spec=source.frame_spec,
            action_spec=source.action_spec,
            reward_model=memory.reward,
            input_stats=driver.input_stats(shape, starts) if shape.normalize else None,
            starts=driver.fewer_starts(starts),
            action_repeat=source.action_repeat,
            metadata={"seed": self.seed, "versions": versions()},
        )


def log_generation(stage: Stage, record: Generation) -> None:
    """Write one generation's line of metrics."""
    stage.log(
        generation=record.generation,
        dream_best=record.best,
        dream_mean=record.mean,
        dream_std=record.std,
        dream_of_mean=record.mean_return,
        sigma=record.sigma,
        seconds=record.seconds,
    )
