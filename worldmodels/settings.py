"""Single settings of a configuration, changed by their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worldmodels._from_json import from_json
from worldmodels.protocols import UserError
from worldmodels.run_config import RunConfig
from worldmodels.runs import parse_json, to_jsonable


def read_setting(word: str, text: str) -> tuple[str, Any]:
    """Name and value of a setting such as ``dream.temperature=1.3``, a word of a ``text``."""
    name, equals, value = word.partition("=")
    if not equals:
        raise UserError(f"{word!r} in {text!r} is not a setting: write name=value")
    try:
        return name, parse_json(value, "{}")
    except UserError:
        return name, value


def with_settings(cfg: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
    """The configuration with new values of fields with names such as ``dream.temperature``.

    Raises:
        UserError: an unknown field, or a value that it refuses.
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
    return from_json(RunConfig, record)
