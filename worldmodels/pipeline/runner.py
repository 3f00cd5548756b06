"""Runs the stages of a run folder: each once, resumed where it was killed, with ledger and page."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from worldmodels.pages import build_report
from worldmodels.pipeline.iteration import Iteration
from worldmodels.pipeline.schedule import Schedule
from worldmodels.protocols import UserError
from worldmodels.run_config import RunConfig
from worldmodels.runs import LedgerEntry, RunFolder, config_hash
from worldmodels.stages import StageContext
from worldmodels.stages.context import timed

PAGE_SECONDS, PAGE_FRACTION = 20.0, 0.05
"""While the run lasts, its report is written at most once in so many seconds, and takes at most
this fraction of the run's time."""

Work: TypeAlias = Callable[[StageContext], Any]
"""Runs a stage; returns figures for later stages and the report, in a dict or dataclass."""


class Runner:
    """Runs stages whose inputs have changed, and knows what all of them found."""

    def __init__(self, run: RunFolder, cfg: RunConfig, context: StageContext) -> None:
        """Stages run in a copy of ``context`` each, with their own key and checkpoints."""
        self.context = context
        self._run, self._schedule, self._iterations = run, Schedule(cfg), cfg.iterations
        self._results: dict[str, str] = {}
        """key of a finished stage -> hash of its result"""
        self._frames: list[LedgerEntry] = []
        """what the finished stages entered into the ledger"""
        self._next_page = 0.0

    def stage(
        self,
        name: str,
        iteration: Iteration,
        inputs: Any,
        work: Work,
        files: Callable[[], Sequence[Path]],
    ) -> None:
        """Do the work unless it is done with these inputs; the iteration gets the stage's key.

        The inputs are the stage's settings and the keys of the stages that it reads; ``files``,
        called when the key is known, returns what the stage writes.
        """
        number = iteration.number
        key = config_hash([name, number, self.context.seed, inputs])
        label, iteration.keys[name] = f"{name}/{number:02d}", key
        sources = config_hash([self._results[read] for read in _keys(inputs, self._results)])
        if not self._run.stage_done(label, key, sources, files()):
            self._announce(name, number)
            state = self._run.checkpoints / label.replace("/", "-")
            resumed = (state / "key").exists() and (state / "key").read_text() == key
            if not resumed:
                shutil.rmtree(state, ignore_errors=True)
                state.mkdir(parents=True)
                (state / "key").write_text(key)
            ledger = f"{label if number < self._iterations else name}/{key[:8]}"
            ctx = dataclasses.replace(
                self.context, iteration=number, state=state, key=key, ledger=ledger
            )
            with timed(name, ctx, resumed):
                outputs = work(ctx)
            self._run.mark_done(label, key, {} if outputs is None else outputs, files(), sources)
            shutil.rmtree(state, ignore_errors=True)
        self._results[key], frames = self._run.stage_found(label)
        self._frames += frames

    def _announce(self, name: str, number: int) -> None:
        """Say that a stage begins and how far the run is, and write the report as it stands."""
        self._schedule.measured(self._run.metrics("stage"))
        place = self._schedule.place(name, number)
        self.context.say(f"{name}/{number:02d}: {place}")
        began = time.monotonic()
        if began >= self._next_page:
            with contextlib.suppress(UserError):  # a damaged file, which its stage makes again
                build_report(self._run.path, running=f"{name}, {place}")
            now = time.monotonic()
            self._next_page = now + max(PAGE_SECONDS, (now - began) / PAGE_FRACTION)

    def settle(self) -> None:
        """Count in the ledger what the stages that ran or were found cost, and nothing else."""
        self._run.ledger.settle({key[:8] for key in self._results}, self._frames)


def _keys(inputs: Any, known: Mapping[str, str]) -> list[str]:
    """The keys of stages among some inputs, in their order."""
    if isinstance(inputs, str):
        return [inputs] if inputs in known else []
    if isinstance(inputs, list):
        return [key for part in inputs for key in _keys(part, known)]
    return []
