"""What the stages of a run share: the context, and the rounds of the loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from worldmodels.envs.spaces import ActionSpec
from worldmodels.executors import Executor
from worldmodels.presets import RunConfig
from worldmodels.runs import Device, RunFolder, derive_seed
from worldmodels.tasks import Symmetry


@dataclass
class Context:
    """What all stages share."""

    cfg: RunConfig
    run: RunFolder
    executor: Executor
    seed: int
    action_spec: ActionSpec
    mirror: Symmetry | None = None
    """of the environment, where the run learns from mirror images too"""
    device: Device = "cpu"
    """where V and M are trained and used; the driver drives on the CPU"""

    @property
    def dreams_on(self) -> Device:
        """Where C is evolved: beside V and M, or on the CPU where kernels are asked for."""
        return "cpu" if self.cfg.dream.backend == "kernels" else self.device

    def say(self, text: str) -> None:
        """Tell the user which stage begins."""
        print(f"== {text}", flush=True)

    def log_stage(self, name: str, iteration: int, seconds: float) -> None:
        """Record the wall-clock seconds of a stage."""
        self.run.log("stage", name=name, iteration=iteration, seconds=seconds)

    def checkpoint_folder(self, label: str) -> Path:
        """Folder of the resume state of a stage such as ``vision/00``."""
        return self.run.checkpoints / label.replace("/", "-")

    def seed_for(self, *parts: int | str) -> int:
        """Seed of one purpose of this run."""
        return derive_seed(self.seed, *parts)


@dataclass
class Iteration:
    """One round of the loop and the folder of its results."""

    number: int
    folder: Path
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def agent(self) -> Path:
        """Agent with the round's best controller, float32."""
        return self.folder / "agent"

    def experience(self, ctx: Context) -> Path:
        """Folder of the round's episodes; it bears the key, since shards are immutable."""
        return ctx.run.path / "experience" / f"{self.number:02d}-{self.keys['collect'][:8]}"
