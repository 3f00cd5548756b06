"""No input of any area ends in a traceback or a hang, or is accepted and refused later.

A small sample, always the same one; `python -m tests.fuzz --examples 2000` tries more.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz.areas import AREAS
from tests.fuzz.guard import Broken, attempt, signature

EXAMPLES = {
    "flags": 50,
    "runs": 20,
    "comparisons": 25,
    "agents": 100,
    "shards": 150,
    "stage files": 100,
}


@pytest.mark.parametrize("name", AREAS)
def test_every_input_is_done_or_refused_in_one_line(name: str) -> None:
    area = AREAS[name]

    @settings(
        max_examples=EXAMPLES[name],
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],  # finding the smallest case would take minutes
        suppress_health_check=list(HealthCheck),
    )
    @given(area.cases)
    def check(case: Any) -> None:
        _, error = attempt(area.check, case)
        if error is not None:
            raise Broken(f"{case!r}: {signature(error)}") from error

    check()


@pytest.mark.parametrize("name", AREAS)
def test_what_was_not_changed_is_accepted(name: str) -> None:
    area = AREAS[name]
    assert area.check(area.untouched) == "accepted"
