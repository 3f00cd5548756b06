"""Where work runs: in this process, in local processes, or on Ray. One call, `map`.

Results come as they are finished, each with the position of its item, so that a caller can restore
the order. A result must depend on its item only: then one worker and eight give the same, and the
item of a worker that is lost can be done again.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar

from worldmodels._machine import usable_cores as usable_cores
from worldmodels.config import Config, Workers, require
from worldmodels.protocols import UserError

T = TypeVar("T")
R = TypeVar("R")

Kind = Literal["serial", "processes", "ray"]

ONE_THREAD = dict.fromkeys(
    "OMP_NUM_THREADS MKL_NUM_THREADS OPENBLAS_NUM_THREADS NUMBA_NUM_THREADS BLOSC_NTHREADS".split(),
    "1",
)
"""Environment variables that give a worker's libraries one thread each."""


TRIES, KILLS = 3, 30
"""Workers that an item may crash before it is given up, and that somebody else may end or stop
while they have it. A worker that ran out of memory has crashed."""
BEAT = 1.0
"""Seconds between two heartbeats of a worker, and between two looks at them."""
SILENCE = 60.0
"""Seconds without a heartbeat after which a worker is replaced: longer than any call of an
environment that keeps Python's lock."""

user_modules: set[str] = set()
"""Modules of the user's that environments are registered by; workers elsewhere need them too."""


class WorkerDied(UserError):
    """A worker ended in the middle of an item, or answered no more."""

    index: int | None = None
    """position of the item, where it has been given up"""

    def __init__(self, text: str, limit: int = TRIES) -> None:
        """Say how it ended, and how many workers an item may lose that way."""
        super().__init__(text)
        self.limit = limit


class Executor(ABC):
    """Runs a function over items. Use it as a context, and one for as many calls as possible."""

    workers: int
    """how many items are worked on at once"""
    remote: bool = False
    """whether workers may lack this machine's files: what they need has to go with the work"""

    @abstractmethod
    def map(self, fn: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[int, R]]:
        """Run `fn` on every item and yield (position, result) in the order of completion.

        `fn` must be importable from a module unless the work is in-process. `items` may be lazy.
        The item of a lost worker is done again, by another one.

        Raises:
            Exception: what `fn` raised, with a note that names the item.
            WorkerDied: an item has cost `TRIES` workers; it is named.
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


@dataclass(frozen=True)
class _Job:
    """An item that a worker has."""

    place: int
    index: int
    item: Any


class _Call:
    """One `map` at work."""

    def __init__(self, function: Any, items: Iterable[Any]) -> None:
        self.function, self._source = function, enumerate(items)
        self._again: deque[tuple[int, Any]] = deque()
        self._lost: Counter[tuple[int, int]] = Counter()
        """workers lost by item and limit"""
        self.tickets: set[Any] = set()
        """of the items that workers have"""

    def take(self) -> tuple[int, Any] | None:
        """The next item and its position; None where there is none to give out."""
        return self._again.popleft() if self._again else next(self._source, None)

    def put_back(self, index: int, item: Any) -> None:
        """Let the next worker have an item."""
        self._again.append((index, item))

    def lost(self, index: int, item: Any, death: WorkerDied) -> None:
        """Have the item of a dead worker done again; `WorkerDied` if it has cost too many."""
        self._lost[index, death.limit] += 1
        if self._lost[index, death.limit] >= death.limit:
            cost = sum(count for (other, _), count in self._lost.items() if other == index)
            error = WorkerDied(f"{death} {_naming(index, item)}, which has cost {cost} workers")
            error.index = index
            raise error from death
        print(f"== {death}: item {index} is done again", file=sys.stderr, flush=True)
        self.put_back(index, item)


class PoolExecutor(Executor):
    """Keeps workers busy and replaces those that are lost; subclasses say how they work."""

    def __init__(self, workers: int) -> None:
        """Set how many workers there are; `map` starts them."""
        self.workers = workers
        self._workers: dict[int, Any] = {}
        """place -> worker"""
        self._busy: dict[Any, _Job] = {}
        """ticket -> what its worker does"""
        self._last: tuple[Any, Any] = (None, None)
        """the last function, and that packed"""

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy starts its own workers."""
        return type(self), (self.workers,)

    @abstractmethod
    def _pack(self, fn: Callable[[Any], Any]) -> Any:
        """Return a function as `_send` takes it."""

    @abstractmethod
    def _free(self, busy: Collection[int]) -> int | None:
        """The place of a worker that can take an item, if need be a new one; None: wait."""

    @abstractmethod
    def _send(self, worker: Any, function: Any, item: Any) -> Any:
        """Give a free worker an item and return a ticket for its result."""

    @abstractmethod
    def _wait(self, tickets: list[Any]) -> Collection[Any]:
        """Wait for a ticket, at most `BEAT` seconds; return those whose results are there."""

    @abstractmethod
    def _receive(self, worker: Any, ticket: Any) -> tuple[bool, Any]:
        """Return (True, result), or (False, exception) if the function raised one."""

    @abstractmethod
    def _silence(self, worker: Any) -> float:
        """Seconds of looking at a busy worker since its last heartbeat."""

    def _stalled(self, worker: Any) -> WorkerDied:
        """Describe a worker whose heartbeats have failed."""
        return WorkerDied(f"{worker} has been silent for {SILENCE:.0f} s")

    @abstractmethod
    def _end(self, worker: Any) -> None:
        """End a worker by force, and what it has started."""

    def map(self, fn: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[int, R]]:
        """See `Executor.map`."""
        if self._last[0] is not fn:
            self._last = fn, self._pack(fn)
        call = _Call(self._last[1], items)
        if (task := call.take()) is None:
            return
        call.put_back(*task)
        while self._hand_out(call) or call.tickets:
            yield from self._results(call)

    def _hand_out(self, call: _Call) -> bool:
        """Give items to free workers; return whether there may be more."""
        while (place := self._free({job.place for job in self._busy.values()})) is not None:
            if (task := call.take()) is None:
                return False
            job = _Job(place, *task)
            with self._watching(call, job) as worker:
                ticket = self._send(worker, call.function, job.item)
                self._busy[ticket] = job
                call.tickets.add(ticket)
        return True

    def _results(self, call: _Call) -> Iterator[tuple[int, Any]]:
        """What is there after some waiting; the items of lost workers go back."""
        ready = self._wait(list(self._busy))
        for ticket, job in list(self._busy.items()):
            silence = 0.0 if ticket in ready else self._silence(self._workers[job.place])
            if ticket not in ready and silence < SILENCE:
                continue
            del self._busy[ticket]
            ours = ticket in call.tickets  # else left over from an abandoned call
            call.tickets.discard(ticket)
            outcome = None
            with self._watching(call if ours else None, job) as worker:
                if silence >= SILENCE:
                    raise self._stalled(worker)
                outcome = self._receive(worker, ticket)
            if outcome is None or not ours:
                continue
            done, result = outcome
            if not done:
                result.add_note(_naming(job.index, job.item))
                raise result
            self._hand_out(call)  # nobody waits while the caller uses the result
            yield job.index, result

    @contextmanager
    def _watching(self, call: _Call | None, job: _Job) -> Iterator[Any]:
        """Give the worker; if it is lost, end it and put its item back."""
        try:
            yield self._workers[job.place]
        except WorkerDied as death:
            self._end(self._workers.pop(job.place))
            if call is not None:
                call.lost(job.index, job.item, death)
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


