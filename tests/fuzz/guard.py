"""The property that every input must have, and the limits that it is held to.

A command either succeeds or says in one line what is wrong (status 2). It never raises anything
else, never takes more than `SECONDS`, and never needs more than `BYTES` of new memory.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from worldmodels import cli
from worldmodels.protocols import UserError

SECONDS = 10.0
"""Longest time for one input."""

BYTES = 3 << 30
"""Most address space that one input may take, beside what the process has."""

ROOT = Path(__file__).resolve().parents[2]

Verdict = Literal["accepted", "refused"]


class Hang(BaseException):
    """An input took too long. No `Exception`, so that nothing catches it on the way."""


class Broken(AssertionError):
    """A command ended in another way than by success or by one line."""


@contextlib.contextmanager
def limits(seconds: float = SECONDS, extra: int = BYTES) -> Iterator[None]:
    """Stop what takes too long, and refuse memory beyond the limit (Linux)."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise Hang(f"no answer within {seconds:g} s")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + extra, hard))
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def call(work: Callable[[], object]) -> Verdict:
    """What became of a call into the library."""
    with limits(), quiet():
        try:
            work()
        except UserError as error:
            if not str(error).strip():
                raise Broken("a UserError without a text") from error
            return "refused"
    return "accepted"


def command(*words: object) -> Verdict:
    """What became of a command line.

    Raises:
        Broken: another status than 0 and 2, or no line on stderr that says what is wrong.
    """
    with limits(), quiet() as said:
        status = cli.main([str(word) for word in words])
    if status == 0:
        return "accepted"
    text = said.getvalue()
    one_line = text.startswith("error: ") and text.count("\n") == 1
    parser = "For full helptext" in text
    if status != 2 or not (one_line or parser):
        raise Broken(f"status {status}, stderr {text[:300]!r}")
    return "refused"


@contextlib.contextmanager
def elsewhere() -> Iterator[Path]:
    """Work in an empty folder that is removed again."""
    before, folder = Path.cwd(), Path(tempfile.mkdtemp(prefix="fuzz-")).resolve()
    try:
        os.chdir(folder)
        yield folder
    finally:
        os.chdir(before)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Catch what is printed; give stderr. Warnings are not the matter here."""
    errors = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
            yield errors


def signature(error: BaseException) -> str:
    """Where a failure comes from: its type and the innermost lines of this project."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        f for f in frames if f.filename.startswith(str(ROOT)) and "/tests/fuzz/" not in f.filename
    ]
    place = [f"{Path(f.filename).relative_to(ROOT)}:{f.lineno}" for f in own[-1:]]
    text = re.sub(r"\S*/fuzz-\w+", "...", str(error).split("\n")[0])[:110]
    return f"{type(error).__name__} at {' < '.join(place) or 'the command'}: {text}"


def attempt(work: Callable[[Any], Verdict], case: Any) -> tuple[str, BaseException | None]:
    """The verdict on a case, or "failed" and the failure."""
    try:
        return work(case), None
    except (Exception, Hang) as error:
        return "failed", error
