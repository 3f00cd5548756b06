"""Entries of docs/results: whole, and what their page says is what their files say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from worldmodels.metrics import read_lines
from worldmodels.pages.entry import METRICS, enter
from worldmodels.protocols import UserError

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/results/entries/2026-11-23-misses.md"
ENTRY = ROOT / "benchmarks/results/2026-11-23-misses"


def test_an_entry_says_what_its_files_say(tmp_path: Path) -> None:
    page, title = tmp_path / "page.md", "A missed tile has its price"
    text = enter(ENTRY, page, tmp_path / "again", title, "0dfe522").read_text()
    assert PAGE.read_text().startswith(text)
    for file in ("config.json", "frames.json", "evaluation.json"):
        assert (tmp_path / "again" / file).read_text() == (ENTRY / file).read_text()
    assert read_lines(tmp_path / "again" / METRICS) == read_lines(ENTRY / METRICS)
    mean = json.loads((ENTRY / "evaluation.json").read_text())["mean"]
    assert f"# A missed tile has its price: {mean:.0f}" in text
    noted = enter(ENTRY, page, tmp_path / "noted", "T", "0", "**why**")
    assert "\n**why**" in noted.read_text()


def test_small_returns_keep_the_digits_that_their_interval_allows(tmp_path: Path) -> None:
    name = "2026-11-30-memory-seed-1"
    title = "MiniGrid's Memory with the choices of check, seed 1"
    run, page = ROOT / "benchmarks/results" / name, ROOT / f"docs/results/entries/{name}.md"
    text = enter(run, tmp_path / "page.md", tmp_path / "again", title, "74998f1").read_text()
    assert page.read_text().startswith(text)
    assert "has a mean return of **0.54** over 100" in text


def test_a_run_that_was_not_tested_is_no_entry(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match=r"has no config\.json.*a run that was tested"):
        enter(tmp_path / "run", tmp_path / "page.md", tmp_path / "entry", "T", "0")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
