"""The stages of learning as commands: from collected episodes to an agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from worldmodels import stages
from worldmodels.agent import Agent, find
from worldmodels.commands.parsing import Command, Input, PresetName
from worldmodels.config import Seed
from worldmodels.dream.config import DreamConfig
from worldmodels.experience.store import EpisodeStore
from worldmodels.memory.train import MemoryTrainConfig
from worldmodels.protocols import UserError
from worldmodels.runs import Device, FilePath, FolderPath, Log, file_digest, versions
from worldmodels.stage_configs import ControllerStageConfig, MemoryStageConfig, StartsConfig
from worldmodels.stages import LatentsFile, MemoryFile, Source, StageContext, VisionFile
from worldmodels.stages.files import (
    load_latents,
    load_memories,
    require_same,
    require_vision,
)
from worldmodels.vision.train import VisionTrainConfig
from worldmodels.vision.vae import VAEConfig

ONE_ITERATION = "only `worldmodels run` has several iterations"


@dataclass(frozen=True, kw_only=True)
class Stage(Command):
    """Options of all trainings."""

    preset: PresetName
    """where settings come from: smoke, quick or full"""
    out: FilePath
    """file to write"""
    seed: Seed = 0
    """random seed; with that of `worldmodels run` the result is the same as the run's"""
    device: Device = "cpu"
    """where to compute; cuda for a GPU"""
    run: FolderPath | None = None
    """run folder to log metrics and dreamt frames into (default: do not log)"""
    log: Log = ()
    """also write the metrics for tensorboard or wandb, or both, into the folder of --run"""

    def open(
        self, name: str, inputs: Sequence[Any], files: int
    ) -> AbstractContextManager[StageContext]:
        """Begin or resume the stage, in the last of as many iterations as there are ``files``."""
        return stages.open_stage(
            name,
            self.out,
            inputs,
            self.run,
            seed=self.seed,
            iteration=files - 1,
            device=self.device,
            log=self.log,
        )


@dataclass(frozen=True, kw_only=True)
class TrainVision(Stage):
    """Train V, the variational auto-encoder, on the frames of collected episodes.

    One episode in twenty is kept for the validation loss. The same command resumes an interrupted
    training.
    """

    common: ClassVar[str] = (
        "preset out seed device run log init horizontal-flip vision.z-dim vision.width "
        "vision-training.steps vision-training.finetune-steps vision-training.batch-size "
        "vision-training.learning-rate"
    )
    unused: ClassVar[Mapping[str, str]] = {"vision-training.finetune-iterations": ONE_ITERATION}
    reads: ClassVar[Input | None] = "data"

    data: tuple[Path, ...]
    """folders of `worldmodels collect`, one per iteration, the newest last"""
    vision: VAEConfig
    """shape of V"""
    vision_training: VisionTrainConfig
    """training of V"""
    horizontal_flip: bool
    """also train on horizontally flipped frames; only where the task has a symmetry"""
    init: Path | None = None
    """V of the same shape to fine-tune, for finetune-steps (default: train from scratch)"""

    def ignored(self) -> Mapping[str, str]:
        """Options for fine-tuning alone, or for training from scratch alone."""
        return _of_fine_tuning("vision-training", ["steps"], self.init)

    def execute(self) -> None:
        """Train and write the file."""
        store = EpisodeStore(self.data)
        source, init = Source.of(store), self._init()
        if init is not None and self.init is not None:
            require_same(self.init, init.source, self.data[0], source)
        training = self.vision_training
        digests = [store.fingerprint, init and init.digest]
        inputs = [self.vision, training, self.horizontal_flip, *digests]
        with self.open("vision", inputs, len(self.data)) as ctx:
            file = stages.train_vision(
                training, self.vision, store, ctx, horizontal_flip=self.horizontal_flip, init=init
            )
            file.save(self.out)
        print(f"V, trained on the frames of {len(store):,} episodes: {self.out}")

    def _init(self) -> VisionFile | None:
        if self.init is None:
            return None
        file = VisionFile.load(self.init)
        if file.model.cfg != self.vision:
            raise UserError(f"{self.init} holds {file.model.cfg}; expected {self.vision}")
        return file


@dataclass(frozen=True)
class Encode(Command):
    """Encode all frames of collected episodes with V; M learns from the result."""

    data: tuple[Path, ...]
    """folders of `worldmodels collect`, of one iteration"""
    vision: Path
    """V, from `worldmodels train-vision`"""
    out: FilePath
    """file to write (safetensors)"""
    horizontal_flip: bool | None = None
    """also encode each episode horizontally flipped (default: if V was trained on flips)"""
    device: Device = "cpu"
    """where to compute; cuda for a GPU"""
    run: FolderPath | None = None
    """run folder to log the seconds into (default: do not log)"""

    def execute(self) -> None:
        """Encode and write the file."""
        vision = VisionFile.load(self.vision)
        store = EpisodeStore(self.data)
        require_same(self.vision, vision.source, self.data[0], Source.of(store))
        flip = vision.horizontal_flip if self.horizontal_flip is None else self.horizontal_flip
        inputs = [vision.digest, store.fingerprint, flip]
        with stages.open_stage("encode", self.out, inputs, self.run, device=self.device) as ctx:
            file = stages.encode(vision, store, ctx, horizontal_flip=flip)
            file.save(self.out)
        latents = file.latents
        print(f"{latents.num_frames:,} frames of {latents.num_episodes} episodes: {self.out}")


