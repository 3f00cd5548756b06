"""Work on Ray, an optional dependency."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any, TypeVar

from worldmodels.executors.base import ONE_THREAD, ClosingContext, WorkerDied, naming
from worldmodels.protocols import UserError

T = TypeVar("T")
R = TypeVar("R")


class RayExecutor(ClosingContext):
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
        options = {"num_cpus": 1, "runtime_env": {"env_vars": variables}}
        self._kind = self._ray.remote(**options)(_RayWorker)
        self._actors = [self._kind.remote() for _ in range(workers)]

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy starts its own actors."""
        return type(self), (self.workers,)

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
                    # Another takes its place, so that the executor can be used again.
                    self._actors[self._actors.index(actor)] = self._kind.remote()
                    reason = str(error).partition("\n")[0]
                    raise WorkerDied(
                        f"a Ray worker died ({reason}) {naming(index, item)}"
                    ) from error
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
