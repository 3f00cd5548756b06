"""Where work runs: in this process, in local processes, or on Ray. One call, `map`.

Results come as they are finished, each with the position of its item, so that whatever needs an
order restores it. What is computed must depend on the item alone: then one worker and eight give
the same.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import wait
from multiprocessing.reduction import ForkingPickler
from types import ModuleType, TracebackType
from typing import Any, Literal, Protocol, Self, TypeVar

from worldmodels._workers import (
    ONE_THREAD,
    RemoteTraceback,
    Worker,
    WorkerDied,
    death,
    naming,
    start_worker,
)
from worldmodels.protocols import UserError

T = TypeVar("T")
R = TypeVar("R")

Kind = Literal["serial", "processes", "ray"]


class Executor(Protocol):
    """Runs a function over items. Use it as a context, and one for as many calls as possible."""

    @property
    def workers(self) -> int:
        """How many items are worked on at once."""
        ...

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
        ...

    def close(self) -> None:
        """End the workers; closing twice does no harm."""
        ...

    def __enter__(self) -> Self:
        """Return itself."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        ...


def make(kind: Kind | None = None, workers: int | None = None) -> Executor:
    """Make an executor.

    Args:
        kind: "serial", "processes" or "ray"; None takes processes, or serial for one worker.
        workers: number of workers; None takes the cores this process may use.

    Raises:
        UserError: an unknown kind, fewer than one worker, or Ray is asked for and not installed.
    """
    number = usable_cores() if workers is None else workers
    if number < 1:
        raise UserError(f"workers is {workers}; it must be at least 1")
    if kind is None:
        kind = "serial" if number == 1 else "processes"
    if kind == "serial":
        return SerialExecutor()
    if kind == "processes":
        return ProcessExecutor(number)
    if kind == "ray":
        return RayExecutor(number)
    raise UserError(f"executor kind is {kind!r}; allowed: 'serial', 'processes', 'ray'")


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Context:
    """What all executors share: they are contexts that close themselves."""

    def close(self) -> None:
        """Nothing to end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class SerialExecutor(_Context):
    """Works in this process, one item after the other."""

    workers = 1

    def map(self, fn: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[int, R]]:
        """See `Executor.map`."""
        for index, item in enumerate(items):
            try:
                result = fn(item)
            except Exception as error:
                error.add_note(naming(index, item))
                raise
            yield index, result


class ProcessExecutor(_Context):
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
        """Return a worker that has nothing to do, starting one if there are fewer than there may be."""
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


class RayExecutor(_Context):
    """Works in Ray actors, on this machine or on a cluster whose machines share the files."""

    def __init__(self, workers: int) -> None:
        """Connect to Ray, or start it here with its dashboard off.

        Raises:
            UserError: Ray is not installed.
        """
        self._ray = _import_ray()
        self._owner = not self._ray.is_initialized()
        if self._owner:
            self._ray.init(include_dashboard=False, dashboard_host="127.0.0.1", log_to_driver=False)
        variables = dict.fromkeys(ONE_THREAD, "1")
        actor = self._ray.remote(num_cpus=1, runtime_env={"env_vars": variables})(_RayWorker)
        self._actors = [actor.remote() for _ in range(workers)]

    @property
    def workers(self) -> int:
        """How many actors."""
        return len(self._actors)

    def map(self, fn: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[int, R]]:
        """See `Executor.map`."""
        ray = self._ray
        function = ray.put(fn)
        source = enumerate(items)
        running: dict[Any, tuple[Any, int, T]] = {}
        free = list(self._actors)
        while True:
            while free and (following := next(source, None)) is not None:
                index, item = following
                actor = free.pop()
                running[actor.run.remote(function, item)] = (actor, index, item)
            if not running:
                return
            for reference in ray.wait(list(running), num_returns=1)[0]:
                actor, index, item = running.pop(reference)
                try:
                    result = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    cause = error.cause if isinstance(error.cause, Exception) else error
                    cause.add_note(naming(index, item))
                    raise cause from None
                except ray.exceptions.RayActorError as error:
                    text = f"a Ray worker died ({error}) {naming(index, item)}"
                    raise WorkerDied(text) from error
                free.append(actor)
                yield index, result

    def close(self) -> None:
        """End the actors, and Ray if it was started here."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []
        if self._owner:
            self._ray.shutdown()
            self._owner = False


class _RayWorker:
    """An actor; Ray hands over the function itself for its reference."""

    def run(self, fn: Callable[[Any], Any], item: Any) -> Any:
        """Do one item."""
        return fn(item)


def _import_ray() -> ModuleType:
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise UserError(
            "executor 'ray' needs Ray: install it with `pip install 'worldmodels[ray]'`, "
            "or use the kind 'processes'"
        ) from None
    module: ModuleType = ray
    return module
