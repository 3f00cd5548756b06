"""What a field's type may say about its values, and what to tell whoever gave another one.

Part of `worldmodels.config`; import it from there.
"""

from __future__ import annotations

import math
import os
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

import numpy as np

_INT_LIMIT = 2**63 - 1
_FLOAT_LIMIT = float(np.finfo(np.float32).max)
_NOUNS = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}


@dataclass(frozen=True)
class Rule:
    """What `Annotated` may say about a field's values."""

    text: str
    """the end of "it must be ..." """
    holds: Callable[[Any], bool]
    """whether a value of the right type is allowed"""
    quiet: bool = False
    """only name the rule where it is broken: a limit that nobody meets by accident"""


def AtLeast(low: float) -> Rule:
    """At least ``low``."""
    return Rule(f"at least {low:,}", lambda value: bool(value >= low))


def Above(low: float) -> Rule:
    """Above ``low``."""
    return Rule(f"above {low:,}", lambda value: bool(value > low))


def AtMost(high: float) -> Rule:
    """At most ``high``."""
    return Rule(f"at most {high:,}", lambda value: bool(value <= high))


def Below(high: float) -> Rule:
    """Below ``high``."""
    return Rule(f"below {high:,}", lambda value: bool(value < high))


def Between(low: float, high: float) -> Rule:
    """From ``low`` to ``high``, both included."""
    return Rule(f"from {low:,} to {high:,}", lambda value: bool(low <= value <= high))


def OneOf(*values: int) -> Rule:
    """One of these numbers."""
    return Rule(f"one of {', '.join(map(str, values))}", lambda value: value in values)


def Limit(high: float) -> Rule:
    """At most ``high``, because more could only hang or exhaust the memory."""
    return Rule(f"at most {high:,}", lambda value: bool(value <= high), quiet=True)


EVEN = Rule("even", lambda value: value % 2 == 0)
NOT_EMPTY = Rule("at least one entry", lambda value: len(value) > 0)

Count: TypeAlias = Annotated[int, AtLeast(1), Limit(2**31)]
"""How many steps, episodes or pictures."""
CountOrZero: TypeAlias = Annotated[int, AtLeast(0), Limit(2**31)]
"""The same, or none."""
Horizon: TypeAlias = Annotated[int, AtLeast(1), Limit(10**5)]
"""Steps that are in memory together: of a plan, of an unrolled dream."""
HorizonOrZero: TypeAlias = Annotated[int, AtLeast(0), Limit(10**5)]
"""The same, or none."""
Episodes: TypeAlias = Annotated[int, AtLeast(1), Limit(10**6)]
"""Episodes that are listed with their seeds."""
Size: TypeAlias = Annotated[int, AtLeast(1), Limit(65_536)]
"""Units, channels, pixels of a side, samples of a batch: what is in memory at once."""
SizeOrZero: TypeAlias = Annotated[int, AtLeast(0), Limit(65_536)]
"""The same, or none."""
Channels: TypeAlias = Annotated[int, AtLeast(1), Limit(1024)]
"""Width of a convolutional network, whose weights grow with its square."""
Few: TypeAlias = Annotated[int, AtLeast(1), Limit(1000)]
"""Models of an ensemble, components of a mixture, layers."""
Repeat: TypeAlias = Annotated[int, AtLeast(1), Limit(10_000)]
"""Steps of the environment that an action is held for."""
Workers: TypeAlias = Annotated[int, AtLeast(1), Limit(1024)]
"""Processes or environments side by side."""
Seed: TypeAlias = Annotated[int, AtLeast(0), Limit(_INT_LIMIT)]
"""Seed of a generator."""
Positive: TypeAlias = Annotated[float, Above(0)]
"""A number above 0."""
NotNegative: TypeAlias = Annotated[float, AtLeast(0)]
"""0 or a number above it."""
Fraction: TypeAlias = Annotated[float, Between(0, 1)]
"""A part of a whole, or a probability."""
PositiveFraction: TypeAlias = Annotated[float, Above(0), AtMost(1)]
"""A part of a whole that is not nothing: a discount."""
Decay: TypeAlias = Annotated[float, AtLeast(0), Below(1)]
"""A part of a whole that is not all of it: dropout, momentum."""
Rate: TypeAlias = Annotated[float, Above(0), Below(1)]
"""Learning rate."""


