"""Files that are either whole or not there: atomic writes, JSON and checkpoints.

Part of `worldmodels.runs`; import it from there.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import pickle
import shutil
import stat
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from worldmodels._jsonable import to_jsonable
from worldmodels.protocols import UserError

_DISK_ERRORS = {
    errno.ENOSPC: "the disk is full; free some space and run the command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the command again",
    errno.EACCES: "permission denied; choose a folder you may write to",
    errno.EPERM: "permission denied; choose a folder you may write to",
    errno.EROFS: "the file system is read-only; choose a folder you may write to",
    errno.EFBIG: "the file would be larger than allowed here; choose another folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another path",
    errno.EISDIR: "this is a folder, not a file; choose another path",
    errno.EEXIST: "a file of that name stands where a folder is needed; choose another path",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ELOOP: "its links lead in a circle; choose another path",
    errno.EBUSY: "it is a mount point or in use; choose another path",
    errno.ENXIO: "nothing reads from it; choose another path",
}


def disk_problem(error: OSError) -> str | None:
    """What the disk has against a path, in words; None for other errors."""
    return _DISK_ERRORS.get(error.errno or 0)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into a UserError naming `path`; other errors pass unchanged."""
    try:
        yield
    except OSError as error:
        problem = disk_problem(error)
        if problem is None:
            raise
        raise UserError(f"cannot write {path}: {problem}") from error


def make_folder(path: Path) -> Path:
    """Create a folder and its parents where they are missing.

    Raises:
        UserError: the disk does not allow it.
    """
    with disk_errors(path):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # as in /proc, where nothing can be made
            raise UserError(f"cannot make the folder {path}; choose another path") from error
    return path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; it takes the final name when the block ends well.

    The temporary file is synced before the rename and its folder after it, so a crash or a power
    cut leaves either the old file or the new one. When the block fails, nothing is left behind.
    Only regular files are replaced: a link stays and what it leads to is replaced, a device or a
    pipe stays and the finished file is written into it.

    Args:
        path: where the file shall be; its folder is created. The temporary name keeps a suffix of
            usual length, for writers that choose a format by it.

    Raises:
        UserError: the disk is full or refuses the file.
    """
    target = Path(path)
    suffix = target.suffix if len(target.suffix) <= 12 else ""
    # Unique per writer: two processes that write the same file must not share a temporary one.
    name = f".{target.stem[:50]}-{uuid.uuid4().hex[:12]}{suffix}"
    with disk_errors(target):
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if is_stream(target):
            with tempfile.TemporaryDirectory() as folder:
                yield Path(folder) / name
                _pour(Path(folder) / name, target)
            return
        final = Path(os.path.realpath(target))
        temporary = make_folder(final.parent) / name
        try:
            yield temporary
            _sync(temporary)
            os.replace(temporary, final)
            _sync(final.parent)
        finally:
            with suppress(OSError):  # a disk that refuses the file may refuse its removal, too
                temporary.unlink(missing_ok=True)


def is_stream(path: Path) -> bool:
    """Whether a path is written into, not replaced: a device, a pipe, this process's output."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or _output_descriptor(path) is not None


def _output_descriptor(path: Path) -> int | None:
    """1 or 2 where a path is what standard output or error leads to, such as /dev/stdout."""
    for descriptor in (1, 2):
        with suppress(OSError):  # it may be closed
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
    return None


def _pour(source: Path, stream: Path) -> None:
    """Copy a file into a device, a pipe or this process's output."""
    descriptor = _output_descriptor(stream)
    if descriptor is not None:
        (sys.stdout if descriptor == 1 else sys.stderr).flush()
    target = stream if descriptor is None else os.dup(descriptor)
    with source.open("rb") as data, open(target, "wb") as out:
        shutil.copyfileobj(data, out)


def _sync(path: Path) -> None:
    """Ask the system to put a file or a folder's entries on the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder that may be written to, but not be listed
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: str | Path, data: bytes | str) -> None:
    """Write a whole file or nothing; text is UTF-8.

    Raises:
        UserError: the disk is full or refuses the file.
    """
    raw = data.encode() if isinstance(data, str) else data
    with atomic_path(path) as temporary:
        temporary.write_bytes(raw)


def write_json(path: str | Path, obj: Any) -> None:
    """Write an object as indented JSON, atomically; `obj` may hold what `to_jsonable` knows."""
    atomic_write(path, json.dumps(to_jsonable(obj), indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    source = Path(path)
    try:
        text = source.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{source} does not exist; it should be a JSON file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{source} is not valid JSON ({error}); delete it or restore it") from error
    return parse_json(text, f"{source} is not valid JSON ({{}}); delete it or restore it")


def parse_json(text: str, refusal: str) -> Any:
    """Read JSON in which every number is finite and every level of nesting can be followed.

    Args:
        text: the JSON.
        refusal: text of the error; ``{}`` stands for what is wrong.

    Raises:
        UserError: it is not such JSON.
    """
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:  # JSONDecodeError is a ValueError
        deep = isinstance(error, RecursionError)
        reason = "nested too deeply" if deep else str(error)
        raise UserError(refusal.replace("{}", reason)) from error


def _finite(text: str) -> float:
    """A number of JSON; Python's own reader lets NaN, Infinity and 1e999 pass."""
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:40]} is not a finite number")
    return value


def save_checkpoint(path: str | Path, state: dict[str, Any]) -> None:
    """Write tensors, numpy arrays, numbers, strings and containers of them, atomically.

    Args:
        path: the file.
        state: what `load_checkpoint` shall give back; no objects of other classes.

    Raises:
        UserError: the disk is full or refuses the file.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    # getvalue() copies nothing twice on CPython: the bytes object shares the buffer's memory.
    atomic_write(path, buffer.getvalue())


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, on the CPU, without running code from the file.

    Raises:
        UserError: the file is missing, truncated, corrupt, or holds more than plain data.
    """
    import torch

    source = Path(path)
    try:
        data = source.read_bytes()
    except FileNotFoundError:
        raise UserError(f"checkpoint {source} does not exist") from None
    try:
        with torch.serialization.safe_globals(_numpy_globals()):
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
        reason = (str(error).strip().split("\n")[0] or type(error).__name__).split(". ")[0]
        raise UserError(
            f"checkpoint {source} cannot be read ({reason}); delete it and run the stage again"
        ) from error
    if not isinstance(state, dict):
        raise UserError(
            f"checkpoint {source} holds a {type(state).__name__}, not a dict; "
            "delete it and run the stage again"
        )
    return state


def _numpy_globals() -> list[Any]:
    """What the weights-only reader must know to rebuild plain numeric arrays."""
    numeric = (bool, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32)
    more = (np.uint64, np.float16, np.float32, np.float64)
    rebuild = np.zeros(1).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    dtypes = [type(np.dtype(kind)) for kind in (*numeric, *more)]
    return [rebuild, scalar, np.ndarray, np.dtype, *dtypes]
