"""A lock on a folder: one process writes into it at a time.

The lock is the operating system's, on a file in the folder: it ends with the process that holds it.
Part of `worldmodels.runs`; use it from there.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from worldmodels._files import disk_errors, make_folder
from worldmodels.protocols import UserError

LOCK = ".lock"
"""Name of the locked file; it stays behind when its process is killed."""


@dataclass
class _Held:
    descriptor: int
    path: Path
    thread: int
    times: int = 1


_HELD: dict[str, _Held] = {}
_GUARD = threading.Lock()


@contextmanager
def locked(folder: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock on a folder, which is made if it is missing; one thread may nest the calls.

    `UserError` if another process or thread still holds it after ``wait`` seconds. On a file system
    without locks, nothing is locked.
    """
    make_folder(folder)
    name, thread = os.path.realpath(folder), threading.get_ident()
    until = time.monotonic() + wait
    while not _acquire(name, thread, folder):
        if time.monotonic() >= until:
            raise UserError(
                f"{folder} is in use by {_holder(folder)}; wait until it ends or stop it, or "
                "choose another folder"
            )
        time.sleep(0.05)
    try:
        yield
    finally:
        _release(name)


def _acquire(name: str, thread: int, folder: Path) -> bool:
    with _GUARD:
        held = _HELD.get(name)
        if held is not None:
            held.times += held.thread == thread
            return held.thread == thread
        path = Path(name) / LOCK
        while True:
            with disk_errors(folder / LOCK):
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            if not _lock(descriptor):
                os.close(descriptor)
                return False
            with suppress(OSError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    break
            os.close(descriptor)  # its last holder removed it in between
        _HELD[name] = _Held(descriptor, path, thread)
        words = {"pid": os.getpid(), "command": " ".join(sys.argv)[:200]}
        with suppress(OSError):  # a full disk
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps(words).encode())  # for others' error
        return True


def _release(name: str) -> None:
    with _GUARD:
        held = _HELD[name]
        held.times -= 1
        if not held.times:
            del _HELD[name]
            with suppress(OSError):  # the folder may be gone
                held.path.unlink()
            os.close(held.descriptor)  # ends the lock


def _lock(descriptor: int) -> bool:
    """Take the system's lock; False where another process has it.

    These are POSIX's record locks, not `flock`: forked processes do not inherit them, so a lock
    ends with the process that took it. Earlier versions lock the same byte.
    """
    try:
        import fcntl

        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 2**30)
    except (BlockingIOError, PermissionError):
        return False
    except (ImportError, OSError):  # a system, or a file system, without locks
        return True
    return True


def _holder(folder: Path) -> str:
    try:
        found = json.loads((folder / LOCK).read_bytes())
        command = " ".join(str(found["command"]).split()) or "unknown"
        return f"process {int(found['pid'])} ({command})"
    except (OSError, ValueError, LookupError, TypeError):
        return "another process"
