"""Configurations: a field's type says which values it may have, and one validator reads it.

A configuration is a frozen dataclass that inherits from `Config`::

    @dataclass(frozen=True)
    class DreamConfig(Config):
        horizon: Count = 300
        temperature: Annotated[float, AtLeast(0)] = 1.0
        reward: Literal["expected", "sampled"] = "expected"

Whoever builds one, in Python, from JSON (`from_json`) or from a command line
(`worldmodels.commands.parsing`), gets a `ConfigError` for the first field that its type does not
allow, which names the field as that person wrote it. Every float must be finite.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeAlias, TypeVar, Union, get_args, get_origin
from typing import get_type_hints as _hints

from worldmodels._ranges import (
    EVEN,
    NOT_EMPTY,
    Above,
    AtLeast,
    AtMost,
    Below,
    Between,
    Channels,
    Count,
    CountOrZero,
    Decay,
    Episodes,
    Few,
    Fraction,
    Horizon,
    HorizonOrZero,
    Limit,
    NotNegative,
    OneOf,
    Positive,
    PositiveFraction,
    Rate,
    Repeat,
    Rule,
    Seed,
    Size,
    SizeOrZero,
    Workers,
    fault,
    show,
)
from worldmodels.protocols import UserError

T = TypeVar("T")
Fields: TypeAlias = tuple[str, ...]
"""Names of fields, from a configuration down to one of its values."""


class ConfigError(UserError, ValueError):
    """A field's value that its type does not allow."""

    def __init__(self, owner: type, path: Fields, value: Any, must: str, name: str = "") -> None:
        """Name the field, its value and what is allowed.

        Args:
            owner: class of the configuration; `object` for an argument of a function.
            path: the field, or fields down to one of a configuration inside of it.
            value: what it is.
            must: such as "it must be at least 1".
            name: how the user wrote the field; empty for ``Class.field``.
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
    """Check a dataclass and all inside of it.

    Args:
        obj: a configuration, or a command that holds some.
        name: from fields, counted from the outermost dataclass, to how the user wrote them.
        path: the fields from there to ``obj``.

    Raises:
        ConfigError: the first value that is not allowed.
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
    """Check an argument of a function as if it were a field.

    Args:
        name: of the argument.
        value: what was given.
        kind: the type, such as `Count`.

    Raises:
        ConfigError: names the argument, its value and what is allowed.
    """
    if must := fault(value, kind):
        raise ConfigError(object, (name,), value, must, name)


def _check_fields(obj: Any) -> None:
    for name, kind in types_of(type(obj)).items():
        if must := fault(getattr(obj, name), kind):
            raise ConfigError(type(obj), (name,), getattr(obj, name), must)


def types_of(cls: type) -> dict[str, Any]:
    """The types of a dataclass's fields, with their rules."""
    if cls not in _TYPES:
        hints = _hints(cls, include_extras=True)
        fields = dataclasses.fields(cls)
        _TYPES[cls] = {field.name: hints[field.name] for field in fields}
    return _TYPES[cls]


def from_json(cls: type[T], record: Any, where: str = "", ignore_unknown: bool = False) -> T:
    """A configuration from what `to_jsonable` made of it; what is missing takes its default.

    Args:
        cls: a dataclass.
        record: the JSON object.
        where: what stands before a field's name in errors, such as "agent/config.json: vision.".
        ignore_unknown: drop entries of the object, though not of those inside of it, that are no
            fields.

    Raises:
        UserError: a field is unknown, missing, or has a value that it may not have; it is named.
    """
    if ignore_unknown and isinstance(record, Mapping):
        known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]  # it is one
        record = {name: record[name] for name in known if name in record}
    with unchecked():
        built: T = _build_fields(cls, record, where)
    validate(built, lambda path: where + ".".join(path))
    return built


@dataclasses.dataclass(frozen=True)
class Family:
    """In a field's type: the entry "kind" of a JSON object tells which class it describes."""

    classes: Mapping[str, type]
    default: str
    """kind of an object without that entry"""

    def pick(self, value: Any, where: str) -> type:
        """The class of a JSON object, which stands at ``where``.

        Raises:
            UserError: there is no such kind.
        """
        kind = value.get("kind", self.default) if isinstance(value, Mapping) else self.default
        if not isinstance(kind, str) or kind not in self.classes:
            known = ", ".join(self.classes)
            raise UserError(f"{where}kind is {show(kind)}; it must be one of {known}")
        return self.classes[kind]


def _build(kind: Any, value: Any, where: str) -> Any:
    """Make dataclasses, tuples and paths of what JSON has in their place; leave the rest."""
    origin = get_origin(kind)
    if origin is Annotated:
        base, *extras = get_args(kind)
        families = [extra for extra in extras if isinstance(extra, Family)]
        return _build(families[0].pick(value, where) if families else base, value, where)
    if origin in (Union, types.UnionType):
        others = [part for part in get_args(kind) if part is not type(None)]
        return value if value is None or len(others) != 1 else _build(others[0], value, where)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = get_args(kind)
        if len(kinds) != len(value) or kinds[-1] is Ellipsis:
            kinds = kinds[:1] * len(value)
        return tuple(_build(k, item, where) for k, item in zip(kinds, value, strict=True))
    if kind is Path and isinstance(value, str):
        return Path(value)
    fields = isinstance(kind, type) and dataclasses.is_dataclass(kind)
    return _build_fields(kind, value, where) if fields else value


def _build_fields(kind: Any, value: Any, where: str) -> Any:
    """Make a dataclass of a JSON object, unchecked."""
    place = where.rstrip(".: ") or kind.__name__
    if not isinstance(value, Mapping):
        raise UserError(f"{place} is {show(value)}; it must be an object")
    hints, values = types_of(kind), {}
    for name, item in value.items():
        if name not in hints:
            known = f"it has {', '.join(hints)}"
            raise UserError(
                f"{place} has the unknown field {show(name)}, as another version may have; {known}"
            )
        values[name] = _build(hints[name], item, f"{where}{name}.")
    missing = [
        field.name
        for field in dataclasses.fields(kind)
        if field.name not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"{place} lacks {', '.join(missing)}")
    return kind(**values)


__all__ = [
    "EVEN",
    "NOT_EMPTY",
    "Above",
    "AtLeast",
    "AtMost",
    "Below",
    "Between",
    "Channels",
    "Config",
    "ConfigError",
    "Count",
    "CountOrZero",
    "Decay",
    "Episodes",
    "Family",
    "Few",
    "Fields",
    "Fraction",
    "Horizon",
    "HorizonOrZero",
    "Limit",
    "NotNegative",
    "OneOf",
    "Positive",
    "PositiveFraction",
    "Rate",
    "Repeat",
    "Rule",
    "Seed",
    "Size",
    "SizeOrZero",
    "Workers",
    "from_json",
    "require",
    "show",
    "unchecked",
    "validate",
]
