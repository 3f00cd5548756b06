"""What the commands of single stages share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from worldmodels.executors import usable_cores
from worldmodels.experience.store import EpisodeStore
from worldmodels.presets import ControllerStageConfig
from worldmodels.protocols import UserError
from worldmodels.stages.files import LatentsFile, VisionFile, episode_folders
from worldmodels.vision.train import VisionTrainConfig

OfRunInt = Annotated[int, tyro.conf.Fixed, tyro.conf.Suppress]
"""A number that only `worldmodels run` uses: other commands neither show nor take it."""
OfRunBool = Annotated[bool, tyro.conf.Fixed, tyro.conf.Suppress]
"""The same for a switch."""


@dataclass(frozen=True)
class VisionTraining(VisionTrainConfig):
    """How V is trained."""

    finetune_rounds: OfRunInt = 1

    @classmethod
    def of(cls, cfg: VisionTrainConfig) -> VisionTraining:
        """The settings of a run, as far as one training uses them."""
        return cls(**vars(cfg))


@dataclass(frozen=True)
class ControllerSettings(ControllerStageConfig):
    """C: what it sees, and how it is evolved."""

    memory_rounds: OfRunInt = 1
    carry_on: OfRunBool = True

    @classmethod
    def of(cls, cfg: ControllerStageConfig) -> ControllerSettings:
        """The settings of a run, as far as one evolution uses them."""
        return cls(**vars(cfg))


def data_env(words: Mapping[str, str], option: str) -> str | None:
    """The environment that a command's first input is of; None where it cannot be read yet.

    Args:
        words: the command line, as `parsing.read_flags` gives it.
        option: "data", "latents" or "vision".
    """
    path = words.get(option)
    if not path:
        return None
    try:
        if option == "data":
            return EpisodeStore(episode_folders([Path(path)])).env_id
        kind = LatentsFile if option == "latents" else VisionFile
        return kind.load(Path(path)).source.env_id
    except UserError:  # the command reads it again, and says what is wrong with it
        return None


def of_fine_tuning(training: str, peak: bool, init: object) -> dict[str, str]:
    """Options of a training that have no effect with or without ``--init``.

    Args:
        training: name of the training's settings.
        peak: whether fine-tuning has a learning rate of its own.
        init: value of the option.
    """
    names = ["steps", *(["learning-rate"] if peak else [])]
    if init is None:
        why = "it is for fine-tuning; give --init, or take steps"
        return {f"{training}.finetune-{name}": why for name in names}
    why = "it is for a training from scratch; --init fine-tunes, for finetune-steps"
    return {f"{training}.{name}": why for name in names}


def use_all_cores() -> None:
    """Let torch compute on every usable core, unless OMP_NUM_THREADS says otherwise."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(usable_cores())
