"""`worldmodels train-vision` and `worldmodels encode`: V, and the frames as V sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import tyro

from worldmodels import stages
from worldmodels.commands.parsing import DEFAULT_PRESET, PresetName
from worldmodels.commands.stage import VisionTraining, data_env, of_fine_tuning, use_all_cores
from worldmodels.config import Seed
from worldmodels.experience.store import EpisodeStore
from worldmodels.presets import RunConfig
from worldmodels.protocols import UserError
from worldmodels.runs import Device, FilePath, FolderPath, require_device
from worldmodels.stages.context import open_stage
from worldmodels.stages.files import (
    Source,
    VisionFile,
    episode_folders,
    require_same,
)
from worldmodels.vision.vae import VAEConfig


@dataclass(frozen=True)
class TrainVision:
    """Train V, the variational auto-encoder, on the frames of collected episodes.

    One episode in twenty is kept for the validation loss. The same command again goes on where it
    was stopped.
    """

    preset: PresetName
    """where the settings come from"""
    data: tuple[Path, ...]
    """folders of episodes, from `worldmodels collect`, one for each iteration, the newest last"""
    out: FilePath
    """file for V"""
    vision: VAEConfig
    """shape of V"""
    vision_training: VisionTraining
    """training of V"""
    mirror: bool
    """train on horizontal flips of the frames too; only where the task has a symmetry"""
    init: Path | None = None
    """file of a V of the same shape to go on from, for finetune-steps instead of steps"""
    seed: Seed = 0
    """as that of `worldmodels run`: fixes initial weights, order and noise"""
    device: Device = "cpu"
    """where to compute: cuda for a GPU"""
    run: FolderPath | None = None
    """run folder that gets the metrics; None writes nothing"""

    @classmethod
    def defaults(cls, preset: RunConfig, flags: Mapping[str, str]) -> Self:
        """The preset's V."""
        return cls(
            preset=flags.get("preset", DEFAULT_PRESET),
            data=tyro.MISSING,
            out=tyro.MISSING,
            vision=preset.vision,
            vision_training=VisionTraining.of(preset.vision_training),
            mirror=preset.mirror,
        )

    @classmethod
    def environment(cls, flags: Mapping[str, str]) -> str | None:
        """That of the episodes."""
        return data_env(flags, "data")

    def ignored(self) -> Mapping[str, str]:
        """What is only for fine-tuning, or only for training from scratch."""
        return of_fine_tuning("vision-training", False, self.init)

    def execute(self) -> None:
        """Train and write the file."""
        require_device(self.device)
        use_all_cores()
        store = EpisodeStore(episode_folders(self.data))
        source, init = Source.of(store), self._init()
        if init is not None and self.init is not None:
            require_same(self.init, init.source, self.data[0], source)
        training = self.vision_training
        inputs = [self.vision, training, self.mirror, store.fingerprint, init and init.digest]
        with open_stage(
            "vision",
            self.out,
            inputs,
            self.run,
            seed=self.seed,
            iteration=len(self.data) - 1,
            device=self.device,
        ) as ctx:
            file = stages.train_vision(
                training,
                self.vision,
                store,
                ctx,
                mirror=self.mirror,
                init=init,
            )
            file.save(self.out)
        print(f"V, trained on the frames of {len(store):,} episodes: {self.out}")

    def _init(self) -> VisionFile | None:
        if self.init is None:
            return None
        file = VisionFile.load(self.init)
        if file.model.cfg != self.vision:
            raise UserError(f"{self.init} holds {file.model.cfg}; asked for is {self.vision}")
        return file


@dataclass(frozen=True)
class Encode:
    """Encode all frames of collected episodes with V; M learns from the result."""

    data: tuple[Path, ...]
    """folders of episodes, from `worldmodels collect`, of one iteration"""
    vision: Path
    """file of V, from `worldmodels train-vision`"""
    out: FilePath
    """file for the latents (safetensors)"""
    mirror: bool | None = None
    """encode the horizontal flip of each episode too; None does so if V was trained on flips"""
    device: Device = "cpu"
    """where to compute: cuda for a GPU"""
    run: FolderPath | None = None
    """run folder that gets the seconds taken; None writes nothing"""

    @classmethod
    def defaults(cls, preset: RunConfig, flags: Mapping[str, str]) -> Self:
        """Nothing has a default."""
        return cls(data=tyro.MISSING, vision=tyro.MISSING, out=tyro.MISSING)

    def execute(self) -> None:
        """Encode and write the file."""
        require_device(self.device)
        use_all_cores()
        vision = VisionFile.load(self.vision)
        store = EpisodeStore(episode_folders(self.data))
        require_same(self.vision, vision.source, self.data[0], Source.of(store))
        mirror = vision.mirror if self.mirror is None else self.mirror
        inputs = [vision.digest, store.fingerprint, mirror]
        with open_stage("encode", self.out, inputs, self.run, device=self.device) as ctx:
            file = stages.encode(vision, store, ctx, mirror=mirror)
            file.save(self.out)
        latents = file.latents
        print(f"{latents.num_frames:,} frames of {latents.num_episodes} episodes: {self.out}")
