"""`worldmodels ensemble`: agents of several runs as one driver."""

from __future__ import annotations

import dataclasses
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

import tyro

from worldmodels._agent_files import CONFIG
from worldmodels._files import disk_errors
from worldmodels.agent import Agent, find
from worldmodels.commands.parsing import Command
from worldmodels.policies.ensemble import FOLDER, Ensemble, other_members
from worldmodels.policies.learned import PolicyFile
from worldmodels.policies.opening import open_member, own_policy, policy_path
from worldmodels.protocols import UserError
from worldmodels.runs import FolderPath, make_folder, read_json


@dataclass(frozen=True)
class MakeEnsemble(Command):
    """Average the actions of several agents, each with its own V, M and C.

    The new folder is the first agent's, with the others in its `ensemble/`. `evaluate` lets all of
    them act, or the first one alone with `--policy residual` or `controller`; dreams and planners
    are the first one's. Of the others only what acts is kept, a third of the size.
    """

    agents: tyro.conf.Positional[tuple[str, ...]]
    """two or more agents: their folders, their runs' folders, or names of bundled ones"""
    out: FolderPath
    """folder of the agent to write; must not exist"""

    def execute(self) -> None:
        """Check that they fit each other, copy them, and put the folder in its place."""
        folders = [
            folder for agent in self.agents for folder in (find(agent), *other_members(agent))
        ]
        if len(folders) < 2:
            raise UserError(f"one agent, {folders[0]}, is no ensemble; give two or more")
        if self.out.exists():
            raise UserError(f"{self.out} exists; choose a new folder for the ensemble")
        ensemble = Ensemble([open_member(folder) for folder in folders])
        make_folder(self.out.parent)
        new = self.out.with_name(f".{self.out.name}-{uuid.uuid4().hex[:12]}")
        try:
            with disk_errors(self.out):
                new.mkdir()
                for file in filter(Path.is_file, folders[0].iterdir()):  # not its own members
                    shutil.copy2(file, new)
                for number, folder in enumerate(folders[1:], 1):
                    _copy_driver(folder, new / FOLDER / f"{number:02d}")
                os.replace(new, self.out)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        print(f"ensemble of {len(ensemble.members)}: {self.out}")


def _copy_driver(folder: Path, target: Path) -> None:
    """Save what an agent needs in order to drive, its numbers as they are."""
    agent = Agent.from_pretrained(folder)
    agent.without_dreams().save_pretrained(target, dtype=read_json(folder / CONFIG)["dtype"])
    if own_policy(folder) == "residual":
        file = PolicyFile.load(policy_path(folder, "residual"), agent)
        dataclasses.replace(file, critic=None).save(policy_path(target, "residual"))
