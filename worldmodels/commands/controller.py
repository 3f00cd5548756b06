"""`worldmodels train-controller`: C, evolved in the dream, and the agent with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import tyro
from numpy.typing import NDArray

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
from worldmodels.controller.evolve import Generation
from worldmodels.dream.config import DreamConfig
from worldmodels.dream.starts import build_starts
from worldmodels.pipeline import driver
from worldmodels.pipeline.evolution import DreamEvolution, generation_metrics
from worldmodels.presets import ControllerStageConfig, RunConfig, StartsConfig
from worldmodels.protocols import UserError
from worldmodels.runs import Device, FolderPath, derive_seed, require_device, versions


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
    out: FolderPath
    """folder for the agent"""
    dream: DreamConfig
    """the dream"""
    starts: StartsConfig
    """where dreams begin"""
    controller: ControllerStageConfig
    """C and its evolution"""
    init: str | None = None
    """folder (or its run's) or name of an agent whose controller the search begins at; None begins
    at zero"""
    seed: int = 0
    """fixes starts, samples and noise"""
    device: Device = "cpu"
    """where to dream: cuda for a graphics card"""
    run: FolderPath | None = None
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
        require_device(self.device)
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
        cfg, source = self.controller.evolve, vision.source
        memories = [model.to(self.device) for model in memory.models]
        rng = np.random.default_rng(derive_seed(self.seed, "starts", 0))
        count, warmup = self.starts.count, self.starts.warmup
        noise = load_preset(self.preset).memory_training.posterior_noise
        starts = build_starts(memories, latents.latents, count, warmup, rng, posterior_noise=noise)
        search = DreamEvolution.of(
            self.controller,
            self.dream,
            memories,
            memory.reward,
            starts,
            source.env_id,
            source.action_spec,
        )
        seed = derive_seed(self.seed, "controller", 0)

        def log(record: Generation, _: Any) -> None:
            stage.log(**generation_metrics(record))

        result = search.run(seed, self._begin(search, seed), stage.state / "state.json", log)
        agent = Agent(
            vision.model,
            [model.cpu() for model in memories],
            search.shape,
            result.parameters,
            env_id=source.env_id,
            frame_spec=source.frame_spec,
            action_spec=source.action_spec,
            reward_model=memory.reward,
            input_stats=search.stats,
            starts=driver.fewer_starts(starts),
            action_repeat=source.action_repeat,
            metadata={"seed": self.seed, "versions": versions()},
        )
        dreams = len(result.history) * cfg.strategy.population + len(result.snapshots)
        return agent, dreams * self.dream.episodes * self.dream.horizon

    def _begin(self, search: DreamEvolution, seed: int) -> NDArray[np.float32]:
        """(N,) parameters that the search begins at."""
        x0 = search.first_parameters(seed)
        if self.init is None:
            return x0
        init = Agent.from_pretrained(self.init)
        if init.controller != search.shape or init.parameters.size != len(x0):
            raise UserError(
                f"agent {self.init!r} has {init.controller} with {init.parameters.size} "
                f"parameters; needed is {search.shape} with {len(x0)}"
            )
        return init.parameters
