"""One iteration of a run: the folder of its results, read and written."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from worldmodels._agent_files import CARD, CONFIG, PARTS
from worldmodels.experience.store import EpisodeStore
from worldmodels.memory.interface import Memory
from worldmodels.presets import RunConfig
from worldmodels.protocols import UserError
from worldmodels.runs import atomic_path
from worldmodels.stages.controller import Candidates
from worldmodels.stages.files import LatentsFile, MemoryFile, VisionFile, episode_folders
from worldmodels.vision.latents import Latents

SMALL = (CONFIG, CARD, "controller.safetensors")
"""Files of an agent that the selection of C writes anew; the others stay as they were."""


def agent_files(agent: Path) -> list[Path]:
    """Files of an agent's own in its folder."""
    return [agent / name for name in (CONFIG, CARD, *(f"{part}.safetensors" for part in PARTS))]


@dataclass
class Iteration:
    """One round of the loop and the folder of its results."""

    number: int
    folder: Path
    keys: dict[str, str] = field(default_factory=dict)
    """stage -> key, of the stages that are done"""

    @property
    def agent(self) -> Path:
        """Agent with the iteration's best controller, float32."""
        return self.folder / "agent"

    @property
    def vision(self) -> Path:
        """V."""
        return self.folder / "vision.safetensors"

    @property
    def candidates(self) -> Path:
        """Snapshots of C."""
        return self.folder / "controllers.safetensors"

    @property
    def experience(self) -> Path:
        """Folder of the iteration's episodes; it bears the key, since shards are immutable."""
        run = self.folder.parent.parent
        return run / "experience" / f"{self.number:02d}-{self.keys['collect'][:8]}"

    def latents(self, number: int) -> Path:
        """Latents of an iteration's episodes under this one's V."""
        return self.folder / f"latents-{number:02d}.safetensors"

    @property
    def memory(self) -> Path:
        """M, one or an ensemble, and what its reward head means."""
        return self.folder / "memory.safetensors"

    @property
    def evolved(self) -> Path:
        """Folder of the agent's small files as evolution left them, before selection."""
        return self.folder / "evolved"

    @property
    def evolved_files(self) -> list[Path]:
        """What the evolution of C leaves: of the agent, what selection does not change."""
        own = [path for path in agent_files(self.agent) if path.name not in SMALL]
        return [self.candidates, self.evolved, *own]

    @property
    def selected_files(self) -> list[Path]:
        """What the selection of C leaves: of the agent, what it has written anew."""
        return [self.agent / name for name in SMALL]

    def keep_evolved(self) -> None:
        """Copy the agent's small files, so that a selection can begin from them again."""
        for name in SMALL:
            copy_file(self.agent / name, self.evolved / name)

    def restore_evolved(self) -> None:
        """Undo a selection; runs of earlier versions kept nothing to do it from."""
        for name in SMALL if self.evolved.is_dir() else ():
            copy_file(self.evolved / name, self.agent / name)

    def load_vision(self) -> VisionFile:
        """V as the iteration left it."""
        return VisionFile.load(_existing(self.vision))

    def load_memory(self) -> MemoryFile:
        """The memories as the iteration left them."""
        return MemoryFile.load(_existing(self.memory))

    def load_latents(self) -> list[Latents]:
        """Latents of every iteration so far under this one's V, the newest last."""
        return [LatentsFile.load(self.latents(number)).latents for number in range(self.number + 1)]

    def load_candidates(self) -> Candidates:
        """What the iteration's evolution left for the selection."""
        return Candidates.load(self.candidates)


def _existing(path: Path) -> Path:
    """The path of V or M.

    Raises:
        UserError: there is no such file, as in runs of versions that wrote pickles.
    """
    if not path.exists():
        raise UserError(
            f"{path} does not exist; an earlier version may have made this run, and its files of "
            "weights are not read any more: start the run again in a new folder"
        )
    return path


def store_of(iterations: Sequence[Iteration]) -> EpisodeStore:
    """All episodes of some iterations, in order."""
    return EpisodeStore(episode_folders([iteration.experience for iteration in iterations]))


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, atomically."""
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def dreaming_rounds(cfg: RunConfig, number: int) -> list[int]:
    """Iterations whose memories dream in this one, the newest first.

    Iterations share V from the last one that trained it; `ControllerStageConfig.memory_rounds` says
    how many of them count.
    """
    oldest = max(earlier for earlier in range(number + 1) if cfg.trains_vision(earlier))
    return [*range(number, oldest - 1, -1)][: cfg.controller.memory_rounds]


def dreaming_memories(this: Iteration, rounds: Sequence[int]) -> list[Memory]:
    """The memories of some iterations, in the order given."""
    folders = {number: this.folder.parent / f"{number:02d}" for number in rounds}
    return [
        memory
        for number in rounds
        for memory in Iteration(number, folders[number]).load_memory().models
    ]
