"""Worker processes: how one is started, what it does all its life, and how it ends."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from worldmodels.executors.base import ONE_THREAD, WorkerDied, naming


@dataclass
class Worker:
    """A process, the line to it, and what it is doing."""

    process: BaseProcess
    line: Connection
    call: int = -1
    """the call of `map` that it has the function of"""
    task: tuple[int, int, Any] | None = None
    """(call, position, item) it works on"""


class RemoteTraceback(Exception):
    """Shows where in the worker an exception came from."""

    def __str__(self) -> str:
        """Show the text that the worker sent."""
        return f"\n{self.args[0]}"


def death(worker: Worker) -> WorkerDied:
    """Describe how a worker ended and what it was doing."""
    worker.process.join()
    code = worker.process.exitcode
    if code is not None and code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
        if -code == signal.SIGKILL:
            how += " (for want of memory, often: use fewer workers)"
    else:
        how = f"ended with exit status {code}"
    doing = "" if worker.task is None else " " + naming(worker.task[1], worker.task[2])
    return WorkerDied(f"worker {worker.process.name} (pid {worker.process.pid}) {how}{doing}")


def start_worker(number: int) -> Worker:
    """Spawn a process that waits for work, its libraries kept to one thread."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(
        target=_serve, args=(there,), name=f"worldmodels-{number}", daemon=True
    )
    with _environment(dict.fromkeys(ONE_THREAD, "1")):
        process.start()
    there.close()
    return Worker(process, here)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables for processes started within; libraries read them at their first import."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(line: Connection) -> None:
    """Work off what comes down the line, until it is closed: a worker's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    fn: Callable[[Any], Any] | None = None
    while True:
        try:
            function, item = line.recv()
        except EOFError:
            return
        except Exception as error:  # the item cannot be rebuilt here: its sender must hear of it
            _answer(line, False, error)
            continue
        try:
            fn = fn if function is None else pickle.loads(function)
            assert fn is not None
            result = fn(item)
        except Exception as error:  # passed on, not swallowed: the caller raises it
            _answer(line, False, error)
        else:
            _answer(line, True, result)


def _answer(line: Connection, done: bool, result: Any) -> None:
    """Send a result, or an exception with its traceback; say so if it cannot be pickled."""
    if not done:
        trace = "".join(traceback.format_exception(result))
        result = (result, trace)
    try:
        # Rebuilt here once: an exception with a constructor of its own may pickle and not unpickle.
        raw = pickle.dumps((done, result))
        if not done:
            pickle.loads(raw)
    except Exception as error:
        trace = result[1] if not done else "".join(traceback.format_exception(error))
        kind = "exception" if not done else "result"
        text = f"the {kind} of a worker cannot be sent: {error}"
        raw = pickle.dumps((False, (RuntimeError(text), trace)))
    line.send_bytes(raw)


def _end_with_parent() -> None:
    """End this process as soon as the one that started it is gone, however that ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
