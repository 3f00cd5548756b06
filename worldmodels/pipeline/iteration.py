"""One iteration of a run: its files, and what the next stages read from them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from worldmodels import stages
from worldmodels._agent_files import CARD, CONFIG, PARTS
from worldmodels.agent import Agent
from worldmodels.experience.store import EpisodeStore
from worldmodels.protocols import UserError
from worldmodels.run_config import RunConfig
from worldmodels.runs import atomic_path
from worldmodels.stages import Candidates, LatentsFile, MemoryFile, StageContext, VisionFile
from worldmodels.stages.collection import snapshot_folders
from worldmodels.stages.controller import Evolved

SMALL = (CONFIG, CARD, "controller.safetensors")
"""Files of an agent that the selection of C writes again."""


def agent_files(agent: Path) -> list[Path]:
    """Files of an agent's own in its folder."""
    return [agent / name for name in (CONFIG, CARD, *(f"{part}.safetensors" for part in PARTS))]


class Iteration:
    """One pass through the loop, and the folder of its results."""

    def __init__(self, number: int, folder: Path) -> None:
        """Name the files in ``folder``, which lies in ``iterations`` of the run folder."""
        self.number, self.folder = number, folder
        self.keys: dict[str, str] = {}
        """stage -> key, of the stages that are done"""
        self.vision = folder / "vision.safetensors"
        self.memory = folder / "memory.safetensors"
        self.candidates = folder / "controllers.safetensors"
        """snapshots of C"""
        self.agent = folder / "agent"
        """agent with the iteration's best controller, float32"""
        self.evolved = folder / "evolved"
        """the agent's small files as evolution left them, before selection"""

    @property
    def experience(self) -> Path:
        """Folder of the iteration's episodes; its name has the key, since shards are immutable."""
        run = self.folder.parent.parent
        return run / "experience" / f"{self.number:02d}-{self.keys['collect'][:8]}"

    def latents(self, number: int) -> Path:
        """Latents of an iteration's episodes under this one's V."""
        return self.folder / f"latents-{number:02d}.safetensors"

    def keep_evolved(self) -> None:
        """Copy the agent's small files, so that a selection can be repeated."""
        for name in SMALL:
            copy_file(self.agent / name, self.evolved / name)

    def restore_evolved(self) -> None:
        """Undo a selection, except in runs of earlier versions, which lack the copies."""
        for name in SMALL if self.evolved.is_dir() else ():
            copy_file(self.evolved / name, self.agent / name)

    def load_vision(self) -> VisionFile:
        """The iteration's V."""
        return VisionFile.load(_existing(self.vision))

    def load_memory(self) -> MemoryFile:
        """The iteration's M."""
        return MemoryFile.load(_existing(self.memory))

    def load_latents(self) -> list[LatentsFile]:
        """Latents of every iteration so far under this one's V, the newest last."""
        return [LatentsFile.load(self.latents(number)) for number in range(self.number + 1)]

    def evolve(
        self,
        cfg: RunConfig,
        previous: Iteration | None,
        ctx: StageContext,
        memories: Sequence[MemoryFile] = (),
    ) -> Evolved:
        """Evolve C in the dream of some memories, the newest first (default: `dreaming`).

        With ``cfg.controller.warm_start`` the search begins at the previous iteration's C.
        """
        begin = previous if cfg.controller.warm_start else None
        dreams = [] if memories else dreaming(cfg, self.number)
        folders = {number: self.folder.parent / f"{number:02d}" for number in dreams}
        own = [Iteration(number, folder).load_memory() for number, folder in folders.items()]
        return stages.evolve_controller(
            cfg.controller,
            cfg.dream,
            cfg.starts,
            self.load_vision(),
            memories or own,
            self.load_latents(),
            ctx,
            init=None if begin is None else Agent.from_pretrained(begin.agent),
        )

    def policies(self, which: str) -> list[Path]:
        """Folders for `load_policy`: the iteration's agent ("selected"), or one per snapshot."""
        if which == "selected":
            return [self.agent]
        snapshots = Candidates.load(self.candidates).snapshots
        return snapshot_folders(self.agent, snapshots, self.folder / "drivers")


def _existing(path: Path) -> Path:
    """The path of V or M; `UserError` without it, as in runs of versions that wrote pickles."""
    if not path.exists():
        raise UserError(
            f"{path} does not exist; an earlier version may have made this run, and its files of "
            "weights are not read any more: start the run again in a new folder"
        )
    return path


def store_of(iterations: Sequence[Iteration]) -> EpisodeStore:
    """All episodes of some iterations, in order."""
    return EpisodeStore([iteration.experience for iteration in iterations])


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, atomically."""
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def dreaming(cfg: RunConfig, number: int) -> list[int]:
    """Iterations whose memories dream in this one, the newest first; they share its V.

    `ControllerStageConfig.memory_iterations` limits their number.
    """
    oldest = max(earlier for earlier in range(number + 1) if cfg.trains_vision(earlier))
    return [*range(number, oldest - 1, -1)][: cfg.controller.memory_iterations]