def fault(value: Any, kind: Any) -> str | None:
    """Tell what a value would have to be, as "it must be ..."; None if it is."""
    origin = get_origin(kind)
    rules: tuple[Rule, ...] = ()
    if origin is Annotated:
        kind, *extras = get_args(kind)
        rules = tuple(extra for extra in extras if isinstance(extra, Rule))
        origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _fault_of_any(value, get_args(kind), rules)
    if origin is Literal:
        fine = any(value == choice and type(value) is type(choice) for choice in get_args(kind))
        return None if fine else f"it must be one of {', '.join(map(str, get_args(kind)))}"
    if origin is tuple:
        return _fault_of_tuple(value, get_args(kind), rules)
    if kind in (int, float):
        return _fault_of_number(value, kind, rules)
    if origin is Mapping:
        return None if isinstance(value, Mapping) else "it must be an object"
    if kind is Path:
        return None if isinstance(value, str | os.PathLike) else "it must be a path"
    if not isinstance(kind, type) or isinstance(value, (bool, np.bool_) if kind is bool else kind):
        return None
    return f"it must be {_NOUNS.get(kind, f'of class {kind.__name__}')}"


def _fault_of_any(value: Any, kinds: tuple[Any, ...], rules: tuple[Rule, ...]) -> str | None:
    faults = [fault(value, Annotated[k, None, *rules]) for k in kinds if k is not type(None)]
    optional = len(faults) < len(kinds)
    if None in faults or (optional and value is None):
        return None
    return f"{faults[0]}, or None" if optional else faults[0]


def _fault_of_tuple(value: Any, kinds: tuple[Any, ...], rules: tuple[Rule, ...]) -> str | None:
    if not isinstance(value, tuple):
        return "it must be a tuple"
    if kinds[-1] is not Ellipsis:
        if len(value) != len(kinds):
            return f"it must be {len(kinds)} values"
    else:
        kinds = kinds[:1] * len(value)
    for item, kind in zip(value, kinds, strict=True):
        if must := fault(item, kind):
            return must.replace("it must", "each must", 1)
    broken = [rule.text for rule in rules if not rule.holds(value)]
    return f"it must have {' and '.join(broken)}" if broken else None


def _fault_of_number(value: Any, kind: type, rules: tuple[Rule, ...]) -> str | None:
    texts = [rule.text for rule in rules if not rule.quiet]
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole and (kind is int or not isinstance(value, float | np.floating)):
        return "it must be " + ", ".join([_NOUNS[kind], " and ".join(texts)]).rstrip(", ")
    if kind is int and not -_INT_LIMIT <= value <= _INT_LIMIT:
        return "it must be " + " and ".join([*texts, f"at most {_INT_LIMIT:,} in size"])
    if not -_FLOAT_LIMIT <= value <= _FLOAT_LIMIT:
        wrong = f"at most {_FLOAT_LIMIT:.1e} in size" if math.isfinite(value) else "finite"
        return "it must be " + " and ".join([wrong, *texts])
    if all(rule.holds(value) for rule in rules):
        # Networks count in single precision, in which 1e-60 is 0.
        rounded = value if kind is int else np.float32(value)
        fine = all(rule.holds(rounded) for rule in rules)
        return None if fine else f"it must be {' and '.join(texts)} in single precision"
    loud = [rule.text for rule in rules if not (rule.quiet and rule.holds(value))]
    return f"it must be {' and '.join(loud)}"


def show(value: Any) -> str:
    """A value for an error, shortened where it is long."""
    try:
        text = repr(os.fspath(value) if isinstance(value, os.PathLike) else value)
    except ValueError:  # Python prints no integers of more than 4,300 digits
        return "a number of more than 4,300 digits"
    return text if len(text) <= 200 else f"{text[:200]}..."
