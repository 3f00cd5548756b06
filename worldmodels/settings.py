"""Configurations from JSON, and with single settings changed by their names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

from worldmodels.presets import RunConfig
from worldmodels.protocols import UserError
from worldmodels.runs import to_jsonable

T = TypeVar("T")


def from_json(record: Mapping[str, Any]) -> RunConfig:
    """The configuration that a run folder's `config.json` holds.

    Raises:
        UserError: a field is missing or refused: another version's run.
    """
    known = {f.name for f in dataclasses.fields(RunConfig)}
    return _build(RunConfig, {name: record[name] for name in known & set(record)}, "config")


def with_settings(cfg: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
    """The configuration with some fields changed, named as on the command line.

    Args:
        cfg: the configuration.
        settings: from names such as ``dream.temperature`` to values.

    Raises:
        UserError: there is no such field, or it refuses the value.
    """
    record = to_jsonable(cfg)
    for name, value in settings.items():
        *path, last = name.replace("-", "_").split(".")
        place = record
        for depth, part in enumerate([*path, last]):
            if not isinstance(place, dict) or part not in place:
                where = ".".join(path[:depth]) or "a run"
                allowed = ", ".join(place) if isinstance(place, dict) else "none: it is a value"
                raise UserError(
                    f"unknown setting {name!r}: {where} has no {part!r}; it has {allowed}"
                )
            place = place[part] if depth < len(path) else place
        place[last] = value
    return from_json(record)


def _build(cls: type[T], record: Any, where: str) -> T:
    """Make a config dataclass of what `to_jsonable` made of it, lists becoming tuples."""
    if not isinstance(record, Mapping):
        raise UserError(f"{where} is {record!r}; it must be an object")
    hints, values = get_type_hints(cls), {}
    for name, value in record.items():
        if name not in hints:
            raise UserError(f"{where} has the unknown field {name!r}: another version wrote it")
        kind = hints[name]
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            value = _build(kind, value, f"{where}.{name}")
        values[name] = _tuples(value)
    try:
        return cls(**values)
    except TypeError as error:
        raise UserError(f"{where}: {error}") from error


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


__all__ = ["from_json", "with_settings"]
