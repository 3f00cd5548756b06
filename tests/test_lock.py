"""A folder is written into by one process at a time, and a killed one leaves nothing locked."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from worldmodels import runs
from worldmodels.protocols import UserError

HOLD = """
import sys, time
from pathlib import Path
from worldmodels.runs import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_is_refused_until_it_ends_however_it_ends(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    with pytest.raises(UserError) as caught, runs.locked(folder):
        pass
    assert f"{folder} is in use by process {holder.pid}" in str(caught.value)
    assert "wait until it ends or stop it, or choose another folder" in str(caught.value)
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with runs.locked(folder), runs.locked(folder):  # nested calls of one thread are one
        pass


def test_another_thread_waits(tmp_path: Path) -> None:
    refused: list[str] = []

    def work(wait: float) -> None:
        try:
            with runs.locked(tmp_path, wait):
                refused.append("worked")
        except UserError as error:
            refused.append(str(error))

    with runs.locked(tmp_path):
        first = threading.Thread(target=work, args=(0.0,))
        first.start()
        first.join()
        second = threading.Thread(target=work, args=(30.0,))
        second.start()
    second.join()
    assert "is in use by process" in refused[0]
    assert refused[1] == "worked"


def test_a_system_without_locks_locks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with runs.locked(tmp_path):
        pass
