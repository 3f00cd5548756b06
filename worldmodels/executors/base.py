"""What all executors share: the interface, and the loop that keeps workers busy."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, TypeVar

from worldmodels.protocols import UserError

T = TypeVar("T")
R = TypeVar("R")

ONE_THREAD = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "BLOSC_NTHREADS",
)


class WorkerDied(UserError):
    """A worker process ended in the middle of an item, by a signal or for want of memory."""


class Executor(ABC):
    """Runs a function over items. Use it as a context, and one for as many calls as possible."""

    workers: int
    """how many items are worked on at once"""

    @abstractmethod
    def map(self, fn: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[int, R]]:
        """Run `fn` on every item and yield (position, result) in the order of completion.

        Args:
            fn: importable from a module; not a lambda or a local function unless work is
                in-process.
            items: may be lazy; each is taken when a worker is free.

        Raises:
            Exception: whatever `fn` raised, as itself, with a note that names the item.
            WorkerDied: a worker was killed; the item it had is named.
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
    """Keeps workers busy that are started at their first item; how they work is a subclass's."""

    def __init__(self, workers: int) -> None:
        """Prepare for this many workers."""
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
                    continue  # left over from a call that was given up
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

    It is the faster way, too, for the small batches of driving and filming on a busy machine. Where
    nothing has loaded torch, it stays unloaded.
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
