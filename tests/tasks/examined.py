"""The environments of these tests, examined once."""

from __future__ import annotations

import functools
from typing import Any

from tests.envs.blocks import name_of
from worldmodels.tasks.choices import choices
from worldmodels.tasks.default import measure
from worldmodels.tasks.examination import Examination
from worldmodels.tasks.findings import findings


@functools.cache
def seen(kind: str) -> Examination:
    return measure(name_of(kind))


def settings(kind: str, preset: str = "quick") -> dict[str, Any]:
    return {one.setting: one.value for one in choices(seen(kind), preset)}


def verdict(kind: str) -> tuple[str, str]:
    first = findings(seen(kind))[0]
    return first.level, first.text
