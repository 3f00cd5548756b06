"""Work on Ray, an optional dependency."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from worldmodels.executors import ONE_THREAD, PoolExecutor, WorkerDied
from worldmodels.protocols import UserError, install_extra


class RayExecutor(PoolExecutor):
    """Works in Ray actors, on this machine or on a cluster whose machines share the files."""

    def __init__(self, workers: int) -> None:
        """Connect to Ray, or start it here; `UserError` where it is not installed."""
        try:
            import ray
            import ray.exceptions
        except ImportError:
            raise UserError(
                f"executor 'ray' needs Ray: install it with `{install_extra('ray')}`, or "
                " use the kind 'processes'"
            ) from None
        super().__init__(workers)
        self._ray: Any = ray
        self._owner = not ray.is_initialized()
        if self._owner:
            ray.init(include_dashboard=False, dashboard_host="127.0.0.1", log_to_driver=False)
        self._actor = ray.remote(num_cpus=1, runtime_env={"env_vars": ONE_THREAD})(_Actor)

    def _pack(self, fn: Callable[[Any], Any]) -> Any:
        return self._ray.put(fn)

    def _start(self, place: int) -> Any:
        return self._actor.remote()

    def _send(self, worker: Any, function: Any, item: Any) -> Any:
        return worker.run.remote(function, item)

    def _wait(self, tickets: list[Any]) -> Sequence[Any]:
        ready: Sequence[Any] = self._ray.wait(tickets, num_returns=1)[0]
        return ready

    def _receive(self, worker: Any, ticket: Any) -> tuple[bool, Any]:
        try:
            return True, self._ray.get(ticket)
        except self._ray.exceptions.RayTaskError as error:
            return False, error.cause if isinstance(error.cause, Exception) else error
        except self._ray.exceptions.RayActorError as error:
            reason = str(error).partition("\n")[0]
            raise WorkerDied(f"a Ray worker died ({reason})") from error

    def close(self) -> None:
        """End the actors, and Ray if it was started here."""
        for actor in self._workers:
            if actor is not None:
                self._ray.kill(actor)
        self._workers = [None] * self.workers
        self._busy.clear()
        if self._owner:
            self._ray.shutdown()
            self._owner = False


class _Actor:
    """A worker; Ray hands over the function itself for its reference."""

    def run(self, fn: Callable[[Any], Any], item: Any) -> Any:
        """Do one item."""
        return fn(item)
