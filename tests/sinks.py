"""Stand-ins for tensorboard and wandb, which keep what they are given."""

from __future__ import annotations

import importlib.machinery
import sys
import types
from typing import Any

import pytest


class Sinks:
    """What both packages were given."""

    def __init__(self) -> None:
        self.boards: dict[str, list[tuple[Any, ...]]] = {}
        """folder of a `SummaryWriter` -> its events"""
        self.runs: list[Any] = []
        """what `wandb.init` made: its settings, the lines logged, the axes"""

    def filled(self) -> bool:
        """Whether either of them was given a figure; both or none were."""
        board, line = any(self.boards.values()), any(run.logged for run in self.runs)
        assert board == line
        return board


def stand_in(monkeypatch: pytest.MonkeyPatch) -> Sinks:
    """Put the stand-ins in both packages' places."""
    found = Sinks()

    class Writer:
        def __init__(self, folder: str) -> None:
            self.events = found.boards.setdefault(folder, [])

        def add_scalar(self, *event: Any) -> None:
            self.events.append(event)

        def flush(self) -> None:
            pass

    class Run:
        def __init__(self, **settings: Any) -> None:
            self.settings, self.logged, self.axes = settings, list[dict[str, float]](), set[str]()
            found.runs.append(self)

        def define_metric(self, name: str, step_metric: str) -> None:
            self.axes.add(f"{name} over {step_metric}")

        def log(self, values: dict[str, float]) -> None:
            self.logged.append(values)

    packages: dict[str, dict[str, Any]] = {
        "tensorboard": {},
        "torch.utils.tensorboard": {"SummaryWriter": Writer},
        "wandb": {"init": Run, "Settings": dict},
    }
    for name, content in packages.items():
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, origin=name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return found
