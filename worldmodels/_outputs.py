"""Options that name what a command writes: checked before its work begins.

Part of `worldmodels.runs`; import it from there.
"""

from __future__ import annotations

import errno
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_args

from worldmodels._files import disk_problem, is_stream
from worldmodels.config import types_of
from worldmodels.protocols import UserError

LONGEST_NAME = 200
"""Bytes in the name of an output; file systems take 255, and temporary names are longer."""


@dataclass(frozen=True)
class Output:
    """Marks a field that names a file or a folder which its command writes."""

    folder: bool = False
    suffix: str = ""
    """that the file must have; empty for any"""


FILE, FOLDER, FILM = Output(), Output(folder=True), Output(suffix=".mp4")
FilePath: TypeAlias = Annotated[Path, FILE]
"""A file to write; devices and pipes will do."""
FilmPath: TypeAlias = Annotated[Path, FILM]
"""A film to write."""
FolderPath: TypeAlias = Annotated[Path, FOLDER]
"""A folder to write into, made where it is missing."""


def check_outputs(options: Any) -> None:
    """Check every output among a dataclass's fields by `check_output`."""
    for name, kind in types_of(type(options)).items():
        path = getattr(options, name)
        marks = [m for part in (kind, *get_args(kind)) for m in getattr(part, "__metadata__", ())]
        for mark in marks:
            if isinstance(mark, Output) and path is not None:
                check_output(path, f"--{name.replace('_', '-')}", mark)


def check_output(path: Path, option: str, kind: Output = FILE) -> None:
    """Make sure that what the user calls ``option`` can be written, and leave no trace.

    Raises:
        UserError: it cannot be written, or it has another suffix.
    """
    try:
        problem = _problem(path, kind)
    except OSError as error:
        if (problem := disk_problem(error)) is None:
            raise
    if problem is not None:
        raise UserError(f"{option} is {str(path)!r}: {problem}")


def _problem(path: Path, kind: Output) -> str | None:
    """Why a path cannot be written; None where it can."""
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        return f"the name is too long; it must have at most {LONGEST_NAME} bytes"
    if path.is_dir() and not kind.folder:
        return "this is a folder; name a file"
    if kind.suffix and path.suffix.lower() != kind.suffix:
        return f"the name must end in {kind.suffix}"
    with suppress(FileNotFoundError):
        path.stat()  # tells of links that lead in a circle, of files where folders should be
    if kind.folder and path.exists() and not path.is_dir():
        return "this is a file; name a folder"
    if is_stream(path):
        return None if os.access(path, os.W_OK) else disk_problem(OSError(errno.EACCES, ""))
    place = Path(os.path.realpath(path))
    if not path.is_dir():
        place = next(folder for folder in place.parents if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            return None
    except FileNotFoundError:  # as in /proc, where nothing can be made
        return f"no file can be made in {place}; choose another path"
