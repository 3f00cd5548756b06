"""How far a run is: its stages by name and number, and the time that is left."""

from __future__ import annotations

import re
from typing import Any

import pytest

from worldmodels.pages.text import about
from worldmodels.pipeline.schedule import USUAL, Schedule, plan
from worldmodels.presets import PRESETS
from worldmodels.run_config import changed

QUICK = PRESETS["quick"]()


def rows(schedule: Schedule, count: int, speed: float) -> list[dict[str, Any]]:
    """Lines of metrics of the first stages, at the usual rates times a factor."""
    return [
        {
            "name": stage.name,
            "iteration": stage.iteration,
            "seconds": speed * USUAL[stage.kind] * stage.work,
        }
        for stage in schedule.stages[:count]
    ]


@pytest.mark.parametrize("preset", ["smoke", "quick", "full"])
def test_the_plan_has_the_stages_of_a_run(preset: str) -> None:
    cfg = PRESETS[preset]()
    found = [(stage.name, stage.iteration) for stage in plan(cfg)]
    loop = ["collect", "vision", "encode", "memory", "controller", "select"]
    assert found[: 6 * cfg.iterations] == [(n, k) for k in range(cfg.iterations) for n in loop]
    once = ["final", "residual", "ensemble", "test", "controls"]
    absent = {"controls"} if preset == "smoke" else {"residual"}
    last = cfg.iterations
    assert found[6 * last :] == [(name, last) for name in once if name not in absent]


def test_kept_models_cost_nothing_and_fine_tuning_less() -> None:
    fresh = {"from_scratch.iterations": 1, "from_scratch.memory_steps": 6000}
    work = {(stage.name, stage.iteration): stage.work for stage in plan(changed(QUICK, fresh))}
    vision = QUICK.vision_training
    assert work["vision", 0] == vision.steps * vision.batch_size
    assert work["vision", 1] == vision.finetune_steps * vision.batch_size
    assert work["vision", 2] == 0
    assert work["memory", 3] > work["memory", 0] > work["memory", 1]  # from scratch, longer


def test_nothing_is_estimated_before_enough_is_measured() -> None:
    schedule = Schedule(QUICK)
    assert schedule.place("collect", 0) == "stage 1 of 28"
    schedule.measured(rows(schedule, 1, 3.0))
    assert schedule.place("vision", 0) == "stage 2 of 28"


@pytest.mark.parametrize("speed", [0.5, 4.0])
def test_time_left_follows_the_measured_rates(speed: float) -> None:
    schedule = Schedule(QUICK)
    schedule.measured(rows(schedule, 8, speed))
    every = rows(schedule, 28, speed)
    left, whole = (about(sum(row["seconds"] for row in part)) for part in (every[8:], every))
    assert schedule.place("encode", 1) == f"stage 9 of 28, about {left} left of {whole}"


def test_a_kind_of_stage_has_the_rate_of_its_last_one() -> None:
    schedule = Schedule(changed(QUICK, {"iterations": 2}))
    usual = rows(schedule, 12, 1.0)
    usual[4]["seconds"] *= 10  # evolution is ten times as slow as usual
    schedule.measured(usual[:10])
    said = schedule.place("controller", 1)
    found = re.search(r"about (\d+) min left", said)
    assert found is not None
    assert int(found[1]) * 60 >= usual[4]["seconds"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(1, "5 s"), (52, "50 s"), (58, "1 min"), (250, "4 min"), (5300, "88 min"), (9000, "2.5 h")],
)
def test_estimates_are_round(seconds: float, said: str) -> None:
    assert about(seconds) == said
