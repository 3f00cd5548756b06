"""Refusal of values that cannot be used, with the name of what is wrong and what is allowed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from worldmodels.protocols import UserError


class InputError(UserError, ValueError):
    """A `UserError` that scikit-learn also knows, as the ValueError that its estimators raise."""


def check_batch(x: Tensor, features: int | None = None, name: str = "x") -> Tensor:
    """Return a batch (B, M) that is not empty and finite throughout.

    Args:
        x: what was given.
        features: M, if it is fixed already.
        name: what to call it.

    Raises:
        InputError: another number of dimensions or features, no rows, a value that is not finite.
    """
    if x.ndim != 2:
        raise InputError(f"{name} has shape {tuple(x.shape)}; it must be (samples, features)")
    if features is not None and x.shape[1] != features:
        raise InputError(
            f"{name} has {x.shape[1]} features (shape {tuple(x.shape)}); it must have {features}"
        )
    return check_finite(x, name)


def check_images(x: Tensor, channels: int, smallest: int, name: str = "x") -> Tensor:
    """Return images (B, C, H, W), at least ``smallest`` pixels high and wide; else `InputError`."""
    if x.ndim != 4 or x.shape[1] != channels or min(x.shape[2:]) < smallest:
        raise InputError(
            f"{name} has shape {tuple(x.shape)}; it must be (samples, {channels}, height, width) "
            f"with height and width of at least {smallest}"
        )
    return check_finite(x, name)


def check_finite(x: Tensor, name: str = "x") -> Tensor:
    """Return a tensor that is not empty and has no NaN and no infinity; else `InputError`."""
    if x.numel() == 0:
        raise InputError(f"{name} is empty (shape {tuple(x.shape)}); it needs at least one value")
    if not x.is_floating_point():
        raise InputError(f"{name} has dtype {x.dtype}; it must be a floating-point tensor")
    finite = torch.isfinite(x)
    if not bool(finite.all()):
        where = tuple(int(i) for i in (~finite).nonzero()[0])
        raise InputError(f"{name} is {float(x[where])} at {where}; all values must be finite")
    return x


def check_dictionary(dictionary: Tensor) -> Tensor:
    """Return a dictionary (M, N) whose columns are finite and not 0; else `InputError`."""
    check_batch(dictionary, name="dictionary")
    zero = (dictionary == 0).all(0)
    if bool(zero.any()):
        column = int(zero.nonzero()[0])
        raise InputError(f"column {column} of the dictionary is all 0; every atom needs a length")
    return dictionary


def check_number(
    name: str, value: float, low: float = -math.inf, high: float = math.inf, above: bool = False
) -> None:
    """Refuse a number outside [low, high], or outside (low, high] if ``above``."""
    number = isinstance(value, int | float) or hasattr(value, "__float__")
    bound = "above" if above else "at least"
    allowed = f"{bound} {low:g}" + (f" and at most {high:g}" if high < math.inf else "")
    if not number or not math.isfinite(value) or not (low < value or (low == value and not above)):
        raise InputError(f"{name} is {value!r}; it must be {allowed}")
    if value > high:
        raise InputError(f"{name} is {value!r}; it must be {allowed}")
