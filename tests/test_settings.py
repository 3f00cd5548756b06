"""Configurations from JSON and by the names of their settings."""

from __future__ import annotations

from typing import Any

import pytest

from worldmodels._from_json import from_json
from worldmodels.presets import PRESETS
from worldmodels.protocols import UserError
from worldmodels.run_config import RunConfig
from worldmodels.runs import to_jsonable
from worldmodels.settings import with_settings


@pytest.mark.parametrize("name", list(PRESETS))
def test_json_and_back(name: str) -> None:
    cfg = PRESETS[name]()
    assert from_json(RunConfig, to_jsonable(cfg)) == cfg


def test_a_run_of_an_older_version_takes_defaults_for_what_it_lacks() -> None:
    record = to_jsonable(PRESETS["quick"]())
    del record["controller"]["components"]
    record["preset"], record["seed"] = "quick", 3
    found = from_json(RunConfig, record, ignore_unknown=True)
    assert found == with_settings(PRESETS["quick"](), {"controller.components": 0})


def test_settings_are_changed_by_name() -> None:
    cfg = with_settings(PRESETS["quick"](), {"dream.temperature": 1.3, "iterations": 2})
    assert (cfg.dream.temperature, cfg.iterations) == (1.3, 2)
    assert with_settings(cfg, {"experience.agent-noise": [0.1]}).experience.agent_noise == (0.1,)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("dream.heat", 1, "dream has no 'heat'; it has horizon"),
        ("sleep.heat", 1, "a run has no 'sleep'"),
        ("iterations.x", 1, "iterations has no 'x'; it has none: it is a value"),
        ("dream.temperature", -1, r"^dream\.temperature is -1; it must be at least 0$"),
        ("dream.horizon", "long", r"^dream\.horizon is 'long'; it must be a whole number"),
        ("dream", 3, "^dream is 3; it must be an object"),
    ],
)
def test_mistakes_are_named(name: str, value: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        with_settings(PRESETS["quick"](), {name: value})


def test_another_versions_field_is_named() -> None:
    record = to_jsonable(PRESETS["quick"]())
    record["dream"]["lucid"] = True
    with pytest.raises(UserError, match=r"config\.dream has the unknown field 'lucid'"):
        from_json(RunConfig, record, "config.")
