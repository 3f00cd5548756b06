"""How this package compiles its numba kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from worldmodels._compile import compiled

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile a function once for all processes.

    Arithmetic is IEEE's, without fast-math: floats round as they do in Python, and a division by
    zero gives infinity as in numpy instead of an exception that every division would test for.
    """
    return compiled(error_model="numpy")(function)
