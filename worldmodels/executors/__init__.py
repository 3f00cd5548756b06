"""Where work runs: in this process, in local processes, or on Ray. One call, `map`.

Results come as they are finished, each with the position of its item, so that a caller can restore
the order. A result must depend on its item only: then one worker and eight give the same.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Self, TypeVar

from worldmodels._machine import usable_cores as usable_cores
from worldmodels.config import Workers, require
from worldmodels.protocols import UserError

T = TypeVar("T")
R = TypeVar("R")

Kind = Literal["serial", "processes", "ray"]

ONE_THREAD = dict.fromkeys(
    "OMP_NUM_THREADS MKL_NUM_THREADS OPENBLAS_NUM_THREADS NUMBA_NUM_THREADS BLOSC_NTHREADS".split(),
    "1",
)
"""Environment variables that give a worker's libraries one thread each."""


class WorkerDied(UserError):
    """A worker process ended in the middle of an item, by a signal or for lack of memory."""


class Executor(ABC):
    """Runs a function over items. Use it as a context, and one for as many calls as possible."""

    workers: int
    """how many items are worked on at once"""

    @abstractmethod
    def map(self, fn: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[int, R]]:
        """Run `fn` on every item and yield (position, result) in the order of completion.

        `fn` must be importable from a module unless the work is in-process. `items` may be lazy.

        Raises:
            Exception: what `fn` raised, with a note that names the item.
            WorkerDied: a worker was killed; its item is named.
        """

    def close(self) -> None:  # noqa: B027  # work in this process has nothing to end
        """End the workers; closing twice does no harm."""

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close."""
        self.close()


class SerialExecutor(Executor):
    """Works in this process, one item after the other."""

    workers = 1

    def map(self, fn: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[int, R]]:
        """See `Executor.map`."""
        for index, item in enumerate(items):
            try:
                result = fn(item)
            except Exception as error:
                error.add_note(_naming(index, item))
                raise
            yield index, result


class PoolExecutor(Executor):
    """Keeps workers busy, each started at its first item; subclasses say how they work."""

    def __init__(self, workers: int) -> None:
        """Set how many workers there are; `map` starts them."""
        self.workers = workers
        self._workers: list[Any] = [None] * workers
        self._busy: dict[Any, tuple[int, int, Any]] = {}
        """ticket -> (place of the worker, index and item)"""

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy starts its own workers."""
        return type(self), (self.workers,)

    @abstractmethod
    def _pack(self, fn: Callable[[Any], Any]) -> Any:
        """Return a function as `_send` takes it."""

    @abstractmethod
    def _start(self, place: int) -> Any:
        """Start a worker."""

    @abstractmethod
    def _send(self, worker: Any, function: Any, item: Any) -> Any:
        """Give a free worker an item and return a ticket for its result."""

    @abstractmethod
    def _wait(self, tickets: list[Any]) -> Sequence[Any]:
        """Wait for at least one ticket; return those whose results are there."""

    @abstractmethod
    def _receive(self, worker: Any, ticket: Any) -> tuple[bool, Any]:
        """Return (True, result), or (False, exception) if the function raised one."""

    def map(self, fn: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[int, R]]:
        """See `Executor.map`."""
        function = self._pack(fn)
        source = enumerate(items)
        ours = set()
        while True:
            while len(self._busy) < self.workers and (task := next(source, None)) is not None:
                place = min(set(range(self.workers)) - {place for place, *_ in self._busy.values()})
                if self._workers[place] is None:
                    self._workers[place] = self._start(place)
                with self._watching(place, *task) as worker:
                    ticket = self._send(worker, function, task[1])
                self._busy[ticket] = (place, *task)
                ours.add(ticket)
            if not ours:
                return
            for ticket in self._wait(list(self._busy)):
                place, index, item = self._busy.pop(ticket)
                with self._watching(place, index, item) as worker:
                    done, result = self._receive(worker, ticket)
                if ticket not in ours:
                    continue  # left over from an abandoned call
                ours.remove(ticket)
                if not done:
                    result.add_note(_naming(index, item))
                    raise result
                yield index, result

    @contextmanager
    def _watching(self, place: int, index: int, item: object) -> Iterator[Any]:
        """Give the worker; if it dies, name its item and let another take its place later."""
        try:
            yield self._workers[place]
        except WorkerDied as death:
            self._workers[place] = None
            raise WorkerDied(f"{death} {_naming(index, item)}") from None
        except KeyboardInterrupt:  # perhaps in the middle of a message
            self.close()
            raise


def _naming(index: int, item: object) -> str:
    """Name an item for an error message, shortened if its text is long."""
    text = repr(item)
    return f"while working on item {index}: {text if len(text) <= 300 else text[:300] + '...'}"


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread, as worker processes do, so that in-process floats are the same.

    One thread is also faster for small batches on a busy machine. Torch is not loaded by this.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def make(kind: Kind | None = None, workers: int | None = None) -> Executor:
    """Make an executor, by default with processes on all usable cores, or serial for one worker.

    Raises:
        UserError: the kind is unknown, there is no worker, or Ray is not installed.
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
    """Give the caller's executor, or a temporary one with at most one worker per item."""
    if executor is not None:
        yield executor
        return
    require("workers", workers, Workers | None)
    with make(None, min(workers or usable_cores(), max(1, items))) as made:
        yield made
