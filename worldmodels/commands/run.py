"""`worldmodels run`, and what reads its results: `report` and `compare`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Self

import tyro

from worldmodels.commands.check import checked, load
from worldmodels.commands.parsing import DEFAULT_PRESET, Command, PresetName, of_choices
from worldmodels.config import Count, Seed
from worldmodels.executors import Placement
from worldmodels.run_config import RunConfig, changed
from worldmodels.runs import Device, FolderPath, Log, read_json


@dataclass(frozen=True)
class Run(Command):
    """Run all stages: collect, V, M, dream, C, selection, test, report.

    The same command resumes an interrupted run, and repeats only what a changed setting concerns.
    Settings have the preset's values unless they are given.
    """

    common: ClassVar[str] = (
        "preset out seed workers max-steps check device env iterations action-repeat "
        "horizontal-flip experience.explore-episodes vision.z-dim memory.kind memory.hidden-size "
        "memory.ensemble dream.temperature dream.horizon controller.evolve.generations "
        "test.episodes"
    )

    unused: ClassVar[Mapping[str, str]] = {"made-for": "it follows from --env"}

    preset: PresetName
    """where settings come from: smoke (a minute, for tests), quick (the demo) or full (results)"""
    out: FolderPath
    """run folder; an existing run in it is resumed"""
    config: Annotated[RunConfig, tyro.conf.arg(name="")]
    """settings"""
    seed: Seed = 0
    """seed of the whole run"""
    placement: Annotated[Placement, tyro.conf.arg(name="")] = field(default_factory=Placement)
    """where episodes are played"""
    max_steps: Count | None = None
    """truncate episodes of every stage after so many steps; needed where they never end"""
    check: bool = True
    """play a few episodes first, and choose defaults by what they show (`worldmodels check`); kept
    in check.json, where a resumed run finds them; not where the task has settings of its own"""
    device: Device = "cpu"
    """where V and M are trained and C is evolved; on cuda (a GPU) the agent is about as good, but
    not the same; with --dream.backend kernels C is evolved on the CPU"""
    log: Log = ()
    """also write the metrics for tensorboard or wandb, or both, into the run folder; wandb stays
    offline unless WANDB_MODE=online"""

    @classmethod
    def defaults(cls, preset: RunConfig, flags: Mapping[str, str]) -> Self:
        """The preset, and a folder of its name."""
        name = flags.get("preset", DEFAULT_PRESET)
        return cls(preset=name, out=Path("runs") / name, config=preset)

    def ignored(self) -> Mapping[str, str]:
        """An option for numbers, where the actions are choices."""
        return of_choices(self.config.env_id, "experience.explore-scales")

    def chosen(self, preset: RunConfig, given: Mapping[str, str]) -> RunConfig:
        """The preset with what the environment's own episodes suggest."""
        if not self.check:
            return preset
        repeat = self.config.action_repeat if "action-repeat" in given else None
        record = checked(self.out, self.config, self.preset, self.max_steps, repeat)
        return preset if record is None else changed(preset, record.settings)

    def execute(self) -> None:
        """Run the stages that are left, and print where the report is."""
        from worldmodels.pipeline import run_pipeline

        if self.check and (record := load(self.out, self.config.env_id, self.preset)):
            print(f"== check of {self.config.env_id} (--no-check takes the plain preset)")
            print("\n".join(record.lines(self.config)), flush=True)
        cfg = self.config.limited(self.max_steps)
        own = (self.seed, self.placement, self.preset, self.device, self.log)
        report = run_pipeline(cfg, self.out, *own)
        print(f"report: {report}")


@dataclass(frozen=True)
class Report(Command):
    """Write report.html into a run folder: one page with scores, curves, pictures and settings.

    The page names what is still missing, with the command that makes it.
    """

    run: FolderPath
    """run folder"""

    def execute(self) -> None:
        """Write the page and print where it is."""
        from worldmodels.pages import build_report

        print(f"report: {build_report(self.run)}")


@dataclass(frozen=True)
class Compare(Command):
    """Compare training runs of several methods: a page, a JSON, and pictures for a paper.

    A run is a run folder, the folder of a committed result, or a JSON of `worldmodels evaluate`;
    `name=path` sets the method that it is grouped under. A JSON {"runs": [...]} stands for all that
    it lists, with paths relative to its own folder.
    """

    runs: tyro.conf.Positional[tuple[str, ...]]
    """runs to compare"""
    out: FolderPath = Path("runs/compare")
    """folder for comparison.html, comparison.json and pictures/"""
    pictures: bool = True
    """also write each chart as SVG and PNG"""

    def execute(self) -> None:
        """Write the files, print the scores and the warnings."""
        from baselines.compare import build_comparison, describe

        page = build_comparison(self.runs, self.out, self.pictures)
        for line in describe(read_json(page.with_suffix(".json"))):
            print(line)
        print(f"page: {page}")
