"""Numba's compiler with a cache, where there is room for one.

Machine code is kept beside the source, or else in the user's cache folder. In a container neither
may be writable: then it goes to a temporary folder, which worker processes share.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(**options: Any) -> Callable[[F], F]:
    """Decorate a function so that `numba.njit` compiles it once for all processes."""

    def decorate(function: F) -> F:
        for may_cache in (True, False):
            try:
                keep = may_cache or _make_cache()
                return cast(F, numba.njit(cache=keep, **options)(function))
            except RuntimeError as error:
                if "cannot cache" not in str(error):
                    raise
        return cast(F, numba.njit(**options)(function))

    return decorate


@cache
def _make_cache() -> bool:
    """Give this process and its workers a cache folder, and say so; False where there is no room.

    It has an unguessable name and is this user's alone: what lies in it is run.
    """
    print(
        "warning: compiled code cannot be kept, so every start takes some seconds more; set "
        "NUMBA_CACHE_DIR to a folder that can be written",
        file=sys.stderr,
    )
    try:
        folder = tempfile.mkdtemp(prefix="worldmodels-")
    except OSError:
        return False
    os.environ["NUMBA_CACHE_DIR"] = folder
    setattr(numba.config, "CACHE_DIR", folder)  # noqa: B010  # made at run time, so without a type
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return True
