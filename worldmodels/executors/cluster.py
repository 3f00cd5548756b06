"""Work on a cluster of Ray, an optional dependency.

Nothing but this process's machine needs the run's folder: items and results travel through Ray's
object store, a function once per worker. Workers are actors of one CPU each, started as the cluster
has room for them; an actor that is lost, with its machine or alone, costs the item that it had.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldmodels.executors import (
    BEAT,
    KILLS,
    ONE_THREAD,
    TRIES,
    PoolExecutor,
    WorkerDied,
    user_modules,
)
from worldmodels.protocols import UserError, install_extra

PING, LOOK = 5 * BEAT, 5 * BEAT
"""Seconds between two heartbeats that are asked for, and between two looks at the cluster."""
WAITING = 20.0
"""Seconds without any worker after which the user is told."""
REACH = 10.0
"""Seconds in which the cluster's machine has to answer."""
ADVICE = (
    "is it running, and reachable from here? A cluster with authentication wants its token: "
    "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
)


@dataclass
class _Worker:
    """An actor."""

    actor: Any
    ping: Any
    """reference of the heartbeat that was asked for last"""
    asked: float
    """when, or when it was last looked for"""
    placed: bool = False
    """whether it has answered once; until then the cluster may have no CPU for it"""
    silence: float = 0.0

    def __str__(self) -> str:
        """What people call it."""
        return f"Ray worker {self.actor._actor_id.hex()[:8]}"


class RayExecutor(PoolExecutor):
    """Works in Ray actors, on this machine or on a cluster, whose machines share no files."""

    remote = True

    def __init__(
        self, workers: int | None = None, address: str | None = None, gpus: int = 0
    ) -> None:
        """Connect to a cluster, or start Ray on this machine alone.

        Args:
            workers: most actors; None takes as many as the cluster has CPUs, while it grows and
                shrinks.
            gpus: for each actor; there are no more actors than these allow.
            address: see `Placement`. A program that has connected to Ray itself stays connected.

        Raises:
            UserError: Ray is not installed, or the cluster cannot be reached.
        """
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        if address == "local":  # listen on the loopback interface alone: Ray's own switch
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
            import ray.exceptions
        except ImportError:
            raise UserError(
                f"executor 'ray' needs Ray: install it with `{install_extra('ray')}`, or "
                " use the kind 'processes'"
            ) from None
        super().__init__(workers or sys.maxsize)
        self._asked, self._address, self._gpus, self._ray = workers, address, gpus, ray
        self._owner = not ray.is_initialized()
        if self._owner:
            _connect(ray, address)
        options = {"num_cpus": 1, "num_gpus": gpus, "runtime_env": {"env_vars": ONE_THREAD}}
        self._actor = ray.remote(**options, concurrency_groups={"beat": 1})(_Actor)
        self._places = self._failed = self._capacity = 0
        self._looked, self._idle, self._told = -LOOK, time.monotonic(), ""
        self._look()
        self.workers = max(1, self._capacity)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy starts its own workers."""
        return type(self), (self._asked, self._address, self._gpus)

    def _look(self) -> None:
        """Have as many actors as the cluster has CPUs, at most as many as were asked for."""
        if time.monotonic() - self._looked < LOOK:
            return
        self._looked = time.monotonic()
        found = self._ray.cluster_resources()
        room, what = int(found.get("CPU", 0)), f"{found.get('CPU', 0):.0f} CPUs"
        if self._gpus:
            room = min(room, int(found.get("GPU", 0)) // self._gpus)
            what += f" and {found.get('GPU', 0):.0f} GPUs"
        self._capacity = room if self._asked is None else min(room, self._asked)
        if self._capacity == 0:
            self._tell(f"the cluster has {what}: it has no room for a worker yet")
        elif self._asked is not None and room < self._asked:
            self._tell(f"the cluster has {what}: {room} workers, not {self._asked}")
        for place, worker in list(self._workers.items()):
            if len(self._workers) > self._capacity and not worker.placed:
                self._end(self._workers.pop(place))

    def _tell(self, text: str) -> None:
        """Say once what the cluster lacks."""
        if text != self._told:
            self._told = text
            print(f"== {text}", file=sys.stderr, flush=True)

    def _pack(self, fn: Callable[[Any], Any]) -> Any:
        return self._ray.put(fn)

    def _free(self, busy: Collection[int]) -> int | None:
        self._look()
        while len(self._workers) < self._capacity:
            actor = self._actor.remote(_version())
            self._workers[self._places] = _Worker(actor, _ping(actor), time.monotonic())
            self._places += 1
        for place, worker in list(self._workers.items()):
            if place in busy or not self._answers(place, worker):
                continue
            self._failed = 0
            return place
        if busy:
            self._idle = time.monotonic()
        elif time.monotonic() - self._idle > WAITING:
            self._tell("no worker has a CPU of the cluster yet: others may use all of them")
        return None

    def _answers(self, place: int, worker: _Worker) -> bool:
        """Whether a worker can take an item; one that has died is removed."""
        if not self._ray.wait([worker.ping], timeout=0)[0]:
            return worker.placed  # a silent one is found out when it has an item
        try:
            self._ray.get(worker.ping)
        except self._ray.exceptions.RayError as error:
            self._end(self._workers.pop(place))
            self._failed += not worker.placed
            if self._failed >= TRIES:
                raise UserError(f"no worker can start on the cluster: {_reason(error)}") from error
            return False
        worker.placed, worker.silence = True, 0.0
        return True

    def _send(self, worker: _Worker, function: Any, item: Any) -> Any:
        return worker.actor.run.remote([function], item)

    def _wait(self, tickets: list[Any]) -> Collection[Any]:
        waits = tickets or [worker.ping for worker in self._workers.values() if not worker.placed]
        if not waits:
            time.sleep(BEAT)
            return []
        ready: Collection[Any] = self._ray.wait(waits, timeout=BEAT)[0]
        return ready

    def _silence(self, worker: _Worker) -> float:
        now = time.monotonic()
        if self._ray.wait([worker.ping], timeout=0)[0]:
            worker.silence = 0.0
            if now - worker.asked < PING:
                return 0.0
            worker.ping = _ping(worker.actor)
        else:  # where this process slept or was busy, that is no silence of the worker's
            worker.silence += min(now - worker.asked, 2 * BEAT)
        worker.asked = now
        return worker.silence

    def _receive(self, worker: _Worker, ticket: Any) -> tuple[bool, Any]:
        errors = self._ray.exceptions
        try:
            return True, self._ray.get(ticket)
        except errors.RayTaskError as error:
            return False, error.cause if isinstance(error.cause, Exception) else error
        except errors.RayError as error:  # the actor, its machine, or the result is lost
            # Ray tells a crash of an actor from the loss of its machine, but not from a kill.
            lost = "its node has died" in str(error)
            crash = isinstance(error, errors.ActorDiedError) and not lost
            limit = TRIES if crash else KILLS
            raise WorkerDied(f"{worker} died ({_reason(error)})", limit) from error

    def _end(self, worker: _Worker) -> None:
        self._ray.kill(worker.actor)

    def close(self) -> None:
        """End the actors, and the connection if it was made here."""
        if self._ray.is_initialized():
            for worker in self._workers.values():
                self._end(worker)
        self._workers.clear()
        self._busy.clear()
        if self._owner:
            self._ray.shutdown()
            self._owner = False


class _Actor:
    """A worker. It answers heartbeats while it works."""

    def __init__(self, version: str) -> None:
        """Refuse work of another version, whose numbers may differ."""
        if version != _version():
            raise UserError(f"a machine of the cluster has worldmodels {_version()}, not {version}")
        self._known: Any = None

    def run(self, function: list[Any], item: Any) -> Any:
        """Do one item; the function is fetched once."""
        import ray

        if self._known != function[0]:
            self._fn = ray.get(function[0])
            self._known = function[0]
        return self._fn(item)

    def beat(self) -> None:
        """Answer."""


def _ping(actor: Any) -> Any:
    """Ask for a heartbeat, which the actor's other thread gives."""
    return actor.beat.options(concurrency_group="beat").remote()


