"""`worldmodels train-memory`: M, from latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import tyro
from numpy.typing import NDArray

from worldmodels.commands.files import (
    LatentsFile,
    MemoryFile,
    file_digest,
    load_latents,
    require_same,
)
from worldmodels.commands.parsing import DEFAULT_PRESET, PresetName
from worldmodels.commands.stage import open_stage, use_all_cores
from worldmodels.memory.calibration import calibrate
from worldmodels.memory.mdn_rnn import MDNRNNConfig
from worldmodels.memory.train import MemoryTrainConfig, fit_reward_model, reward_kind, train_memory
from worldmodels.pipeline.model import HOLDOUT_EVERY
from worldmodels.presets import MemoryStageConfig, RunConfig
from worldmodels.protocols import UserError
from worldmodels.runs import Device, FilePath, FolderPath, derive_seed, require_device


@dataclass(frozen=True)
class TrainMemory:
    """Train M, the recurrent model of the world, on latents.

    One episode in twenty is kept for the validation loss. The same command again goes on where it
    was stopped.
    """

    preset: PresetName
    """where the settings come from"""
    latents: tuple[Path, ...]
    """files of latents, from `worldmodels encode`, all made by one V"""
    out: FilePath
    """file for M"""
    memory: MemoryStageConfig
    """shape of M; newest-repeats counts the last file of latents as the newest"""
    memory_training: MemoryTrainConfig
    """training of M"""
    init: Path | None = None
    """file of an M of the same shape to go on from, for finetune-steps instead of steps"""
    seed: int = 0
    """fixes initial weights, order, noise and masks"""
    device: Device = "cpu"
    """where to compute: cuda for a graphics card"""
    run: FolderPath | None = None
    """run folder that gets the metrics; None for none"""

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

    def execute(self) -> None:
        """Train every member of the ensemble and write the file."""
        require_device(self.device)
        use_all_cores()
        file = load_latents(self.latents)
        latents, held = file.latents, self._held(file)
        newest = LatentsFile.load(self.latents[-1]).latents.num_episodes
        repeats = np.ones(latents.num_episodes, np.int64)
        if len(self.latents) > 1:
            repeats[-newest:] = self.memory.newest_repeats
        holdout = latents.select(np.flatnonzero(held)) if held.any() else None
        init = self._init(file)
        kind = self.memory.reward
        if kind == "auto":
            kind = reward_kind(latents) if init is None else init.reward.kind
        shape = self.memory.network(latents.z_dim, file.source.action_spec.size, kind)
        self._check_init(init, shape)
        files = [file_digest(path) for path in (*self.latents, *([self.init] if self.init else []))]
        inputs = [self.memory, self.memory_training, self.seed, files]
        with open_stage("memory", self.out, inputs, self.run) as stage:
            reward = fit_reward_model(latents, kind)
            models = [
                train_memory(
                    self.memory_training,
                    shape,
                    reward,
                    latents,
                    seed=derive_seed(self.seed, "memory", 0, member),
                    holdout=holdout,
                    repeats=np.where(held, 0, repeats),
                    init=None if init is None else init.models[member].state_dict(),
                    checkpoint=stage.state / f"{member}.pt",
                    log=partial(stage.log, member=member),
                    device=self.device,
                ).cpu()
                for member in range(self.memory.ensemble)
            ]
            MemoryFile(models, reward, file.source, file.vision).save(self.out)
            if stage.run is not None:
                seed = derive_seed(self.seed, "calibration")
                figures = calibrate(models[0], reward, holdout or latents, seed=seed)
                stage.run.forget("memory_calibration")
                stage.run.log("memory_calibration", iteration=0, **figures)
        print(f"M, trained on {latents.num_frames:,} frames: {self.out}")

    @staticmethod
    def _held(file: LatentsFile) -> NDArray[np.bool_]:
        """(E,) episodes for validation; none where there is but one."""
        held: NDArray[np.bool_] = np.arange(file.latents.num_episodes) % HOLDOUT_EVERY == 0
        return np.zeros_like(held) if held.all() else held

    def _init(self, file: LatentsFile) -> MemoryFile | None:
        if self.init is None:
            return None
        init = MemoryFile.load(self.init)
        require_same(self.init, init.source, self.latents[0], file.source)
        return init

    def _check_init(self, init: MemoryFile | None, shape: MDNRNNConfig) -> None:
        if init is None:
            return
        if init.models[0].cfg != shape or len(init.models) != self.memory.ensemble:
            raise UserError(
                f"{self.init} holds {len(init.models)} of {init.models[0].cfg}; "
                f"asked for are {self.memory.ensemble} of {shape}"
            )
