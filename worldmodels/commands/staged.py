"""Shared parts of the numbered scripts: their folder, their settings, and how they are run."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import tyro

from worldmodels import envs
from worldmodels.cli import guarded
from worldmodels.commands.parsing import load_preset, trusted_env, use_all_cores, whole_env
from worldmodels.protocols import UserError
from worldmodels.run_config import RunConfig
from worldmodels.settings import read_setting, with_settings

STAGED = Path("runs/staged")
"""Folder in which each step reads the files of the one before."""

SEVERAL_ITERATIONS = (
    "vision_training.finetune_steps",
    "vision_training.finetune_iterations",
    "memory.newest_repeats",
    "memory_training.finetune_steps",
    "memory_training.finetune_learning_rate",
    "starts.newest_weight",
    "controller.memory_iterations",
    "controller.warm_start",
    "selection.early_episodes",
    "selection.late_iterations",
    "selection.finalists",
)
"""Settings without an effect in the single iteration of the steps."""


def settings(
    preset: str,
    changes: Sequence[str],
    uses: Sequence[str],
    env_id: str | None = None,
    *,
    typed: bool = False,
) -> RunConfig:
    """A preset with changes such as ``memory.hidden_size=64``.

    Only sections and settings in ``uses`` may be changed. ``env_id`` (default: the preset's) is
    ``typed`` if the user named it, and not a file of an earlier step.

    Raises:
        UserError: no such preset or setting, or a setting without an effect.
    """
    chosen = dict(read_setting(change, change) for change in changes)
    for name in chosen:
        plain = name.replace("-", "_")
        if not any(plain == part or plain.startswith(f"{part}.") for part in uses):
            raise UserError(f"{name} has no effect in this step, which uses {', '.join(uses)}")
        if plain in SEVERAL_ITERATIONS:
            raise UserError(f"{name} has no effect in this step: it needs several iterations")
    if env_id is not None and not typed:
        env_id = envs.from_file(env_id, STAGED)
    return with_settings(load_preset(preset, env_id), chosen)


def run_step(main: Callable[..., None]) -> NoReturn:
    """Run a script's function by the command line that its signature describes."""
    use_all_cores()
    own = "env" in inspect.signature(main).parameters

    def step() -> None:
        words = whole_env(sys.argv[1:])
        tyro.cli(main, args=words if own else trusted_env(words))

    sys.exit(guarded(step))