def _version() -> str:
    from worldmodels import __version__

    return __version__


def _reason(error: Exception) -> str:
    """The line of Ray's account of a death that says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if "creation task" in lines[0] else lines[0]


def _connect(ray: Any, address: str) -> None:
    """Connect, with the user's modules for the workers; `UserError` where it fails."""
    host, _, port = address.rpartition(":")
    handler = signal.getsignal(signal.SIGTERM)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if files := _module_files():
        options["runtime_env"] = {"py_modules": files}
    if address == "local":
        options |= {"include_dashboard": False, "dashboard_host": "127.0.0.1"}
    try:
        if port.isdecimal() and "://" not in address:  # Ray itself would try for minutes
            socket.create_connection((host.strip("[]"), int(port)), REACH).close()
        ray.init(address=address, **options)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"cannot join the Ray cluster {address}: {reason}; {ADVICE}") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray takes it for itself


def _module_files() -> list[str]:
    """Files and folders of the user's modules that are not installed as packages."""
    installed = [Path(sysconfig.get_path(name)) for name in ("purelib", "platlib", "stdlib")]
    found = []
    for name in sorted({module.partition(".")[0] for module in user_modules} - {"worldmodels"}):
        module = sys.modules.get(name)
        folders = [*getattr(module, "__path__", [])]
        path = Path(folders[0] if folders else getattr(module, "__file__", None) or "/")
        if path.exists() and path != Path("/") and not any(map(path.is_relative_to, installed)):
            found.append(str(path.resolve()))
    return found
