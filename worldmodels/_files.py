"""Files that are either whole or not there: atomic writes, and JSON.

Part of `worldmodels.runs`; import it from there.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import stat
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, overload

from worldmodels._jsonable import to_jsonable
from worldmodels._shapes import check
from worldmodels.protocols import UserError

T = TypeVar("T")

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
    """An error of the disk in words, with its remedy; None for other errors."""
    return _DISK_ERRORS.get(error.errno or 0)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an error of the disk into a `UserError` that names `path`; others pass unchanged."""
    try:
        yield
    except OSError as error:
        problem = disk_problem(error)
        if problem is None:
            raise
        raise UserError(f"cannot write {path}: {problem}") from error


def make_folder(path: Path) -> Path:
    """Create a folder and its parents where they are missing; `UserError` if the disk refuses."""
    with disk_errors(path):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # as in /proc, where nothing can be made
            raise UserError(f"cannot make the folder {path}; choose another path") from error
    return path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; it is renamed to `path` when the block ends well.

    The temporary file is synced before the rename and its folder after it, so a crash or a power
    cut leaves either the old file or the new one. A failed block leaves nothing behind. Of a link,
    the target is replaced; a device or a pipe gets the finished file written into it. The folder is
    created. The temporary name keeps a usual suffix, for writers that choose a format by it.
    """
    target = Path(path)
    suffix = target.suffix if len(target.suffix) <= 12 else ""
    # Unique, since two processes may write the same file.
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
            with suppress(OSError):  # a disk that refuses the file may refuse its removal
                temporary.unlink(missing_ok=True)


def is_stream(path: Path) -> bool:
    """Whether a path is a device, a pipe or this process's output: written into, not replaced."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or _output_descriptor(path) is not None


def _output_descriptor(path: Path) -> int | None:
    """1 or 2 where a path is standard output or error, such as /dev/stdout."""
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
    """Sync a file, or the entries of a folder, to the disk."""
    try:  # Windows syncs only what may be written
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except PermissionError:  # a folder that may not be listed, or any folder on Windows
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: str | Path, data: bytes | str) -> None:
    """Write a whole file or nothing; text is UTF-8."""
    raw = data.encode() if isinstance(data, str) else data
    with atomic_path(path) as temporary:
        temporary.write_bytes(raw)


def write_json(path: str | Path, obj: Any) -> None:
    """Write an object as indented JSON, atomically; `obj` may hold what `to_jsonable` knows."""
    atomic_write(path, json.dumps(to_jsonable(obj), indent=2, allow_nan=False) + "\n")


MOST_DEPTH = 64
"""Deepest nesting of lists and objects that a JSON file may have; ours need ten."""


@overload
def read_json(path: str | Path) -> Any: ...
@overload
def read_json(path: str | Path, kind: type[T]) -> T: ...
def read_json(path: str | Path, kind: Any = None) -> Any:
    """Read a JSON file; `UserError` unless it is there and holds a ``kind`` (`_shapes.check`)."""
    source = Path(path)
    try:
        data = read_regular(source)
    except FileNotFoundError:
        raise UserError(f"{source} does not exist; it should be a JSON file") from None
    value = parse_json(data, f"{source} is not valid JSON ({{}}); delete it or restore it")
    if kind is not None:
        check(value, kind, str(source))
    return value


def read_json_lines(
    path: Path, kind: Any = dict, kind_of: Callable[[Any], Any] | None = None
) -> list[Any]:
    """Read a file of one JSON object per line; a missing file and a torn last line are no error.

    `UserError` names a line that is not a ``kind``, or not what ``kind_of`` says of the object.
    """
    try:
        data = read_regular(path)
    except FileNotFoundError:
        return []
    records = []
    for number, line in enumerate(data.splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            break
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        record = parse_json(line, f"{where} is not JSON ({{}}); delete the line")
        check(record, kind, where)
        if kind_of is not None:
            check(record, kind_of(record), where)
        records.append(record)
    return records


def read_regular(path: Path) -> bytes:
    """All bytes of a regular file, since a pipe or a device may never end.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is a folder, a device or a pipe, or cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{path} is not a regular file; give a file")
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UserError(f"{path} cannot be read ({_reason(error)})") from error


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def parse_json(text: str | bytes, refusal: str) -> Any:
    """The value of JSON text, by the letter of the standard.

    Raises:
        UserError: it is not JSON, nests too deep, repeats a key, or has a number that is not
            finite or an integer of more than 64 bits. Its text is ``refusal``, with the reason in
            place of ``{}``.
    """
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        value = _DECODER.decode(decoded)
        _check_depth(value)
        if "\\ud" in decoded.lower():  # half of a pair: text that cannot be written again
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:  # JSONDecodeError is a ValueError
        deep = isinstance(error, RecursionError)
        reason = f"it is nested deeper than {MOST_DEPTH}" if deep else str(error)
        raise UserError(refusal.replace("{}", reason)) from error
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MOST_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
    raise RecursionError


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _integer(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= (number := int(text)) < 2**64:
        raise ValueError(f"the integer {_short(text)} needs more than 64 bits")
    return number


def _number(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ValueError(f"{_short(text)} is not a finite number")
    return number


def _constant(text: str) -> float:
    raise ValueError(f"{text} is not a finite number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has the key {_short(twice)!r} twice")
    return found


def _short(text: str) -> str:
    return text if len(text) <= 24 else f"{text[:20]}..."


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_number, parse_constant=_constant
)


def discard(paths: Iterable[Path]) -> None:
    """Remove damaged files or folders."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
