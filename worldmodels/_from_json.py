"""Configurations from JSON objects: today's files, and those of earlier versions."""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from worldmodels.config import show, types_of, unchecked, validate
from worldmodels.protocols import UserError

T = TypeVar("T")


def from_json(cls: type[T], record: Any, where: str = "", ignore_unknown: bool = False) -> T:
    """A configuration from a JSON object by `to_jsonable`; missing fields take their defaults.

    ``where`` stands before a field's name in errors, such as "agent/config.json: vision.";
    ``ignore_unknown`` drops unknown entries of the object itself.

    Raises:
        UserError: names a field that is unknown or missing, or has a value that is not allowed.
    """
    if ignore_unknown and isinstance(record, Mapping):
        record = {name: record[name] for name in types_of(cls) if name in record}
    with unchecked():
        built: T = _build_fields(cls, record, where)
    validate(built, lambda path: where + ".".join(path))
    return built


@dataclass(frozen=True)
class Family:
    """In a field's type: the entry "kind" of a JSON object tells which class it describes."""

    classes: Mapping[str, type]
    default: str
    """kind of an object without that entry"""

    def pick(self, value: Any, where: str) -> type:
        """The class of a JSON object at ``where``; an unknown kind is a UserError."""
        kind = value.get("kind", self.default) if isinstance(value, Mapping) else self.default
        if not isinstance(kind, str) or kind not in self.classes:
            known = ", ".join(self.classes)
            raise UserError(f"{where}kind is {show(kind)}; it must be one of {known}")
        return self.classes[kind]


@dataclass(frozen=True)
class Former:
    """In a field's type: from values in files of earlier versions to today's."""

    names: Mapping[str, str]


def _build(kind: Any, value: Any, where: str) -> Any:
    """Make dataclasses, tuples and paths of their JSON values; leave others unchanged."""
    origin = get_origin(kind)
    if origin is Annotated:
        base, *extras = get_args(kind)
        for extra in extras:
            if isinstance(extra, Former) and isinstance(value, str):
                value = extra.names.get(value, value)
        for family in (extra for extra in extras if isinstance(extra, Family)):
            base = family.pick(value, where)
        return _build(base, value, where)
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
    former: Mapping[str, str] = getattr(kind, "FORMER", {})
    gone: Mapping[str, object] = getattr(kind, "GONE", {})
    for name, item in value.items():
        if name in gone:
            if item != gone[name]:
                only = f"it is gone since, and only {show(gone[name])} can be read"
                raise UserError(f"{place}.{name} is {show(item)}; {only}")
            continue
        name = former.get(name, name)
        if name not in hints:
            unknown = f"{place} has the unknown field {show(name)}, as another version may have"
            raise UserError(f"{unknown}; it has {', '.join(hints)}")
        values[name] = _build(hints[name], item, f"{where}{name}.")
    needed = inspect.signature(kind).parameters.values()
    missing = [p.name for p in needed if p.default is p.empty and p.name not in values]
    if missing:
        raise UserError(f"{place} lacks {', '.join(missing)}")
    return kind(**values)
