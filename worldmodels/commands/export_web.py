"""`worldmodels export-web`: the dream player of an agent, one page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from worldmodels.commands.parsing import Command
from worldmodels.config import Seed
from worldmodels.runs import FilePath


@dataclass(frozen=True)
class ExportWeb(Command):
    """Write one page in which a person acts inside an agent's dream.

    It opens in any browser as a file, without a network: arrow keys or touch, the agent that hands
    over, temperature, what each number of z paints, and a real episode beside the dream.
    """

    agent: Annotated[str, tyro.conf.Positional] = "car-racing"
    """agent: its folder, its run's folder, or the name of a bundled one"""
    out: FilePath = Path("dream.html")
    """page to write"""
    seed: Seed = 7
    """seed of the real episode beside the dream; training episodes have seeds below 400000"""
    real: bool = True
    """record a real episode (a few seconds)"""

    def execute(self) -> None:
        """Write the page and print where it is."""
        from worldmodels.web.page import export

        page = export(self.agent, self.out, self.seed, self.real)
        print(f"dream player: {page} ({page.stat().st_size / 1e6:.1f} MB); open it in a browser")
