"""`worldmodels committee`: agents of several runs as one driver."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import tyro

from worldmodels._files import disk_errors
from worldmodels.agent import find
from worldmodels.planning.committee import FOLDER, Committee, other_members
from worldmodels.planning.drivers import open_member
from worldmodels.presets import RunConfig
from worldmodels.protocols import UserError
from worldmodels.runs import make_folder


@dataclass(frozen=True)
class MakeCommittee:
    """Let agents drive together: the mean of their actions is executed, and every M is told so.

    Each keeps V, M and C of its own, and its residual where it has one. The new folder is the first
    agent's, with the others in its `committee/`: `evaluate` lets all of them drive, and the first
    one alone with `--policy residual` or `controller`; dreams and planners are the first one's.
    """

    agents: tyro.conf.Positional[tuple[str, ...]]
    """folders of agents, or names of such as come with the package; two at least"""
    out: Path
    """folder for the new agent, which must not exist"""

    @classmethod
    def defaults(cls, preset: RunConfig, flags: Mapping[str, str]) -> Self:
        """The agents and the folder must be given."""
        return cls(agents=tyro.MISSING, out=tyro.MISSING)

    def execute(self) -> None:
        """Check that they fit each other, copy them, and put the folder in its place."""
        folders = [
            folder for agent in self.agents for folder in (find(agent), *other_members(agent))
        ]
        if len(folders) < 2:
            raise UserError(f"one agent, {folders[0]}, is no committee; give two or more")
        if self.out.exists():
            raise UserError(f"{self.out} exists; choose a new folder for the committee")
        committee = Committee([open_member(folder) for folder in folders])
        make_folder(self.out.parent)
        new = self.out.with_name(f".{self.out.name}-{uuid.uuid4().hex[:12]}")
        try:
            with disk_errors(self.out):
                _copy(folders[0], new)
                for number, folder in enumerate(folders[1:], 1):
                    _copy(folder, new / FOLDER / f"{number:02d}")
                os.replace(new, self.out)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        print(f"committee of {len(committee.members)}: {self.out}")


def _copy(folder: Path, target: Path) -> None:
    """Copy an agent's own files, not its committee's."""
    target.mkdir(parents=True)
    for entry in folder.iterdir():
        if entry.is_file():
            shutil.copy2(entry, target / entry.name)
