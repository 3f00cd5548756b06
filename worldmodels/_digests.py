"""Digests of files: what a stage left is what the next one reads, or it is made again.

Part of `worldmodels.runs`.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path


def digests(root: Path, outputs: Iterable[Path]) -> dict[str, str]:
    """SHA-256 (hex) of every file among some outputs, by its path below ``root``, sorted.

    Args:
        root: folder that the paths are given below.
        outputs: files, and folders with all that is in them; what does not exist is left out.
    """
    paths = sorted(path for output in outputs for path in _files(output))
    with ThreadPoolExecutor() as pool:  # hashing releases Python's lock
        found = pool.map(digest, paths)
    pairs = zip(paths, found, strict=True)
    return {path.relative_to(root).as_posix(): one for path, one in pairs if one is not None}


def damaged(root: Path, wanted: Mapping[str, str]) -> list[Path]:
    """Files below ``root`` that are missing, or have another SHA-256 than they had."""
    found = digests(root, (root / name for name in wanted))
    return [root / name for name, one in wanted.items() if found.get(name) != one]


def discard(paths: Iterable[Path]) -> None:
    """Remove damaged files, so that the stage that wrote them finds them missing."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def digest(path: Path) -> str | None:
    """SHA-256 (hex) of a regular file; None where there is none that can be read.

    A file is hashed once in a process, unless its size or its times have changed since. Nothing is
    kept from one process to the next: a flipped bit changes neither.
    """
    try:
        if not path.is_file():
            return None
        stat = path.stat()
        return _hash(path, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    except OSError:
        return None


@lru_cache(maxsize=65_536)
def _hash(path: Path, *_: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(output: Path) -> Iterator[Path]:
    if output.is_dir():
        yield from (path for path in output.rglob("*") if path.is_file())
    elif output.is_file():
        yield output
