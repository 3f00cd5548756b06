"""Work in processes of this machine: how one starts, what it does, how it ends."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import pickle
import queue
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

from worldmodels.executors import BEAT, KILLS, ONE_THREAD, TRIES, PoolExecutor, WorkerDied

PR_SET_PDEATHSIG = 1
"""See prctl(2)."""
PATIENCE = 5.0
"""Seconds that a worker has for closing what it holds, before it is killed."""


@dataclass
class _Worker:
    """A process and the line to it."""

    process: BaseProcess
    line: Connection
    beats: Any
    """heartbeats, counted in shared memory"""
    thread: ThreadPoolExecutor
    """waits for answers"""
    ooms: int | None
    """`_oom_kills` before its start"""
    function: bytes = b""
    """what it has been sent, pickled"""
    heard: int = 0
    looked: float = 0.0
    silence: float = 0.0

    def __str__(self) -> str:
        """What people call it."""
        return f"worker {self.process.name} (pid {self.process.pid})"


class ProcessExecutor(PoolExecutor):
    """Works in processes of this machine, started at their first use and kept until closed.

    Processes are spawned, since a forked copy of a program with threads may deadlock. Each has one
    thread for linear algebra, ignores Ctrl-C (this process ends it) and ends when this one dies.
    One that is killed or stopped is replaced. Asked to end, it closes what is open, such as an
    environment with a process of its own; what that leaves behind is killed with the worker's
    process group.
    """

    def __init__(self, workers: int) -> None:
        """Plan for so many workers; they start when there is work."""
        super().__init__(workers)
        # `concurrent.futures.wait` takes a lock of every future: Ctrl-C would leave one locked.
        self._answers: queue.SimpleQueue[Future[bytes]] = queue.SimpleQueue()
        self._answered: set[Future[bytes]] = set()

    def _pack(self, fn: Callable[[Any], Any]) -> bytes:
        return pickle.dumps(fn)

    def _free(self, busy: Collection[int]) -> int | None:
        place = next((place for place in range(self.workers) if place not in busy), None)
        if place is not None and place not in self._workers:
            self._workers[place] = self._start(place)
        return place

    def _start(self, place: int) -> _Worker:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        beats = context.RawValue("q")
        process = context.Process(
            target=_serve, args=(there, beats), name=f"worldmodels-{place}", daemon=True
        )
        ooms = _oom_kills()
        before = {name: os.environ[name] for name in ONE_THREAD if name in os.environ}
        os.environ.update(ONE_THREAD)  # read by libraries when first imported
        try:
            process.start()
        finally:
            for name in ONE_THREAD:
                del os.environ[name]
            os.environ.update(before)
        there.close()
        return _Worker(process, here, beats, ThreadPoolExecutor(1, process.name), ooms)

    def _send(self, worker: _Worker, function: bytes, item: Any) -> Future[bytes]:
        # Each function travels once; an item that cannot be pickled leaves the worker free.
        news = None if worker.function is function else function
        message = ForkingPickler.dumps((news, item))
        worker.function = function
        # A stopped worker leaves a message half read or half written: another thread waits for it.
        ticket = worker.thread.submit(_exchange, worker.line, message)
        ticket.add_done_callback(self._answers.put)
        return ticket

    def _wait(self, tickets: list[Any]) -> Collection[Any]:
        if self._answered.isdisjoint(tickets):
            with contextlib.suppress(queue.Empty):
                self._answered.add(self._answers.get(timeout=BEAT))
        while not self._answers.empty():
            self._answered.add(self._answers.get_nowait())
        self._answered.intersection_update(tickets)  # others were received or given up
        return set(self._answered)

    def _silence(self, worker: _Worker) -> float:
        now, beats = time.monotonic(), worker.beats.value
        if beats != worker.heard:
            worker.heard, worker.silence = beats, 0.0
        else:  # where this process slept or was busy, that is no silence of the worker's
            starting = 1.0 if worker.heard else 0.2  # Python's start on a busy machine takes long
            worker.silence += starting * min(now - worker.looked, 2 * BEAT)
        worker.looked = now
        return worker.silence

    def _receive(self, worker: _Worker, ticket: Future[bytes]) -> tuple[bool, Any]:
        try:
            done, result = pickle.loads(ticket.result())
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise _death(worker) from None
        if not done:
            result, trace = result
            result.__cause__ = RuntimeError(f"in the worker:\n{trace}")
        return done, result

    def _stalled(self, worker: _Worker) -> WorkerDied:
        if _is_stopped(worker.process.pid):
            return WorkerDied(f"{worker} was stopped", KILLS)
        return super()._stalled(worker)

    def close(self) -> None:
        """End the processes, those that do not end in time by force."""
        running = [*self._workers.values()]
        busy = {job.place for job in self._busy.values()}
        for place, worker in self._workers.items():
            if place not in busy:
                worker.line.close()
            worker.process.terminate()
        deadline = time.monotonic() + PATIENCE
        for worker in running:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            self._end(worker)
        self._workers.clear()
        self._busy.clear()

    def _end(self, worker: _Worker) -> None:
        _kill_group(worker.process)
        worker.thread.shutdown()  # its last exchange has ended with the process
        worker.line.close()


def _exchange(line: Connection, message: Any) -> bytes:
    """Send an item and return what comes back; `EOFError` or another if the worker dies."""
    line.send_bytes(message)
    return line.recv_bytes()


def _kill_group(process: BaseProcess) -> None:
    """Kill a worker, if it still lives, and the processes that it has left behind."""
    if process.exitcode is None:
        process.kill()
    if process.pid is not None and hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left
            os.killpg(process.pid, signal.SIGKILL)
    process.join()


def _death(worker: _Worker) -> WorkerDied:
    """Describe how a worker ended, and tell a crash from what somebody else did to it."""
    worker.process.join()
    code = worker.process.exitcode or 0
    if code == 128 + signal.SIGTERM:  # `close_when_terminated`
        code = -signal.SIGTERM
    if code >= 0:
        return WorkerDied(f"{worker} ended with exit status {code}")
    how, limit = f"was killed by {signal.Signals(-code).name}", TRIES
    if -code == signal.SIGKILL and (worker.ooms is None or worker.ooms != _oom_kills()):
        how += " (often out of memory: use fewer workers)"
    elif -code in (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        limit = KILLS
    return WorkerDied(f"{worker} {how}", limit)


def _oom_kills() -> int | None:
    """Processes that Linux has killed for want of memory since it started; None: unknown."""
    found = re.search(r"^oom_kill (\d+)$", _read("/proc/vmstat"), re.MULTILINE)
    return None if found is None else int(found[1])


def _is_stopped(pid: int | None) -> bool:
    """Whether Linux holds a process that was sent SIGSTOP."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1] == ["T"]


