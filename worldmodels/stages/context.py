"""The context of every stage, beside its configuration and inputs: seed, iteration, folders."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldmodels.executors import Executor
from worldmodels.metrics import StageSeconds
from worldmodels.protocols import UserError
from worldmodels.runs import Device, Log, RunFolder, config_hash, derive_seed

SUMMARIES = {
    "collect": "collection",
    "memory": "memory_calibration",
    "select": "selection",
    "final": "final",
    "residual": "residual_selection",
    "ensemble": "ensemble_selection",
}
"""What a stage logs once, at its end; a stage that restarts or resumes replaces it."""


@dataclass(frozen=True)
class StageContext:
    """Where a stage works, and the seed of its random numbers."""

    seed: int = 0
    """of the run; a stage derives its own seeds from it"""
    iteration: int | None = 0
    """part of the derived seeds (None: work outside of a run)"""
    state: Path | None = None
    """folder that the stage resumes from (default: no checkpoints)"""
    run: RunFolder | None = None
    """gets the metrics (default: do not log)"""
    executor: Executor | None = None
    """where episodes run (default: in this process)"""
    device: Device = "cpu"
    """where V and M are trained; policies act on the CPU"""
    key: str = ""
    """hash of the stage's inputs: checkpoints of other inputs are refused"""
    ledger: str = ""
    """name of the work in the ledger of frames"""
    grows: bool = False
    """whether the same work may be extended, as a longer collection extends a shorter one"""

    def seed_for(self, purpose: str, *parts: int | str) -> int:
        """Seed of one purpose of this iteration."""
        iteration = () if self.iteration is None else (self.iteration,)
        return derive_seed(self.seed, purpose, *iteration, *parts)

    def checkpoint(self, name: str) -> Path | None:
        """File that the stage resumes from."""
        return None if self.state is None else self.state / name

    def log(self, stage: str, **metrics: Any) -> None:
        """Add a line of metrics to the run folder."""
        if self.run is not None:
            self.run.log(stage, iteration=self.iteration, **metrics)

    def say(self, text: str) -> None:
        """Print a result."""
        print(f"== {text}", flush=True)

    def count_frames(self, kind: str, frames: int) -> None:
        """Enter frames into the ledger, minus those that the same work entered before."""
        if self.run is None or not frames:
            return
        if not self.grows:
            where = self.ledger.removeprefix("controller/")
            self.run.ledger.add(kind, frames, f"dream/{where}" if kind == "dream" else where)
            return
        work = f"{self.ledger}/{kind}/"
        entries = [entry for entry in self.run.ledger.read()["entries"] if entry["kind"] == kind]
        known = sum(entry["frames"] for entry in entries if entry["key"].startswith(work))
        if frames > known:
            self.run.ledger.add(kind, frames - known, f"{work}{frames}")


@contextmanager
def open_stage(
    name: str,
    out: Path,
    inputs: Any,
    run: Path | None = None,
    *,
    seed: int = 0,
    iteration: int = 0,
    executor: Executor | None = None,
    device: Device = "cpu",
    log: Log = (),
) -> Iterator[StageContext]:
    """Run one stage outside of `worldmodels run`; the next call resumes an interrupted one.

    Checkpoints lie in a hidden folder beside ``out`` until it is done, under a hash of ``inputs``:
    all that the result depends on, beside seed and iteration. Those of other inputs are deleted.
    The run folder, if there is one, is locked, and gets the metrics, the seconds and the frames;
    the metrics also go to the sinks in ``log``.
    """
    if log and run is None:
        raise UserError(f"--log {' '.join(log)} writes into a run folder; name one with --run")
    opened = None if run is None else RunFolder(run, log=log)
    with nullcontext() if opened is None else opened.lock():
        target = out.absolute()
        folder = target.with_name(f".{target.name}-resume")
        key = config_hash([name, inputs, seed, iteration])[:16]
        resumed = (folder / key).exists()  # the first checkpoint makes it
        if not resumed:
            shutil.rmtree(folder, ignore_errors=True)
        ctx = StageContext(
            seed, iteration, folder / key, opened, executor, device, key, f"{name}/{key}", True
        )
        with timed(name, ctx, resumed):
            yield ctx
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def timed(name: str, ctx: StageContext, resumed: bool) -> Iterator[None]:
    """Drop a stage's earlier metrics, unless it resumes from a checkpoint; log its seconds."""
    if ctx.run is not None:
        if not resumed:
            ctx.run.forget(name, ctx.iteration)
        if name in SUMMARIES:
            ctx.run.forget(SUMMARIES[name], ctx.iteration)
        ctx.run.forget("stage", ctx.iteration, name)
    began = time.perf_counter()
    yield
    ctx.log("stage", **StageSeconds(name=name, seconds=time.perf_counter() - began))
