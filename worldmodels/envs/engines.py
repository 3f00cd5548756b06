"""Processes that environments start, such as Doom's: they end even where this one is killed."""

from __future__ import annotations

import atexit
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_WATCHER = """
while read -r pid began; do set -- "$@" "$pid" "$began"; done
while [ $# -gt 0 ]; do
    pid=$1 began=$2; shift 2
    stat=$(cat "/proc/$pid/stat" 2>/dev/null) || continue
    [ "$(echo ${stat##*) } | cut -d ' ' -f 20)" = "$began" ] && kill -KILL "$pid"
done
"""
"""Reads process ids and start times until its input ends, with the process that writes to it; then
it kills those that are left. A later process with the same id began later."""

_watcher: subprocess.Popen[bytes] | None = None


@contextmanager
def watched() -> Iterator[None]:
    """Have the processes that are started meanwhile end with this one, however it ends (Linux)."""
    before = _children()
    yield
    for pid in _children() - before:
        with suppress(OSError):  # it has ended already
            began = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
            _tell(f"{pid} {began}\n")


def _children() -> set[int]:
    """Process ids of this process's children."""
    if sys.platform != "linux":
        return set()
    found = set[int]()
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # the thread has ended, or this Linux does not tell
            found.update(map(int, (thread / "children").read_text().split()))
    return found - ({_watcher.pid} if _watcher else set())


def _tell(line: str) -> None:
    """Add a line to the watcher's input."""
    global _watcher
    if _watcher is None:
        _watcher = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHER],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )
        atexit.register(_watcher.communicate)
    assert _watcher.stdin is not None
    _watcher.stdin.write(line.encode())
