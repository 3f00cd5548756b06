"""`worldmodels report`: the page about a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import tyro

from worldmodels.pages import build_report
from worldmodels.presets import RunConfig
from worldmodels.runs import FolderPath


@dataclass(frozen=True)
class Report:
    """Write report.html into a run folder: one page with scores, curves, pictures and settings.

    What the run has not made yet is named on the page, with the command that makes it.
    """

    run: FolderPath
    """run folder"""

    @classmethod
    def defaults(cls, preset: RunConfig, flags: Mapping[str, str]) -> Self:
        """The folder must be given."""
        return cls(run=tyro.MISSING)

    def execute(self) -> None:
        """Build the page and tell where it is."""
        print(f"report: {build_report(self.run)}")
