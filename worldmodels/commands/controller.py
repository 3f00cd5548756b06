"""`worldmodels train-controller`: C, evolved in the dream, and the agent with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import tyro

from worldmodels import stages
from worldmodels.agent import Agent, find
from worldmodels.commands.parsing import DEFAULT_PRESET, PresetName
from worldmodels.commands.stage import ControllerSettings, data_env, use_all_cores
from worldmodels.config import Seed
from worldmodels.dream.config import DreamConfig
from worldmodels.presets import RunConfig, StartsConfig
from worldmodels.runs import Device, FolderPath, require_device, versions
from worldmodels.stages.context import open_stage
from worldmodels.stages.files import (
    LatentsFile,
    MemoryFile,
    VisionFile,
    file_digest,
    load_latents,
    load_memories,
    require_same,
    require_vision,
)


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
    memory: tuple[Path, ...]
    """files of M, from `worldmodels train-memory`, the newest last: all of them dream, and C sees
    the newest one's h"""
    latents: tuple[Path, ...]
    """files of latents that dreams begin at, from `worldmodels encode` with the same V, one for
    each iteration, the newest last"""
    out: FolderPath
    """folder for the agent"""
    dream: DreamConfig
    """the dream"""
    starts: StartsConfig
    """where dreams begin"""
    controller: ControllerSettings
    """C and its evolution"""
    init: str | None = None
    """folder (or its run's) or name of an agent whose controller the search begins at; None begins
    at zero"""
    seed: Seed = 0
    """as that of `worldmodels run`: fixes starts, samples and noise"""
    device: Device = "cpu"
    """where to dream: cuda for a GPU"""
    run: FolderPath | None = None
    """run folder that gets metrics and the count of dreamt frames; None writes nothing"""

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
            controller=ControllerSettings.of(preset.controller),
        )

    @classmethod
    def environment(cls, flags: Mapping[str, str]) -> str | None:
        """That of V."""
        return data_env(flags, "vision")

    def ignored(self) -> Mapping[str, str]:
        """What needs several iterations, or losses that weigh more than the rest."""
        found = {}
        if len(self.latents) == 1:
            found["starts.newest-weight"] = "there is one file of latents, and none is the newest"
        if self.starts.loss_weight == 1:
            why = "starts.loss-weight is 1, so states before a loss are as any other"
            found |= {"starts.loss-before": why, "starts.loss-streak": why}
        return found

    def execute(self) -> None:
        """Evolve and save the agent."""
        require_device(self.device)
        use_all_cores()
        world = self._world()
        init = None if self.init is None else Agent.from_pretrained(self.init)
        begins = None if self.init is None else str(find(self.init))
        files = [file_digest(path) for path in (self.vision, *self.memory, *self.latents)]
        inputs = [self.dream, self.starts, self.controller, begins, files]
        with open_stage(
            "controller",
            self.out,
            inputs,
            self.run,
            seed=self.seed,
            iteration=len(self.latents) - 1,
            device=self.device,
        ) as ctx:
            evolved = stages.evolve_controller(
                self.controller,
                self.dream,
                self.starts,
                *world,
                ctx,
                init=init,
                metadata={"seed": self.seed, "versions": versions()},
            )
            evolved.agent.save_pretrained(self.out, dtype="float32")
            ctx.count_frames("dream", evolved.frames)
        print(f"agent, evolved over {evolved.frames:,} dreamt frames: {self.out}")

    def _world(self) -> tuple[VisionFile, list[MemoryFile], list[LatentsFile]]:
        """V, M and latents, which must belong together."""
        vision, memories = VisionFile.load(self.vision), load_memories(self.memory)
        parts = load_latents(self.latents)
        for path, file in ((self.memory[-1], memories[-1]), (self.latents[0], parts[0])):
            require_same(path, file.source, self.vision, vision.source)
            require_vision(path, file.vision, self.vision, vision.digest)
        return vision, memories[::-1], parts
