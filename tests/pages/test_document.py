"""Pages made of sections: every kind of block, and the pages of studies and comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from worldmodels.metrics import VariantRow
from worldmodels.pages import document, overview, text
from worldmodels.pages.charts import Line, Panel, panels_of, training_chart
from worldmodels.pages.document import Block, Document, Section, Table
from worldmodels.pages.study import build_study

from .parser import standing_alone

ODD = '<b>&"$x^2$'
"""A name that must be shown as it is."""
TABLE = Table(["name", "value"], [[ODD, "1"]])


def chart_of(rows: list[dict[str, Any]], name: str = "c") -> document.Plot:
    chart = training_chart(name, rows, "step", [Panel(ODD, [Line("loss", ODD, "vision")])])
    assert chart is not None
    return document.Plot(chart, ODD, ODD)


def blocks() -> list[Block]:
    rows = [{"step": k, "loss": 2.0**-k} for k in range(4)]
    picture = document.drawn(np.zeros((4, 6), np.uint8), ODD, ODD)
    film = document.Medium("a.mp4", document.data_uri(b"film", ".mp4"), ODD, size=(64, 48))
    return [
        chart_of(rows),
        document.Pair([chart_of(rows, "d"), chart_of(rows, "e")]),
        document.Figures(TABLE, ODD, ODD, prose=True),
        document.Media([picture, film]),
        document.Points([ODD]),
        document.Points([ODD], folded=ODD),
        document.Warnings([ODD, ODD], many=ODD),
        document.Warnings([], calm=ODD),
        document.Missing(ODD, ODD),
        document.Heading(ODD),
        document.Text(ODD),
        document.Text(ODD, quiet=True),
        document.Link("data:,", ODD, ODD),
        overview.Score(ODD, ODD, ODD, overview.Ruler(ODD, 5, (4, 2), [overview.Tick(3, ODD)])),
        overview.Facts([overview.Fact(ODD, ODD, ODD)]),
        overview.Bars([ODD], [overview.Bar(ODD, [1.0], ODD, ODD, ODD)], 2.0, "frames"),
        document.Settings([(ODD, TABLE)]),
        document.Guide([(ODD, ODD)]),
    ]


def test_every_block_is_shown_escaped_in_a_page_that_stands_alone(tmp_path: Path) -> None:
    sections = [Section(f"Part {k}", [block], ODD) for k, block in enumerate(blocks())]
    page = Document(ODD, ODD, [ODD], [*sections, Section("Nothing")], ODD)
    html = page.write(tmp_path / "page.html").read_text(encoding="utf-8")
    found = standing_alone(html)
    assert found.sections == {
        f"part-{k}" for k in range(len(sections))
    }  # the empty one is left out
    assert ODD not in html and html.count("&lt;b&gt;&amp;") > 20
    assert found.tags.count("video") == found.tags.count("img") == 1
    assert 'width="64" height="48"' in html


def test_a_page_of_work_that_lasts_reloads_itself_and_leaves_out_what_is_missing(
    tmp_path: Path,
) -> None:
    absent = document.Missing("the rest", "make it")
    sections = [
        Section("Full", [document.Heading("None"), absent, document.Heading("One"), *blocks()]),
        Section("Empty", [document.Heading("None"), document.Pair([absent])]),
    ]
    page = Document("t", "e", ["c"], sections, "make", "3 of 4", top=[absent], tab="short")
    html = page.write(tmp_path / "page.html").read_text("utf-8")
    found = standing_alone(html)
    assert found.sections == {"full"}
    assert "Not there yet" not in html and "None" not in html and "<h3>One</h3>" in html
    assert 'data-reload="20"' in html and "<b>Running</b> 3 of 4." in html
    assert "<title>short</title>" in html
    done = Document("t", "e", ["c"], sections, "make").write(tmp_path / "done.html")
    assert "data-reload" not in done.read_text("utf-8")
    assert standing_alone(done.read_text("utf-8")).sections == {"full", "empty"}


def test_settings_are_words_and_not_json() -> None:
    config: dict[str, Any] = {
        "a": None,
        "b": True,
        "c": [0.5, 2.0],
        "d": [[1, 2], [3, 4]],
        "e": [{"f": []}],
    }
    ((_, found),) = document.settings_tables(config)
    values = [value for _, value in found.rows]
    assert values == ["none", "yes", "0.5, 2", "(1, 2), (3, 4)", "(f none)"]


def test_a_chart_of_metrics_shows_what_changes() -> None:
    rows = [{"stage": "train", "step": k, "depth": 16, "loss": float(k)} for k in (1, 2)]
    assert [panel.label for panel in panels_of(rows, "step", "vision")] == ["loss"]
    assert training_chart("a", rows[:1], "step", panels_of(rows, "step", "vision")) is None
    again = training_chart("a", [*rows, *rows], "step", panels_of(rows, "step", "vision"))
    assert again is not None and "line of metrics, by step" in again.variants[0][1]


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (857.3, 11.0, "857 ± 11"),
        (857.3, 9.0, "857 ± 9"),
        (857.3, 1.5, "857.3 ± 1.5"),
        (-0.04567, 0.0031, "−0.046 ± 0.003"),
        (0.5, 0.0, "0.500 ± 0"),
        (909.46, None, "909"),
    ],
)
def test_a_value_has_the_digits_of_its_error(value: float, error: float | None, said: str) -> None:
    assert text.spread(value, error) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (12345, "12,345"),
        (1083.4, "1,083"),
        (0.0205, "0.0205"),
        (0.99996, "1.00"),
        (18.1437, "18.1"),
        (0.0, "0"),
        (7.77e-7, "7.77·10⁻⁷"),
        (-1e9, "−1·10⁹"),
        (float("nan"), text.MISSING),
        ("word", "word"),
    ],
)
def test_figures_of_unknown_error_have_three_digits(value: object, said: str) -> None:
    assert text.figure(value) == said


def study_of(seeds: int) -> tuple[list[VariantRow], list[dict[str, Any]]]:
    names = ["as the run", ODD, *(f"variant {k}" for k in range(7))]
    std = 3.0 if seeds > 1 else None
    keys = ("dream", "selection", "validated", "dreamed", "oracle")
    rows = [
        {"variant": name, "seeds": seeds}
        | {key: 800.0 + k for key in keys}
        | {f"{key}_std": std for key in keys}
        for k, name in enumerate(names)
    ]
    cells = [
        {
            "variant": name,
            "settings": {"dream.temperature": 1.3} if name == ODD else {},
            "untrained": name == "variant 0",
            "snapshots": [{"generation": g, "dream": 9.0 * g, "test": [1.0, g]} for g in (2, 4)],
            "versions": {"torch": "2"},
        }
        for name in names
    ]
    return cast(list[VariantRow], rows), cells


def test_a_study_begins_with_its_best_variant(tmp_path: Path) -> None:
    html = build_study(*study_of(3), tmp_path / ODD, tmp_path / "study.html").read_text("utf-8")
    standing_alone(html)
    assert "variant 6 scores best: 808 ± 3 mean test return" in html.split("<main")[0]
    assert html.index('id="result"') < html.index('id="warnings"')
    assert "No warning" in html and "<b>" not in html.split("<main")[1].split("<svg")[0]
    assert "dream.temperature</th><td>1.3" in html and "of random weights" in html
    few = build_study(*study_of(1), tmp_path, tmp_path / "few.html").read_text("utf-8")
    assert "differences may come from the seeds" in few and "± 3" not in few
