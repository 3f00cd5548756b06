"""`worldmodels study`: how the settings of the dream change the returns of its controllers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from worldmodels.commands.parsing import DEFAULT_PRESET, Command, PresetName
from worldmodels.executors import Placement
from worldmodels.pages.study import build_study
from worldmodels.pipeline.study import Study, StudyConfig, Variant, studied, summarise, to_markdown
from worldmodels.protocols import UserError
from worldmodels.runs import FolderPath, atomic_write, locked, write_json
from worldmodels.settings import read_setting

V = TypeVar("V")


@dataclass(frozen=True)
class RunStudy(Command):
    """Evolve C again in the dream of a run or an agent, under other settings.

    Measures every snapshot. Without variants the run's own settings are repeated with other seeds.
    The same command resumes an interrupted study. Writes study.json, study.md and study.html.
    """

    run: tyro.conf.Positional[Path]
    """run folder, or an agent: its folder or the name of a bundled one"""
    out: FolderPath = Path("runs/study")
    """folder of the study"""
    variants: tuple[str, ...] = ()
    """such as "z only: controller.inputs=z" or "hot: dream.temperature=1.3 dream.dropout=0.1";
    "untrained M: untrained" dreams with random weights"""
    grid: tuple[str, ...] = ()
    """such as dream.temperature=0.7,1,1.3; several give every combination of their values"""
    baseline: bool = True
    """also study the run's own settings, or the preset's"""
    preset: PresetName = DEFAULT_PRESET
    """where the settings of an agent's study come from"""
    study: StudyConfig = field(default_factory=StudyConfig)
    """budget of each variant"""
    placement: Annotated[Placement, tyro.conf.arg(name="")] = field(default_factory=Placement)
    """where episodes are played"""

    def ignored(self) -> Mapping[str, str]:
        """The preset, where a run has settings."""
        own = isinstance(self.run, Path) and (self.run / "iterations").is_dir()
        return {"preset": "the settings are the run's"} if own else {}

    def execute(self) -> None:
        """Run all cells; write the tables and the page after each."""
        variants = [read_variant(text, Variant) for text in self.variants]
        variants += read_grid(self.grid, Variant)
        of = studied(self.run, self.preset, self.study.iteration)
        variants = [*([Variant(of.name)] if self.baseline else []), *variants]
        if not variants:
            raise UserError("nothing to study: give --variants or --grid, or keep the baseline")
        cells: list[dict[str, Any]] = []
        with locked(self.out), self.placement.make() as executor:
            study = Study(of, self.out, self.study, executor)
            for variant in variants:  # refuse mistakes before the first evolution
                of.configuration(variant)
            todo = list(itertools.product(range(self.study.seeds), variants))
            for done, (seed, variant) in enumerate(todo, 1):
                print(f"== {variant.name}, seed {seed}: {done} of {len(todo)}", flush=True)
                cells.append(study.cell(variant, seed))
                rows = summarise(cells)
                write_json(self.out / "study.json", {"rows": rows, "cells": cells})
                atomic_write(self.out / "study.md", to_markdown(rows).encode())
                running = f"evolution {done + 1} of {len(todo)}" if done < len(todo) else ""
                page = build_study(rows, cells, self.run, self.out / "study.html", running)
        print(to_markdown(rows))
        print(f"page: {page}")


def read_variant(text: str, make: Callable[..., V]) -> V:
    """A variant from a name, a colon, and settings, or a UserError."""
    name, colon, rest = text.partition(":")
    if not colon or not rest.split():
        raise UserError(
            f"variant {text!r} is not of the form 'name: setting=value'; for example "
            "'hot: dream.temperature=1.3'"
        )
    words = rest.split()
    settings = dict(read_setting(word, text) for word in words if word != "untrained")
    return make(name.strip(), settings, "untrained" in words)


def read_grid(axes: Sequence[str], make: Callable[..., V]) -> list[V]:
    """Every combination of the values of all axes (setting=value,value), or a UserError.

    Axes of one value, which all combinations share, are in no name beside others.
    """
    if not axes:
        return []
    named = []
    for axis in axes:
        name, equals, values = axis.partition("=")
        if not equals or not values:
            raise UserError(f"grid {axis!r} is not of the form setting=value,value")
        named.append([read_setting(f"{name}={value}", axis) for value in values.split(",")])
    telling = {axis[0][0] for axis in named if len(axis) > 1} or {axis[0][0] for axis in named}
    return [
        make(", ".join(f"{n} {v}" for n, v in point if n in telling), dict(point))
        for point in itertools.product(*named)
    ]
