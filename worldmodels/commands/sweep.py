"""`worldmodels sweep`: seeds x settings x environments as one job."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from worldmodels.commands.parsing import Command, PresetName, load_preset
from worldmodels.commands.study import read_grid, read_variant
from worldmodels.config import Count
from worldmodels.executors import Placement
from worldmodels.pages.sweep import build_sweep
from worldmodels.pipeline.sweep import Cell, results, run_cells, to_markdown
from worldmodels.protocols import UserError
from worldmodels.run_config import DEFAULT_ENV
from worldmodels.runs import FolderPath, atomic_write, locked, require_device, write_json
from worldmodels.settings import with_settings


class Setting(NamedTuple):
    """A variant of a sweep."""

    name: str
    settings: Mapping[str, Any]
    untrained: bool = False
    """for a study alone"""


@dataclass(frozen=True)
class Sweep(Command):
    """Run every seed of every variant in every environment, and compare them on one page.

    Each is `worldmodels run` in a folder of its own, on one worker; the same command resumes a
    sweep, and tries those that failed again. Writes sweep.json, sweep.md and sweep.html.
    """

    preset: PresetName
    """where settings come from: smoke, quick or full"""
    out: FolderPath = Path("runs/sweep")
    """folder of the sweep"""
    env: tuple[str, ...] = (DEFAULT_ENV,)
    """Gymnasium ids of the environments"""
    seeds: Count = 3
    """runs of each variant in each environment: the seeds 0, 1, ..."""
    variants: tuple[str, ...] = ()
    """such as "hot: dream.temperature=1.3 dream.dropout=0.1" """
    grid: tuple[str, ...] = ()
    """such as dream.temperature=0.7,1,1.3; several give every combination of their values"""
    baseline: bool = True
    """also run the preset's own settings"""
    max_steps: Count | None = None
    """truncate episodes of every stage after so many steps; needed where they never end"""
    check: bool = True
    """let each run play a few episodes first, and choose defaults by what they show"""
    gpu: bool = False
    """train V and M and dream on a GPU; on Ray each run gets one of the cluster's to itself"""
    placement: Annotated[Placement, tyro.conf.arg(name="")] = field(default_factory=Placement)
    """where runs are made"""

    def execute(self) -> None:
        """Run all cells; write the table and the page."""
        cells = self._cells()
        if self.gpu and self.placement.executor == "local":
            require_device("cuda")
        with locked(self.out), self.placement.make(int(self.gpu)) as executor:
            failed = run_cells(cells, self.out, executor)
            rows, records = results(cells, self.out, failed)
            write_json(self.out / "sweep.json", {"rows": rows, "cells": records})
            atomic_write(self.out / "sweep.md", to_markdown(rows))
            page = build_sweep(rows, records, self.preset, self.out / "sweep.html")
        print(to_markdown(rows))
        print(f"page: {page}")
        if failed:
            names = "; ".join(f"{cells[n]!r} ({error})" for n, error in failed.items())
            raise UserError(f"{len(failed)} of {len(cells)} runs failed: {names}")

    def _cells(self) -> list[Cell]:
        """All runs, their settings checked."""
        variants = [Setting(self.preset, {})] if self.baseline else []
        variants += [read_variant(text, Setting) for text in self.variants]
        variants += read_grid(self.grid, Setting)
        if not variants:
            raise UserError("nothing to run: give --variants or --grid, or keep the baseline")
        if len({variant.name for variant in variants}) < len(variants):
            raise UserError("two variants have one name; each needs its own")
        cells = []
        for env, variant in itertools.product(self.env, variants):
            if variant.untrained:
                raise UserError(f"variant {variant.name!r}: untrained is for `worldmodels study`")
            with_settings(load_preset(self.preset, env), variant.settings)
            words = ["run", "--preset", self.preset, "--env", env, "--workers", "1"]
            words += [] if self.max_steps is None else ["--max-steps", str(self.max_steps)]
            words += [] if self.check else ["--no-check"]
            words += ["--device", "cuda"] if self.gpu else []
            words += itertools.chain(*(flags(*item) for item in variant.settings.items()))
            for seed in range(self.seeds):
                own = (*words, "--seed", str(seed))
                cells.append(Cell(env, variant.name, seed, own, variant.settings))
        return cells


def flags(name: str, value: Any) -> list[str]:
    """The words that give `worldmodels run` a setting."""
    option = name.replace("_", "-")
    if isinstance(value, bool):
        before, dot, last = option.rpartition(".")
        return [f"--{before}{dot}{'' if value else 'no-'}{last}"]
    return [f"--{option}", *map(str, value if isinstance(value, list) else [value])]
