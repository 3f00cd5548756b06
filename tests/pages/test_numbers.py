"""How the report reads, thins, places and writes numbers."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from worldmodels.metrics import latest, read_metrics
from worldmodels.pages import text
from worldmodels.pages.charts import label, positions, thinned
from worldmodels.pages.data import load_run
from worldmodels.pages.figures import final_selection, swarm
from worldmodels.pages.findings import selections
from worldmodels.pages.text import number, one_return

VALUES = st.lists(st.floats(-1000, 1000), min_size=1, max_size=200)


def rows(*places: tuple[int, int]) -> list[dict[str, float]]:
    return [{"iteration": k, "step": step} for k, step in places]


def test_iterations_that_start_again_are_put_in_a_row() -> None:
    again = rows((0, 10), (0, 20), (1, 10), (1, 30), (2, 10))
    assert positions(again, "step").tolist() == [10, 20, 30, 50, 60]


def test_a_counter_that_runs_on_stays() -> None:
    places = positions(rows((0, 10), (0, 20), (1, 30), (1, 40)), "step")
    assert places.tolist() == [10, 20, 30, 40]


def test_later_lines_replace_earlier_ones_of_the_same_place() -> None:
    lines = [
        {"iteration": 0, "step": 2, "loss": 1.0, "val": 5.0},
        {"iteration": 0, "step": 1, "loss": 2.0},
        {"iteration": 0, "step": 2, "loss": 3.0},
        {"iteration": 0, "step": 2, "loss": 9.0, "member": 1},
        {"iteration": 0, "loss": 4.0},
    ]
    assert latest(lines, "step") == [
        {"iteration": 0, "step": 1, "loss": 2.0},
        {"iteration": 0, "step": 2, "loss": 3.0, "val": 5.0},
    ]


def test_last_selected_checkpoint_is_the_final_one() -> None:
    lines = [{"real_mean": float(i), "selected": i in (1, 2)} for i in range(4)]
    assert final_selection(lines) == lines[2]
    assert final_selection([]) is None


@pytest.mark.parametrize("winner", [None, 0, 1])
def test_the_finalist_that_won_is_the_selected_one(tmp_path: Path, winner: int | None) -> None:
    lines: list[dict[str, object]] = [
        {"stage": "selection", "iteration": k, "generation": 1, "real_mean": 5.0, "selected": True}
        for k in (0, 1)
    ]
    if winner is not None:
        lines.append({"stage": "final", "iteration": 2, "winner": winner, "real_mean": 6.0})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    final = final_selection(selections(load_run(tmp_path)))
    assert final is not None
    assert final["iteration"] == (1 if winner is None else winner)


def test_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"stage": "vision", "step": 1}\n\n{"stage": "vis')
    assert read_metrics(path) == {"vision": [{"stage": "vision", "step": 1}]}
    assert read_metrics(tmp_path / "absent.jsonl") == {}


@given(VALUES, st.floats(0.5, 100))
def test_swarm_keeps_dots_of_one_bin_apart(values: list[float], width: float) -> None:
    places = swarm(values, width)
    dots = {(int(v // width), p) for v, p in zip(values, places, strict=True)}
    assert len(dots) == len(values)


@given(VALUES, st.integers(1, 50))
def test_thinning_keeps_order_range_and_limit(values: list[float], limit: int) -> None:
    y = np.array(values)
    x = np.arange(len(y), dtype=float)
    thin_x, thin_y = thinned(x, y, limit)
    assert len(thin_x) == len(thin_y) <= limit
    assert (np.diff(thin_x) > 0).all()
    assert y.min() - 1e-9 <= thin_y.min() and thin_y.max() <= y.max() + 1e-9


def test_thinning_averages_blocks_and_leaves_out_what_is_missing() -> None:
    y = np.array([1.0, 3.0, np.nan, 5.0, 7.0])
    thin_x, thin_y = thinned(np.arange(5.0), y, 2)
    assert thin_x.tolist() == [0.5, 3.5]
    assert thin_y.tolist() == [2.0, 6.0]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (125, "2 min 5 s"),
        (3600, "1 h"),
        (11_520, "3 h 12 min"),
        (None, text.MISSING),
    ],
)
def test_durations(seconds: float | None, said: str) -> None:
    assert text.duration(seconds) == said


def test_scores_and_counts() -> None:
    assert text.score(-33.4) == "\N{MINUS SIGN}33"
    assert text.score(-0.2, 0) == text.score(-0.001) == "0"
    assert text.score(-0.2) == "\N{MINUS SIGN}0.2" and text.score(0.469) == "0.47"
    assert text.score(1139.2, 1) == "1,139.2"
    assert text.score(math.nan) == text.MISSING
    assert text.count(318_000) == "318,000"
    assert text.cores(1) == "1 core" and text.cores(2) == "2 cores"
    assert text.large(55_296_000) == "55.3 million"
    assert text.large(1.72e9) == "1.7 billion"
    assert text.large(999_999) == "999,999"
    assert text.percent(0.085) == "8%"
    assert text.percent(None) == text.MISSING


def test_only_finite_numbers_count_as_numbers() -> None:
    assert [number(v) for v in (1, 2.5, True, None, "3", math.inf)] == [
        1.0,
        2.5,
        None,
        None,
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ((9.4, 11.1), ["9.5", "10.0", "10.5", "11.0"]),
        ((0, 1000), ["0", "250", "500", "750", "1,000"]),
        ((-0.3, 0), ["−0.24", "−0.16", "−0.08", "0.00"]),
    ],
)
def test_neighbours_on_an_axis_of_returns_differ(
    limits: tuple[float, float], said: list[str]
) -> None:
    axes = Figure().add_subplot()
    axes.set_xlim(*limits)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    label(axes.xaxis)
    shown = [tick for tick in axes.get_xticks() if limits[0] <= tick <= limits[1]]
    assert [axes.xaxis.get_major_formatter()(tick) for tick in shown] == said


def test_a_small_return_is_not_rounded_to_one() -> None:
    assert [one_return(value) for value in (0.9647, 0.0, -9.96, 10, -242.31, math.nan)] == [
        *("0.965", "0.0", "-9.960", "10.0", "-242.3"),
        "–",
    ]
