"""Claims of the documents are compared with data: each way in which one can be wrong is told."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {1: 900.0, 2: 910.4, 3: 850.0, 4: 905.0}
THEIRS = {1: 890.0, 2: 900.4, 3: 100.0, 4: 895.0, 5: 7.0}
DOCUMENT = """# Scores

It scores 891.4 (lowest 850) on 4 tracks; without the lost one it gains
10 points. The runs cost 12,000 frames and 1.5 minutes.

# Elsewhere

Other 7 things.
"""
GOOD = """
[covered]
"doc.md" = ["# Scores"]
[sources]
ours = "ours.json"
theirs = "part.json#theirs"
ledger = "frames.json"
metrics = "metrics.jsonl"
[["doc.md"]]
text = "It scores {891.4} (lowest {850}) on {4} tracks"
is = ["mean ours", "min ours", "count ours"]
[["doc.md"]]
text = "without the lost one it gains {10} points."
is = ["gain_mean ours!3 theirs"]
test = "tests/test_it.py::test_it"
[["doc.md"]]
text = "The runs cost {12,000} frames and {1.5} minutes."
is = ["frames ledger collection selection", "minutes metrics - minutes metrics test"]
"""


@pytest.fixture(scope="module")
def check_claims() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_claims", ROOT / "scripts/check_claims.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with one document, its data and a test."""
    results, pages = tmp_path / "benchmarks/results", tmp_path / "docs/results"
    results.mkdir(parents=True)
    pages.mkdir(parents=True)
    episodes = [{"seed": track, "return": value} for track, value in OURS.items()]
    theirs = {"first_seed": 1, "returns": list(THEIRS.values())}
    rows = [
        {"stage": "stage", "name": "vision", "seconds": 120.0},
        {"stage": "stage", "name": "test", "seconds": 30.0},
        {"stage": "vision", "loss": 1.0},
    ]
    totals = {"collection": 11_800, "selection": 650, "test": 9_000}
    (results / "ours.json").write_text(json.dumps({"episodes": episodes}))
    (results / "part.json").write_text(json.dumps({"theirs": theirs}))
    (results / "frames.json").write_text(json.dumps({"totals": totals}))
    (results / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (pages / "speed.md").write_text("| what | rate |\n|---|---|\n| ours | 17,762 steps/s |\n")
    (tmp_path / "doc.md").write_text(DOCUMENT)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_it.py").write_text("def test_it() -> None: ...\n")
    return tmp_path


def faults(module: ModuleType, checkout: Path, claims: str) -> list[str]:
    (checkout / "docs/claims.toml").write_text(claims)
    return list(module.Claims(checkout).faults())


def test_claims_that_hold_have_no_fault(check_claims: ModuleType, checkout: Path) -> None:
    assert faults(check_claims, checkout, GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("It scores {891.4}", "It has {891.4}", "the text is there 0 times"),
        ('"ours.json"', '"gone.json"', "mean ours has no value: FileNotFoundError"),
        ("mean ours", "median ours", "it says 891.4, but median ours is 902.5"),
        ("mean ours", "average ours", "there is no figure average"),
        ("mean ours", "mean nobody", "mean nobody has no value: KeyError 'nobody'"),
        ("gain_mean ours!3 theirs", "gain_mean ours theirs", "it says 10, but gain_mean ours"),
        ("gain_mean ours!3 theirs", "gain_mean theirs ours", "has no value: KeyError 5"),
        ("{10} points", "10 points", "0 figures in braces, 1 expressions"),
        ("::test_it", "::test_gone", "there is no test tests/test_it.py::test_gone"),
        ("(lowest {850}) ", "", "the text is there 0 times"),
        ('is = ["mean ours", "min ours", "count ours"]', "", "neither data nor a test bears it"),
        ('["# Scores"]', '["# Gone"]', "there is no section '# Gone'"),
        ('["# Scores"]', '["# Elsewhere"]', "no claim has 7 in: Other 7 things."),
        ('"frames ledger collection selection"', '"frames ledger test"', "it says 12,000"),
    ],
)
def test_a_claim_that_does_not_hold_is_told(
    check_claims: ModuleType, checkout: Path, old: str, new: str, fault: str
) -> None:
    assert old in GOOD
    found = faults(check_claims, checkout, GOOD.replace(old, new, 1))
    assert any(fault in line for line in found), found


def test_a_text_that_stands_twice_is_told(check_claims: ModuleType, checkout: Path) -> None:
    (checkout / "doc.md").write_text(DOCUMENT.replace("Other 7 things.", "It gains\n10 points."))
    claims = GOOD.replace("without the lost one it gains {10}", "gains {10}")
    (found,) = faults(check_claims, checkout, claims)
    assert "the text is there 2 times" in found


def test_figures_are_those_of_numpy(check_claims: ModuleType, checkout: Path) -> None:
    (checkout / "docs/claims.toml").write_text(GOOD + '[["x.md"]]\ntext = ""\n')
    claims = check_claims.Claims(checkout)
    claims.sources["printed"] = "speed.md|ours"
    ours, theirs = np.array(list(OURS.values())), np.array(list(THEIRS.values()))
    expected = {
        "se ours": ours.std(ddof=1) / 2,
        "below ours 900 * 100 / count ours": 25,
        "at_least theirs 890": 3,
        "mean theirs@2-4": theirs[1:4].mean(),
        "mean ours&theirs": np.concatenate([ours, theirs]).mean(),
        "mean ours?theirs<800": 850,
        "mean ours?theirs>=800": np.delete(ours, 2).mean(),
        "gain_mean ours theirs": (ours - theirs[:4]).mean(),
        "ci_low ours - ci_high ours": None,
        "cell printed 1": 17_762,
    }
    low, high = (claims.evaluate(f"{end} ours") for end in ("ci_low", "ci_high"))
    assert ours.min() < low < ours.mean() < high < ours.max()
    expected["ci_low ours - ci_high ours"] = low - high
    for expression, value in expected.items():
        assert claims.evaluate(expression) == pytest.approx(value), expression


@pytest.mark.parametrize(
    ("value", "shown", "same"),
    [
        (904.49, "904", True),
        (904.51, "904", False),
        (904.5, "905", True),
        (904.84, "904.8", True),
        (904.86, "904.8", False),
        (-82.7, "-83", True),
        (926_463, "926,000", True),
        (926_501, "926,000", False),
        (37_486, "37,486", True),
        (37_487, "37,486", False),
    ],
)
def test_rounding_is_that_of_the_digits_shown(
    check_claims: ModuleType, value: float, shown: str, same: bool
) -> None:
    assert check_claims.rounds_to(value, shown) is same


def test_ci_checks_the_claims() -> None:
    assert " claims " in (ROOT / ".ci/run").read_text()


def test_results_name_no_folder_of_a_machine() -> None:
    files = [*ROOT.glob("benchmarks/results/**/*.json*")]
    assert len(files) > 100
    assert not [file for file in files if re.search(r'": "/\w', file.read_text("utf-8"))]
