"""What Windows and macOS lack or refuse: commands work without it, in worker processes too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.experience.fakes import BOX
from worldmodels.executors import usable_cores
from worldmodels.experience.store import EpisodeStore
from worldmodels.runs import machine, read_json, write_json

ROOT = Path(__file__).resolve().parents[1]
WINDOWS = """
import errno, os, signal, sys
sys.modules["fcntl"] = None
import fcntl_free  # what is used to ask for a descriptor's mode
for module, names in (
    (os, "sysconf pread pwrite killpg setpgid getpgid sched_getaffinity mkfifo"),
    (signal, "SIGKILL SIGHUP SIGQUIT SIGUSR1 SIGUSR2 pthread_kill"),
):
    for name in names.split():
        delattr(module, name)
system_open, system_fsync = os.open, os.fsync
def open_file(path, flags, *args, **kwargs):
    if os.path.isdir(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    return system_open(path, flags, *args, **kwargs)
def fsync(descriptor):
    if not fcntl_free.writable(descriptor):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    system_fsync(descriptor)
os.open, os.fsync = open_file, fsync
"""
HELPER = """
def writable(descriptor):
    with open(f"/proc/self/fdinfo/{descriptor}") as info:
        flags = int(next(line for line in info if line.startswith("flags")).split()[1], 8)
    return bool(flags & 3)
"""


COMMANDS = f"""
from worldmodels.cli import main
if __name__ == "__main__":
    small = "--preset smoke --env {BOX}"
    assert main(f"collect {{small}} --episodes 8 --max-steps 8 --workers 2 --out e".split()) == 0
    assert main(f"train-vision {{small}} --data e --out v.safetensors --run r".split()) == 0
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the mode of a descriptor")
def test_commands_work_without_what_windows_lacks(tmp_path: Path) -> None:
    for name, text in (
        ("lacking/sitecustomize.py", WINDOWS),
        ("lacking/fcntl_free.py", HELPER),
        ("run.py", COMMANDS),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    places = os.pathsep.join([str(tmp_path / "lacking"), str(ROOT), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "run.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(EpisodeStore(tmp_path / "e")) == 8
    assert (tmp_path / "v.safetensors").is_file() and (tmp_path / "r/metrics.jsonl").is_file()


def test_a_file_is_synced_through_a_descriptor_that_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    modes, system = list[int](), os.fsync

    def fsync(descriptor: int) -> None:
        if not os.path.isdir(f"/proc/self/fd/{descriptor}"):
            modes.append(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE)
        system(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_json(tmp_path / "a.json", [1])
    assert read_json(tmp_path / "a.json") == [1]
    assert modes == [os.O_RDWR]


def test_memory_is_unknown_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sysconf")
    assert machine()["memory_gib"] is None


def test_macos_does_not_say_which_cores_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert usable_cores() == os.cpu_count()
