"""No process outlives a run that is aborted, nor the environments' own processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.test_executors import alive

ROOT = Path(__file__).resolve().parents[2]
CHILD = "tests.envs.child:tests/Child-v0"


def wait_for(what: str, condition: object, seconds: float = 120) -> None:
    """Guards against hanging; no timing."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("how", "workers", "stubborn"),
    [
        (signal.SIGTERM, 2, "false"),
        (signal.SIGTERM, 1, "false"),
        (signal.SIGINT, 2, "true"),
        (signal.SIGKILL, 2, "false"),
    ],
)
def test_no_orphan_after_an_aborted_run(
    how: signal.Signals, workers: int, stubborn: str, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    pids.mkdir()
    words = ["collect", "--preset", "smoke", "--episodes", "4", "--group", "1"]
    words += ["--workers", str(workers), "--max-steps", "100000"]
    words += ["--env", f"{CHILD}?folder={pids}&stubborn={stubborn}", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, "-m", "worldmodels", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # a shell lets its background jobs ignore SIGINT, and they hand it on
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    kind = "worker" if workers > 1 else "main"
    wait_for("environments", lambda: len(list(pids.glob(f"{kind}-*"))) >= 2)
    time.sleep(1)  # the newest is at work
    process.send_signal(how)
    assert process.wait(60) in (130, 143, -signal.SIGKILL)
    places = [place for place in pids.glob("*-*") if not place.suffix]
    assert any(place.name.startswith("main") for place in places), "its engines end as well"
    found = [int(pid) for place in places for pid in place.name.split("-")[1:]]
    wait_for(f"the end of {found}", lambda: not any(map(alive, found)), 30)
    if stubborn == "false":  # nobody can close what the process that is killed itself holds
        closed = [p for p in places if how != signal.SIGKILL or p.name.startswith("worker")]
        assert all(place.with_suffix(".closed").exists() for place in closed)
