"""Work in processes of this machine."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import wait
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypeVar

from worldmodels.executors.base import ClosingContext, WorkerDied, naming
from worldmodels.executors.workers import RemoteTraceback, Worker, death, start_worker

T = TypeVar("T")
R = TypeVar("R")


class ProcessExecutor(ClosingContext):
    """Works in processes of this machine, started at the first use and kept until closed.

    Processes are spawned, never forked: a forked copy of a program with threads may lock up. Each
    has one thread for linear algebra, ignores Ctrl-C (this process ends it) and ends when this one
    dies.
    """

    def __init__(self, workers: int) -> None:
        """Prepare for this many processes."""
        self._number = workers
        self._workers: list[Worker] = []
        self._calls = 0

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy starts its own processes."""
        return type(self), (self.workers,)

    @property
    def workers(self) -> int:
        """How many processes."""
        return self._number

    def map(self, fn: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[int, R]]:
        """See `Executor.map`."""
        self._calls += 1
        call = self._calls
        function = pickle.dumps(fn)
        source = enumerate(items)
        more = True
        try:
            while True:
                while more and (worker := self._idle()) is not None:
                    following = next(source, None)
                    if following is None:
                        more = False
                    else:
                        self._send(worker, call, function, *following)
                if not more and not any(w.task and w.task[0] == call for w in self._workers):
                    return
                yield from self._receive(call)
        except (WorkerDied, KeyboardInterrupt):
            self.close()
            raise

    def _idle(self) -> Worker | None:
        """Return a worker that is free, starting one while there are fewer than there may be."""
        for worker in self._workers:
            if worker.task is None:
                return worker
        if len(self._workers) < self._number:
            self._workers.append(start_worker(len(self._workers)))
            return self._workers[-1]
        return None

    def _send(self, worker: Worker, call: int, function: bytes, index: int, item: Any) -> None:
        # Pickled before the worker counts as busy: an item that cannot be sent leaves it free.
        message = ForkingPickler.dumps((None if worker.call == call else function, item))
        worker.call = call
        worker.task = (call, index, item)
        try:
            worker.line.send_bytes(message)
        except (BrokenPipeError, ConnectionResetError):
            raise death(worker) from None

    def _receive(self, call: int) -> Iterator[tuple[int, Any]]:
        """Wait for at least one worker; yield the results that belong to `call`."""
        busy = {w.line: w for w in self._workers if w.task is not None}
        for line in wait(list(busy)):
            worker = busy[line]  # type: ignore[index]  # only lines of ours were waited for
            try:
                done, result = worker.line.recv()
            except (EOFError, ConnectionResetError):
                raise death(worker) from None
            assert worker.task is not None
            owner, index, item = worker.task
            worker.task = None
            if owner != call:
                continue  # left over from a call that was given up
            if not done:
                error, trace = result
                error.add_note(naming(index, item))
                raise error from RemoteTraceback(trace)
            yield index, result

    def close(self) -> None:
        """End the processes at once."""
        for worker in self._workers:
            worker.line.close()
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
        self._workers = []
