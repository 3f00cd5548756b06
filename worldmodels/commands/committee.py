"""`worldmodels committee`: agents of several runs as one driver."""

from __future__ import annotations

import dataclasses
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import tyro

from worldmodels._agent_files import CONFIG
from worldmodels._files import disk_errors
from worldmodels.agent import Agent, find
from worldmodels.policies.ensemble import FOLDER, Committee, other_members
from worldmodels.policies.learned import PolicyFile
from worldmodels.policies.opening import open_member, own_driver, policy_path
from worldmodels.presets import RunConfig
from worldmodels.protocols import UserError
from worldmodels.runs import FolderPath, make_folder, read_json


@dataclass(frozen=True)
class MakeCommittee:
    """Let agents drive together: the mean of their actions is executed, and every M is told so.

    Each keeps V, M and C of its own, and its residual where it has one. The new folder is the first
    agent's, with the others in its `committee/`: `evaluate` lets all of them drive, and the first
    one alone with `--policy residual` or `controller`; dreams and planners are the first one's. Of
    the others only what drives is kept: no decoder, no recorded starts, a third of the size.
    """

    agents: tyro.conf.Positional[tuple[str, ...]]
    """folders of agents or of their runs, or names of agents that come with the package; two at
    least"""
    out: FolderPath
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
                    _copy_driver(folder, new / FOLDER / f"{number:02d}")
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


def _copy_driver(folder: Path, target: Path) -> None:
    """Save what an agent needs in order to drive, its numbers as they are."""
    agent = Agent.from_pretrained(folder)
    agent.for_driving().save_pretrained(target, dtype=read_json(folder / CONFIG)["dtype"])
    if own_driver(folder) == "residual":
        file = PolicyFile.load(policy_path(folder, "residual"), agent)
        dataclasses.replace(file, critic=None).save(policy_path(target, "residual"))
