"""`worldmodels train-memory`: M, from latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import tyro

from worldmodels import stages
from worldmodels.commands.parsing import DEFAULT_PRESET, PresetName
from worldmodels.commands.stage import data_env, of_fine_tuning, use_all_cores
from worldmodels.config import Seed
from worldmodels.memory.interface import MemoryConfig
from worldmodels.memory.train import MemoryTrainConfig
from worldmodels.presets import MemoryStageConfig, RunConfig
from worldmodels.protocols import UserError
from worldmodels.runs import Device, FilePath, FolderPath, require_device
from worldmodels.stages.context import open_stage
from worldmodels.stages.files import (
    LatentsFile,
    MemoryFile,
    file_digest,
    load_latents,
    require_same,
)


@dataclass(frozen=True)
class TrainMemory:
    """Train M, the model of the world, on latents.

    One episode in twenty is kept for the validation loss. The same command again goes on where it
    was stopped.
    """

    preset: PresetName
    """where the settings come from"""
    latents: tuple[Path, ...]
    """files of latents, from `worldmodels encode`, all made by one V, one for each iteration, the
    newest last"""
    out: FilePath
    """file for M"""
    memory: MemoryStageConfig
    """shape of M"""
    memory_training: MemoryTrainConfig
    """training of M"""
    init: Path | None = None
    """file of an M of the same shape to go on from, for finetune-steps instead of steps"""
    seed: Seed = 0
    """as that of `worldmodels run`: fixes initial weights, order, noise and masks"""
    device: Device = "cpu"
    """where to compute: cuda for a GPU"""
    run: FolderPath | None = None
    """run folder that gets the metrics; None writes nothing"""

    @classmethod
    def defaults(cls, preset: RunConfig, flags: Mapping[str, str]) -> Self:
        """The preset's M."""
        return cls(
            preset=flags.get("preset", DEFAULT_PRESET),
            latents=tyro.MISSING,
            out=tyro.MISSING,
            memory=preset.memory,
            memory_training=preset.memory_training,
        )

    @classmethod
    def environment(cls, flags: Mapping[str, str]) -> str | None:
        """That of the latents."""
        return data_env(flags, "latents")

    def ignored(self) -> Mapping[str, str]:
        """What is for fine-tuning, for training from scratch, or for several iterations."""
        found = of_fine_tuning("memory-training", True, self.init)
        if len(self.latents) == 1:
            found["memory.newest-repeats"] = "there is one file of latents, and none is the newest"
        return found

    def execute(self) -> None:
        """Train every member of the ensemble and write the file."""
        require_device(self.device)
        use_all_cores()
        parts = load_latents(self.latents)
        init = self._init(parts[-1])
        files = [file_digest(path) for path in (*self.latents, *([self.init] if self.init else []))]
        inputs = [self.memory, self.memory_training, files]
        with open_stage(
            "memory",
            self.out,
            inputs,
            self.run,
            seed=self.seed,
            iteration=len(parts) - 1,
            device=self.device,
        ) as ctx:
            file = stages.train_memory(
                self.memory,
                self.memory_training,
                parts,
                ctx,
                init=init,
            )
            file.save(self.out)
        frames = sum(part.latents.num_frames for part in parts)
        print(f"M, trained on {frames:,} frames: {self.out}")

    def _init(self, latents: LatentsFile) -> MemoryFile | None:
        """The M to fine-tune.

        Raises:
            UserError: it is of another environment or another shape.
        """
        if self.init is None:
            return None
        init = MemoryFile.load(self.init)
        require_same(self.init, init.source, self.latents[0], latents.source)
        kind = init.reward.kind if self.memory.reward == "auto" else self.memory.reward
        size = latents.source.action_spec.size
        self._check_init(init, self.memory.network(latents.latents.z_dim, size, kind))
        return init

    def _check_init(self, init: MemoryFile, shape: MemoryConfig) -> None:
        if init.models[0].cfg != shape or len(init.models) != self.memory.ensemble:
            raise UserError(
                f"{self.init} holds {len(init.models)} of {init.models[0].cfg}; "
                f"asked for are {self.memory.ensemble} of {shape}"
            )
