"""`worldmodels train-vision` and `worldmodels encode`: V, and the frames as V sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import tyro

from worldmodels.commands.files import LatentsFile, Source, VisionFile, require_same
from worldmodels.commands.parsing import DEFAULT_PRESET, PresetName
from worldmodels.commands.stage import episode_folders, open_stage, use_all_cores
from worldmodels.experience.store import EpisodeStore
from worldmodels.pipeline.model import sample_frames, split
from worldmodels.presets import RunConfig
from worldmodels.protocols import UserError
from worldmodels.runs import Device, FilePath, FolderPath, derive_seed, progress, require_device
from worldmodels.vision.latents import encode_episodes
from worldmodels.vision.train import VisionTrainConfig, train_vision
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
    """folders of episodes, from `worldmodels collect`"""
    out: FilePath
    """file for V"""
    vision: VAEConfig
    """shape of V"""
    vision_training: VisionTrainConfig
    """training of V"""
    init: Path | None = None
    """file of a V of the same shape to go on from, for finetune-steps instead of steps"""
    seed: int = 0
    """fixes initial weights, order and noise"""
    device: Device = "cpu"
    """where to compute: cuda for a graphics card"""
    run: FolderPath | None = None
    """run folder that gets the metrics; None for none"""

    @classmethod
    def defaults(cls, preset: RunConfig, flags: Mapping[str, str]) -> Self:
        """The preset's V."""
        return cls(
            preset=flags.get("preset", DEFAULT_PRESET),
            data=tyro.MISSING,
            out=tyro.MISSING,
            vision=preset.vision,
            vision_training=preset.vision_training,
        )

    def execute(self) -> None:
        """Train and write the file."""
        require_device(self.device)
        use_all_cores()
        store = EpisodeStore(episode_folders(self.data))
        train, holdout = split(store)
        source, init = Source.of(store), self._init()
        if init is not None and self.init is not None:
            require_same(self.init, init.source, self.data[0], source)
        cfg, seed = self.vision_training, derive_seed(self.seed, "vision", 0)
        inputs = [self.vision, cfg, seed, store.fingerprint, init and init.digest]
        with open_stage("vision", self.out, inputs, self.run) as stage:
            model = train_vision(
                cfg,
                self.vision,
                lambda start: train.frame_batches(cfg.batch_size, seed, start=start),
                sample_frames(holdout, 512),
                seed=seed,
                init=None if init is None else init.model.state_dict(),
                checkpoint=stage.state / "state.pt",
                log=stage.log,
                device=self.device,
            ).cpu()
            VisionFile(model, source).save(self.out)
        print(f"V, trained on {train.num_frames:,} frames: {self.out}")

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
    """folders of episodes, from `worldmodels collect`"""
    vision: Path
    """file of V, from `worldmodels train-vision`"""
    out: FilePath
    """file for the latents (safetensors)"""
    device: Device = "cpu"
    """where to compute: cuda for a graphics card"""
    run: FolderPath | None = None
    """run folder that gets the seconds taken; None for none"""

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
        inputs = [vision.digest, store.fingerprint]
        with open_stage("encode", self.out, inputs, self.run):
            indices = progress(range(len(store)), "encoding", unit="episodes")
            episodes = (store.read(index) for index in indices)
            model = vision.model.to(self.device)
            latents = encode_episodes(model, episodes, store.action_spec)
            LatentsFile(latents, vision.source, vision.digest).save(self.out)
        print(f"{latents.num_frames:,} frames of {latents.num_episodes} episodes: {self.out}")
