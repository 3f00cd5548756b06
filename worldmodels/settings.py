"""Configurations from JSON, and with single settings changed by their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worldmodels import config
from worldmodels.presets import RunConfig
from worldmodels.protocols import UserError
from worldmodels.runs import to_jsonable


def from_json(record: Mapping[str, Any]) -> RunConfig:
    """The configuration that a run folder's `config.json` holds.

    Raises:
        UserError: a field is missing or refused: another version's run.
    """
    return config.from_json(RunConfig, record, "config.", ignore_unknown=True)


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
    return config.from_json(RunConfig, record)
