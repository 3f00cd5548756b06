"""Runs a tiny pipeline in a process of its own, so that a test can kill it.

OUT SEED runs it once. OUT SEED KILLS TIMES lets so many processes run it, one after the other, each
a copy of this one, which has imported everything; their exit statuses are printed.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from worldmodels import runs
from worldmodels.pipeline import run_pipeline
from worldmodels.pipeline.runner import Runner
from worldmodels.presets import PRESETS
from worldmodels.run_config import DEFAULT_ENV, RunConfig


def tiny(env_id: str = DEFAULT_ENV) -> RunConfig:
    """The smoke preset without its films and with the fast environment in the test."""
    cfg = PRESETS["smoke"](env_id)
    test = dataclasses.replace(cfg.test, videos=False, random_policy=False, max_steps=20)
    selection = dataclasses.replace(cfg.selection, max_steps=20)
    return dataclasses.replace(cfg, test=test, selection=selection, test_env_id=cfg.env_id)


def kill_in_each_stage(kills: Path) -> None:
    """Kill this process, as a power cut would, in the first stage that it was not yet killed in.

    The moment is that at which the stage has written its first file: a checkpoint, a shard, a
    result. ``kills`` lists the stages, and outlives the process.
    """
    stage: Callable[..., None] = Runner.stage
    write: Callable[..., None] = os.replace
    now: list[str] = []

    def watched(self: Any, name: str, iteration: Any, inputs: Any, work: Any, files: Any) -> None:
        def begun(ctx: Any) -> Any:
            now[:] = [f"{name}/{iteration.number:02d}"]
            try:
                return work(ctx)
            finally:
                now.clear()

        stage(self, name, iteration, inputs, begun, files)

    def replace(*args: Any, **kwargs: Any) -> None:
        write(*args, **kwargs)
        done = kills.read_text().split() if kills.exists() else []
        if now and now[0] not in done:
            kills.write_text(" ".join([*done, now[0]]))
            os.kill(os.getpid(), signal.SIGKILL)

    Runner.stage, os.replace = watched, replace  # type: ignore[method-assign]  # the point


def run(kills: Path | None = None) -> None:
    """Run, or resume."""
    if kills is not None:
        kill_in_each_stage(kills)
    run_pipeline(tiny(), Path(sys.argv[1]), int(sys.argv[2]), workers=1, preset="tiny")
    assert runs.read_json(Path(sys.argv[1]) / "evaluation.json")


def main() -> None:
    """Run as often as the command line says."""
    torch.set_num_threads(1)
    if len(sys.argv) == 3:
        return run()
    for _ in range(int(sys.argv[4])):
        child = os.fork()
        if child == 0:
            run(Path(sys.argv[3]))
            os._exit(0)
        print("exit", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return None


if __name__ == "__main__":
    main()
