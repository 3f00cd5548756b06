"""`worldmodels compare`: methods side by side, with what can be concluded from so many runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import tyro

from worldmodels.presets import RunConfig
from worldmodels.runs import FolderPath, read_json


@dataclass(frozen=True)
class Compare:
    """Compare training runs of several methods: a page, a JSON, and pictures for a paper.

    A run is a run folder, the folder of a committed result, or a JSON of `worldmodels evaluate`;
    `name=path` sets the method that it is grouped under. A JSON {"runs": [...]} stands for all that
    it lists, with paths from its own folder.
    """

    runs: tyro.conf.Positional[tuple[str, ...]]
    """what to compare"""
    out: FolderPath = Path("runs/compare")
    """folder for comparison.html, comparison.json and pictures/"""
    pictures: bool = True
    """write each chart as SVG and PNG, too"""

    @classmethod
    def defaults(cls, preset: RunConfig, flags: Mapping[str, str]) -> Self:
        """The runs must be given."""
        return cls(runs=tyro.MISSING)

    def execute(self) -> None:
        """Write the files, print the scores and the warnings."""
        from baselines.compare import build_comparison, describe

        page = build_comparison(self.runs, self.out, self.pictures)
        for line in describe(read_json(page.with_suffix(".json"))):
            print(line)
        print(f"page: {page}")
