"""What the commands of single stages share: resuming, and what they write into a run folder."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from worldmodels.executors import usable_cores
from worldmodels.experience.folders import MANIFEST, shard_files
from worldmodels.protocols import UserError
from worldmodels.runs import RunFolder, config_hash


class Stage:
    """One stage at work: where it resumes from, and the run folder that it reports to, if any."""

    def __init__(self, name: str, metrics: str, state: Path, run: Path | None) -> None:
        """Open the run folder; use `open_stage`."""
        self.name, self.metrics, self.state = name, metrics, state
        self.run = None if run is None else RunFolder(run)

    def log(self, **metrics: Any) -> None:
        """Add a line of metrics to the run folder."""
        if self.run is not None:
            self.run.log(self.metrics, iteration=0, **metrics)

    def count_frames(self, kind: str, frames: int) -> None:
        """Enter frames into the run folder's ledger, less those that the same work entered before.

        So a stage that is repeated counts nothing, and one that is extended counts what is new.
        """
        if self.run is None:
            return
        work = f"{self.name}/{self.state.name}/"
        entries = self.run.frames()["entries"]
        known = sum(entry["frames"] for entry in entries if entry["key"].startswith(work))
        if frames > known:
            self.run.count_frames(kind, frames - known, f"{work}{frames}")


@contextmanager
def open_stage(
    name: str, out: Path, inputs: Any, run: Path | None, metrics: str = ""
) -> Iterator[Stage]:
    """Work on a stage that can be interrupted.

    Args:
        name: of the stage, as the pipeline calls it.
        out: what it makes; its checkpoints lie in a hidden folder beside it until it is done.
        inputs: all that the result depends on; a checkpoint of other inputs is thrown away.
        run: run folder for metrics, seconds and frames; None for none.
        metrics: name of the stage's lines of metrics, where it is another.
    """
    target = out.absolute()
    folder = target.with_name(f".{target.name}-resume")
    state = folder / config_hash([name, inputs])[:16]
    resumed = state.exists()  # the first checkpoint makes it
    if not resumed:
        shutil.rmtree(folder, ignore_errors=True)
    stage = Stage(name, metrics or name, state, run)
    if stage.run is not None and not resumed:
        stage.run.forget(stage.metrics)
    began = time.perf_counter()
    yield stage
    if stage.run is not None:
        stage.run.log("stage", name=name, iteration=0, seconds=time.perf_counter() - began)
    shutil.rmtree(folder, ignore_errors=True)


def episode_folders(given: Sequence[Path]) -> list[Path]:
    """Folders of shards: those given, or what lies in them where they hold several collections.

    Raises:
        UserError: one does not exist or has no episodes.
    """
    found = []
    for folder in given:
        inside = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
        if not folder.is_dir():
            raise UserError(
                f"there is no folder of episodes {folder}; `worldmodels collect` makes one"
            )
        found += [folder] if shard_files(folder) or not inside else inside
    return found


def use_all_cores() -> None:
    """Let torch compute on every usable core, unless OMP_NUM_THREADS says otherwise."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(usable_cores())
