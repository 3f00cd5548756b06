"""Where work runs: in this process, in local processes, or on Ray. One call, `map`.

Results come as they are finished, each with the position of its item, so that whatever needs an
order restores it. What is computed must depend on the item alone: then one worker and eight give
the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from worldmodels._machine import usable_cores
from worldmodels.config import Workers, require
from worldmodels.executors.base import Executor, SerialExecutor, WorkerDied, one_thread
from worldmodels.protocols import UserError

__all__ = [
    "Executor",
    "SerialExecutor",
    "WorkerDied",
    "given_or_new",
    "make",
    "one_thread",
    "usable_cores",
]

Kind = Literal["serial", "processes", "ray"]


def make(kind: Kind | None = None, workers: int | None = None) -> Executor:
    """Make an executor.

    Args:
        kind: "serial", "processes" or "ray"; None takes processes, or serial for one worker.
        workers: number of workers; None takes the cores this process may use.

    Raises:
        UserError: an unknown kind, fewer than one worker, or Ray is asked for and not installed.
    """
    require("workers", workers, Workers | None)
    number = usable_cores() if workers is None else workers
    if kind is None:
        kind = "serial" if number == 1 else "processes"
    if kind == "serial":
        return SerialExecutor()
    if kind == "processes":
        from worldmodels.executors.processes import ProcessExecutor

        return ProcessExecutor(number)
    if kind == "ray":
        from worldmodels.executors.cluster import RayExecutor

        return RayExecutor(number)
    raise UserError(f"executor kind is {kind!r}; allowed: 'serial', 'processes', 'ray'")


@contextmanager
def given_or_new(executor: Executor | None, workers: int | None, items: int) -> Iterator[Executor]:
    """Give the caller's executor, or a new one for the while, with at most one worker an item."""
    if executor is not None:
        yield executor
        return
    require("workers", workers, Workers | None)
    with make(None, min(workers or usable_cores(), max(1, items))) as made:
        yield made