def _read(path: str) -> str:
    """A file of /proc; empty where there is none."""
    with contextlib.suppress(OSError):
        return Path(path).read_text()
    return ""


def _serve(line: Connection, beats: Any) -> None:
    """Answer what comes down the line until it is closed; this is a worker's main function."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    close_when_terminated()
    die_with_parent(signal.SIGCONT)  # wakes this process where it is stopped, so that it ends
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threading.Thread(target=_beat, args=(beats,), daemon=True).start()
    fn: Callable[[Any], Any] | None = None
    while True:
        try:
            message = line.recv_bytes()
        except EOFError:
            signal.signal(signal.SIGTERM, _ignore)  # it ends, and closes what is open
            return
        try:
            function, item = pickle.loads(message)
            fn = fn if function is None else pickle.loads(function)
            assert fn is not None
            answer = True, fn(item)
        except Exception as error:  # the caller raises it
            answer = False, error
        line.send_bytes(_packed(*answer))


def _packed(done: bool, result: Any) -> bytes:
    """Pickle a result, or an exception with its traceback; say so if it cannot be pickled."""
    if not done:
        result = result, "".join(traceback.format_exception(result))
    try:
        # Rebuilt once: an exception with its own constructor may pickle but not unpickle.
        raw = pickle.dumps((done, result))
        if not done:
            pickle.loads(raw)
        return raw
    except Exception as error:
        trace = "".join(traceback.format_exception(error)) if done else result[1]
        text = f"the {'result' if done else 'exception'} of a worker cannot be sent: {error}"
        return pickle.dumps((False, (RuntimeError(text), trace)))


def close_when_terminated() -> None:
    """Let SIGTERM end this process as an exit does, with everything closed."""

    def end(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, _ignore)  # once is enough
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)


def _ignore(number: int, frame: object) -> None:
    """Do nothing; where SIG_IGN replaces a handler, Python reports a signal that came just then."""


def _beat(beats: Any) -> None:
    """Count while this process runs; one that is stopped does not."""
    while True:
        beats.value += 1
        time.sleep(BEAT)


def die_with_parent(number: int = signal.SIGTERM) -> None:
    """Have Linux send this process a signal when its parent dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


def _end_with_parent() -> None:
    """End this process as soon as the one that started it is gone."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    parent.join()
    if not hasattr(signal, "pthread_kill"):
        os._exit(1)
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    time.sleep(PATIENCE)
    os.killpg(0, signal.SIGKILL)  # the group is this worker's own
