"""Configurations: a field's type says which values it may have, and one validator reads it.

A configuration is a frozen dataclass that inherits from `Config`::

    @dataclass(frozen=True)
    class DreamConfig(Config):
        horizon: Count = 300
        temperature: Annotated[float, AtLeast(0)] = 1.0
        reward: Literal["expected", "sampled"] = "expected"

Built in Python, from JSON (`worldmodels._from_json`) or from a command line
(`worldmodels.commands.parsing`), it raises a `ConfigError` for the first value that a field's type
does not allow, which names the field as it was written. Every float must be finite.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import os
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    NoReturn,
    TypeAlias,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np

from worldmodels.protocols import UserError

T = TypeVar("T")
Fields: TypeAlias = tuple[str, ...]
"""Names of fields, from a configuration down to one of its values."""

_INT_LIMIT = 2**63 - 1
_FLOAT_LIMIT = float(np.finfo(np.float32).max)
_NOUNS = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}


# --- ranges


class Rule(NamedTuple):
    """What `Annotated` may say about a field's values."""

    text: str
    """the end of "it must be ..." """
    holds: Callable[[Any], bool]
    """whether a value of the right type is allowed"""
    quiet: bool = False
    """name the rule only where it is broken: a limit far from common values"""

    def __repr__(self) -> str:
        """As the documentation shows the type of a field."""
        return self.text


def _comparison(words: str, holds: Callable[[Any, float], Any]) -> Callable[[float], Rule]:
    return lambda limit: Rule(f"{words} {limit:,}", lambda value: bool(holds(value, limit)))


AtLeast = _comparison("at least", operator.ge)
Above = _comparison("above", operator.gt)
AtMost = _comparison("at most", operator.le)
Below = _comparison("below", operator.lt)


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
"""The same, or 0."""
Horizon: TypeAlias = Annotated[int, AtLeast(1), Limit(10**5)]
"""Steps that are in memory together: of a plan, of an unrolled dream."""
HorizonOrZero: TypeAlias = Annotated[int, AtLeast(0), Limit(10**5)]
"""The same, or 0."""
Episodes: TypeAlias = Annotated[int, AtLeast(1), Limit(10**6)]
"""Episodes that are listed with their seeds."""
Size: TypeAlias = Annotated[int, AtLeast(1), Limit(65_536)]
"""Units, channels, pixels of a side, samples of a batch: what is in memory at once."""
SizeOrZero: TypeAlias = Annotated[int, AtLeast(0), Limit(65_536)]
"""The same, or 0."""
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
"""A fraction or a probability."""
PositiveFraction: TypeAlias = Annotated[float, Above(0), AtMost(1)]
"""A fraction above 0: a discount."""
Decay: TypeAlias = Annotated[float, AtLeast(0), Below(1)]
"""A fraction below 1: dropout, momentum."""
Rate: TypeAlias = Annotated[float, Above(0), Below(1)]
"""Learning rate."""


def fault(value: Any, kind: Any) -> str | None:
    """What a type demands of a value, as "it must be ..."; None if the value is allowed."""
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


# --- configurations


class ConfigError(UserError, ValueError):
    """A field's value that its type does not allow."""

    def __init__(self, owner: type, path: Fields, value: Any, must: str, name: str = "") -> None:
        """Name the field, its value and what is allowed (``must``: "it must be at least 1").

        ``owner`` is the class of the configuration, or `object` for an argument of a function;
        ``name`` is how the user wrote the field, by default ``Class.field``.
        """
        text = name or ".".join((owner.__name__, *path))
        super().__init__(f"{text} is {show(value)}; {must}")
        self.owner, self.path, self.value, self.must, self.name = owner, path, value, must, name

    def named(self, name: str = "") -> ConfigError:
        """The same, of a field that the user wrote in another way."""
        return ConfigError(self.owner, self.path, self.value, self.must, name)

    def __reduce__(self) -> tuple[Any, ...]:
        """Cross to another process as the class, since the arguments are not the text."""
        return ConfigError, (self.owner, self.path, self.value, self.must, self.name)


class Config:
    """Base of every configuration: its `__post_init__` checks each field against its type."""

    FORMER: ClassVar[Mapping[str, str]] = {}
    """from the names of fields in files of earlier versions to today's"""
    GONE: ClassVar[Mapping[str, object]] = {}
    """fields of earlier versions that are gone, with the only value that still means the same"""

    def __post_init__(self) -> None:
        """Refuse a value that its field's type does not allow, then what `_check` refuses."""
        if not _UNCHECKED.get():
            _check_fields(self)
            self._check()

    def _check(self) -> None:
        """Compare fields with each other; every one of them is already within its own range."""

    def refuse(self, path: str, allowed: str) -> NoReturn:
        """Raise `ConfigError` for a field (or ``inner.field``), saying what is allowed."""
        fields = tuple(path.split("."))
        value = functools.reduce(getattr, fields, self)
        raise ConfigError(type(self), fields, value, f"it must be {allowed}")


_TYPES: dict[type, dict[str, Any]] = {}
"""What `types_of` has found, since to find it takes longer than to check."""
_UNCHECKED: ContextVar[bool] = ContextVar("_UNCHECKED", default=False)


@contextmanager
def unchecked() -> Iterator[None]:
    """Build configurations without checks, because `validate` follows and knows their names."""
    token = _UNCHECKED.set(True)
    try:
        yield
    finally:
        _UNCHECKED.reset(token)


def validate(obj: Any, name: Callable[[Fields], str], path: Fields = ()) -> None:
    """Check a dataclass and all inside of it; the first value not allowed is a ConfigError.

    ``name`` tells how the user wrote a field, given by its path from the outermost dataclass;
    ``path`` leads from there to ``obj``.
    """
    try:
        _check_fields(obj)
        for field in dataclasses.fields(obj):
            if dataclasses.is_dataclass(value := getattr(obj, field.name)):
                validate(value, name, (*path, field.name))
        if isinstance(obj, Config):
            obj._check()
    except ConfigError as error:
        if error.owner is not type(obj):  # named already, further inside
            raise
        raise error.named(name((*path, *error.path))) from None


def require(name: str, value: Any, kind: Any) -> None:
    """Check an argument of a function by a type such as `Count`; ConfigError as for a field."""
    if must := fault(value, kind):
        raise ConfigError(object, (name,), value, must, name)


def _check_fields(obj: Any) -> None:
    for name, kind in types_of(type(obj)).items():
        if must := fault(getattr(obj, name), kind):
            raise ConfigError(type(obj), (name,), getattr(obj, name), must)


def types_of(cls: type) -> dict[str, Any]:
    """The types of a dataclass's fields, with their rules."""
    if cls not in _TYPES:
        hints = get_type_hints(cls, include_extras=True)
        _TYPES[cls] = {field.name: hints[field.name] for field in dataclasses.fields(cls)}
    return _TYPES[cls]