def make(
    kind: Kind | None = None,
    workers: int | None = None,
    address: str | None = None,
    gpus: int = 0,
) -> Executor:
    """Make an executor, by default with processes on all usable cores, or serial for one worker.

    On Ray all CPUs of the cluster are the default, ``address`` is that of `Placement`, and each
    worker has so many GPUs to itself.

    Raises:
        UserError: the kind is unknown, there is no worker, Ray is not installed, or the cluster
            cannot be reached.
    """
    require("workers", workers, Workers | None)
    if kind == "ray":
        from worldmodels.executors.cluster import RayExecutor

        return RayExecutor(workers, address, gpus)
    number = usable_cores() if workers is None else workers
    if kind is None:
        kind = "serial" if number == 1 else "processes"
    if kind == "serial":
        return SerialExecutor()
    if kind == "processes":
        from worldmodels.executors.processes import ProcessExecutor

        return ProcessExecutor(number)
    raise UserError(f"executor kind is {kind!r}; allowed: 'serial', 'processes', 'ray'")


@dataclass(frozen=True)
class Placement(Config):
    """Where work runs: the options of every command that plays episodes."""

    workers: Workers | None = None
    """processes; the result is the same for any number (default: one per usable core)"""
    executor: Literal["local", "ray"] = "local"
    """where these run: on this machine, or on a cluster of Ray, by default one for each of its CPUs
    (pip install 'worldmodels-control[ray]')"""
    address: str | None = None
    """the cluster of --executor ray, in Ray's words: auto, or host:port (default: RAY_ADDRESS, or a
    Ray of its own on this machine alone)"""

    def _check(self) -> None:
        if self.address is not None and self.executor != "ray":
            self.refuse("address", "left out, but for --executor ray")

    def make(self, gpus: int = 0) -> Executor:
        """An executor for a whole command, on Ray with so many GPUs for each worker."""
        return make("ray" if self.executor == "ray" else None, self.workers, self.address, gpus)


@contextmanager
def given_or_new(executor: Executor | None, workers: int | None, items: int) -> Iterator[Executor]:
    """Give the caller's executor, or a temporary one with at most one worker per item."""
    if executor is not None:
        yield executor
        return
    require("workers", workers, Workers | None)
    with make(None, min(workers or usable_cores(), max(1, items))) as made:
        yield made
