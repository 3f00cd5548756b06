"""An environment with a process of its own, as Doom has, which only `close` ends."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium as gym

from tests.envs.odd import Odd


class Child(Odd):
    """Leaves the ids of its process and of its child in a folder, by the name of its own."""

    def __init__(self, folder: str, stubborn: bool = False) -> None:
        super().__init__(length=10**9)
        # as Doom does, it holds this process's output and ignores a polite request
        words = (
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(999)"
        )
        self.child = subprocess.Popen([sys.executable, "-S", "-c", words])
        self.stubborn = stubborn
        kind = "main" if multiprocessing.parent_process() is None else "worker"
        self.place = Path(folder) / f"{kind}-{os.getpid()}-{self.child.pid}"
        self.place.touch()

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, Any]:
        time.sleep(0.01)
        return super().step(action)

    def close(self) -> None:
        if not self.stubborn:
            self.child.kill()
            self.child.wait()
            self.place.with_suffix(".closed").touch()


if "tests/Child-v0" not in gym.registry:
    gym.register("tests/Child-v0", entry_point="tests.envs.child:Child")