@dataclass(frozen=True, kw_only=True)
class TrainMemory(Stage):
    """Train M, the model of the world, on latents.

    One episode in twenty is kept for the validation loss. The same command resumes an interrupted
    training.
    """

    common: ClassVar[str] = (
        "preset out seed device run log init memory.kind memory.ensemble memory.hidden-size "
        "memory.mixtures memory.reward memory-training.steps memory-training.finetune-steps "
        "memory-training.batch-size memory-training.learning-rate"
    )
    reads: ClassVar[Input | None] = "latents"

    latents: tuple[Path, ...]
    """files of `worldmodels encode` with one V, one per iteration, the newest last"""
    memory: MemoryStageConfig
    """shape of M"""
    memory_training: MemoryTrainConfig
    """training of M"""
    init: Path | None = None
    """M of the same shape to fine-tune, for finetune-steps (default: train from scratch)"""

    def ignored(self) -> Mapping[str, str]:
        """Options for fine-tuning, for training from scratch, or for several iterations."""
        found = _of_fine_tuning("memory-training", ["steps", "learning-rate"], self.init)
        if len(self.latents) == 1:
            found["memory.newest-repeats"] = "there is one file of latents, and none is the newest"
        return found

    def execute(self) -> None:
        """Train every member of the ensemble and write the file."""
        parts = load_latents(self.latents)
        init = self._init(parts[-1])
        files = [file_digest(path) for path in (*self.latents, *([self.init] if self.init else []))]
        inputs = [self.memory, self.memory_training, files]
        with self.open("memory", inputs, len(parts)) as ctx:
            file = stages.train_memory(self.memory, self.memory_training, parts, ctx, init=init)
            file.save(self.out)
        frames = sum(part.latents.num_frames for part in parts)
        print(f"M, trained on {frames:,} frames: {self.out}")

    def _init(self, latents: LatentsFile) -> MemoryFile | None:
        """The M to fine-tune, of the same environment and shape."""
        if self.init is None:
            return None
        init = MemoryFile.load(self.init)
        require_same(self.init, init.source, self.latents[0], latents.source)
        kind = init.reward.kind if self.memory.reward == "auto" else self.memory.reward
        shape = self.memory.network(latents.latents.z_dim, latents.source.action_spec.size, kind)
        if init.models[0].cfg != shape or len(init.models) != self.memory.ensemble:
            raise UserError(
                f"{self.init} holds {len(init.models)} of {init.models[0].cfg}; "
                f"expected {self.memory.ensemble} of {shape}"
            )
        return init


@dataclass(frozen=True, kw_only=True)
class TrainController(Stage):
    """Evolve C inside the dream of M and save V, M and C as an agent.

    The agent has the mean of the last generation; only `worldmodels run` selects by real episodes.
    The same command resumes an interrupted evolution.
    """

    common: ClassVar[str] = (
        "preset out seed device run log init dream.horizon dream.episodes dream.temperature "
        "starts.count controller.inputs controller.evolve.generations "
        "controller.evolve.strategy.name controller.evolve.strategy.population "
        "controller.evolve.strategy.sigma0"
    )
    unused: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("controller.memory-iterations", "controller.warm-start"), ONE_ITERATION
    )
    reads: ClassVar[Input | None] = "vision"

    vision: Path
    """V, from `worldmodels train-vision`"""
    memory: tuple[Path, ...]
    """files of `worldmodels train-memory`, the newest last: all of them dream, and C sees the
    newest one's h"""
    latents: tuple[Path, ...]
    """files of `worldmodels encode` with the same V that dreams begin at, one per iteration, the
    newest last"""
    out: FolderPath
    """folder of the agent to write"""
    dream: DreamConfig
    """the dream"""
    starts: StartsConfig
    """where dreams begin"""
    controller: ControllerStageConfig
    """C and its evolution"""
    init: str | None = None
    """agent whose controller the search begins at: its folder, its run's folder, or the name of a
    bundled one (default: begin at zero)"""

    def ignored(self) -> Mapping[str, str]:
        """Options for several iterations, or for a weight of states before an off-track run."""
        found = {}
        if len(self.latents) == 1:
            found["starts.newest-weight"] = "there is one file of latents, and none is the newest"
        if self.starts.off_track_weight == 1:
            why = "starts.off-track-weight is 1, so these states count as any other"
            found |= {"starts.off-track-before": why, "starts.off-track-streak": why}
        return found

    def execute(self) -> None:
        """Evolve and save the agent."""
        world = self._world()
        init = None if self.init is None else Agent.from_pretrained(self.init)
        begins = None if self.init is None else str(find(self.init))
        files = [file_digest(path) for path in (self.vision, *self.memory, *self.latents)]
        inputs = [self.dream, self.starts, self.controller, begins, files]
        with self.open("controller", inputs, len(self.latents)) as ctx:
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
        print(f"agent, evolved over {evolved.frames:,} dreamt frames: {self.out}")

    def _world(self) -> tuple[VisionFile, list[MemoryFile], list[LatentsFile]]:
        """V, M (the newest first) and latents, which must belong together."""
        vision, memories = VisionFile.load(self.vision), load_memories(self.memory)
        parts = load_latents(self.latents)
        for path, file in ((self.memory[-1], memories[-1]), (self.latents[0], parts[0])):
            require_same(path, file.source, self.vision, vision.source)
            require_vision(path, file.vision, self.vision, vision.digest)
        return vision, memories[::-1], parts


def _of_fine_tuning(training: str, names: Sequence[str], init: object) -> dict[str, str]:
    """Settings of a training without an effect, with or without the option ``--init``.

    Of ``names`` each way of training, from scratch and fine-tuning, has its own.
    """
    if init is None:
        why = "it is for fine-tuning; give --init, or take steps"
        return {f"{training}.finetune-{name}": why for name in names}
    why = "it is for a training from scratch; --init fine-tunes, for finetune-steps"
    return {f"{training}.{name}": why for name in names}
