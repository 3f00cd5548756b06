"""Runs a tiny pipeline in a process of its own, so that a test can kill it: OUT SEED [KILL_AT]."""

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
from worldmodels.presets import RunConfig, smoke


def tiny() -> RunConfig:
    """The smoke preset without its films and with the fast environment in the test."""
    cfg = smoke()
    test = dataclasses.replace(cfg.test, videos=False, random_driver=False, max_steps=20)
    selection = dataclasses.replace(cfg.selection, max_steps=20)
    return dataclasses.replace(cfg, test=test, selection=selection, test_env_id=cfg.env_id)


def kill_after(writes: int) -> None:
    """Kill this process, as a power cut would, when it has written so many files of its run."""
    real: Callable[..., None] = os.replace
    count = 0

    def replace(*args: Any, **kwargs: Any) -> None:
        nonlocal count
        real(*args, **kwargs)
        count += 1
        if count == writes:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace


def main() -> None:
    """Run."""
    torch.set_num_threads(1)
    if len(sys.argv) > 3:
        kill_after(int(sys.argv[3]))
    run_pipeline(tiny(), Path(sys.argv[1]), int(sys.argv[2]), workers=1, preset="tiny")
    assert runs.read_json(Path(sys.argv[1]) / "evaluation.json")


if __name__ == "__main__":
    main()
