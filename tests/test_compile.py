"""Kernels compile where nothing can be kept: a read-only package and no home, as in containers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "worldmodels"
CODE = """
import numpy as np, numba, os
from worldmodels.experience.episode import split_colours
print(split_colours(np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)).tolist())
print(os.environ.get("NUMBA_CACHE_DIR", ""))
"""
SPLIT = "[[[[0, 3], [6, 9]]], [[[1, 4], [7, 10]]], [[[2, 5], [8, 11]]]]"


def run(folder: Path, **env: str) -> tuple[list[str], str]:
    """Lines of standard output, and standard error, of a copy with no room beside its source."""
    copy = folder / "worldmodels"
    if not copy.exists():
        ignored = shutil.ignore_patterns("__pycache__", "agents")
        shutil.copytree(PACKAGE, copy, ignore=ignored)
        for place in (copy / "envs", copy / "dream", copy / "experience"):
            (place / "__pycache__").touch()  # a file: not even root can put anything into it
    bare = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    bare |= {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null", "PYTHONPATH": str(folder), **env}
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, env=bare, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.splitlines(), done.stderr


def test_without_room_for_a_cache_kernels_are_compiled_again(tmp_path: Path) -> None:
    (split, cache), error = run(tmp_path)
    assert split == SPLIT
    assert error.count("\n") == 1 and "set NUMBA_CACHE_DIR to a folder" in error
    assert cache and not Path(cache).exists()  # it was shared with workers, and is gone with them
    (split, _), error = run(tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "kept"))
    assert (split, error) == (SPLIT, "")
    assert list((tmp_path / "kept").rglob("*.nbi"))
