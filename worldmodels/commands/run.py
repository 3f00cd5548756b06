"""`worldmodels run`: the whole pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import tyro

from worldmodels.commands.parsing import DEFAULT_PRESET, PresetName
from worldmodels.commands.stage import use_all_cores
from worldmodels.config import Seed, Workers
from worldmodels.presets import RunConfig
from worldmodels.runs import Device, FolderPath


@dataclass(frozen=True)
class Run:
    """Run all stages: collect, V, M, dream, C, selection, test, report.

    The same command again goes on where it was stopped, and redoes only what a changed setting
    concerns. All settings below are those of the preset, unless given; --env is short for --env-id.
    """

    preset: PresetName
    """where the settings come from; smoke: a minute, for tests; quick: the demo; full: results"""
    out: FolderPath
    """run folder; made if it is not there, gone on with if it is"""
    config: Annotated[RunConfig, tyro.conf.arg(name="")]
    """settings"""
    seed: Seed = 0
    """fixes every generator of the run"""
    workers: Workers | None = None
    """processes that drive; None takes one per usable core. Any number gives the same result"""
    max_steps: int | None = None
    """longest episode, in steps, in every stage; an environment without a time limit needs it"""
    device: Device = "cpu"
    """where V and M are trained and C is evolved: cuda for a GPU, which gives about as
    good an agent, not the same one. With --dream.backend kernels C stays on the processor"""

    @classmethod
    def defaults(cls, preset: RunConfig, flags: Mapping[str, str]) -> Self:
        """The preset; the folder bears its name."""
        name = flags.get("preset", DEFAULT_PRESET)
        return cls(preset=name, out=Path("runs") / name, config=preset)

    def execute(self) -> None:
        """Run what is not done yet and tell where the report is."""
        from worldmodels.pipeline import run_pipeline

        use_all_cores()
        cfg = self.config.limited(self.max_steps)
        report = run_pipeline(cfg, self.out, self.seed, self.workers, self.preset, self.device)
        print(f"report: {report}")
