"""The scripts: short, explained, with help; each runs its command on its own folders."""

from __future__ import annotations

import ast
import re
import runpy
import sys
from pathlib import Path

import pytest

from tests.experience.fakes import BOX
from worldmodels.experience.collect import CollectConfig, collect
from worldmodels.experience.exploration import AR1Config

FOLDER = Path(__file__).resolve().parents[1] / "scripts"
SCRIPTS = sorted(path for path in FOLDER.glob("*.py") if not path.name.startswith("check_"))
STEPS = [
    "collect",
    "train_vision",
    "encode",
    "train_memory",
    "train_controller",
    "evaluate",
    "report",
]


ROOT = FOLDER.parent
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))


def run(path: Path, *words: str) -> object:
    """Exit status of a script, run in this process."""
    before = sys.argv
    sys.argv = [str(path), *words]
    try:
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(path), run_name="__main__")
    finally:
        sys.argv = before
    return end.value.code


def test_there_is_one_for_each_step() -> None:
    names = [path.stem for path in SCRIPTS]
    assert names[:7] == [f"{number}_{step}" for number, step in enumerate(STEPS, start=1)]
    assert {"run_pipeline", "train_sb3_in_dream"} <= set(names)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_it_is_short_and_explained(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 65
    assert len(ast.get_docstring(ast.parse(text)) or "") > 40


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_help(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(path, "--help") == 0
    command = re.search(r"sys.exit\(main\(\[\"([\w-]+)", path.read_text(encoding="utf-8"))
    named = f"usage: worldmodels {command[1]}" if command else path.name
    assert named in capsys.readouterr().out


def test_the_steps_know_their_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--preset", "smoke", "--workers", "1"]
    environment = ["--env", "tests.experience.fakes:fakes/Pixels-v0"]
    assert run(SCRIPTS[0], *words, *environment) == 0
    assert run(SCRIPTS[1], "--preset", "smoke") == 0
    assert run(SCRIPTS[2]) == 0
    assert run(SCRIPTS[6]) == 0
    found = {path.name for path in Path("runs/staged").iterdir()}
    assert {
        "episodes",
        "vision.safetensors",
        "z.safetensors",
        "report.html",
        "metrics.jsonl",
    } <= found
    assert run(SCRIPTS[4]) == 2
    assert "`worldmodels train-memory` makes one" in capsys.readouterr().err


def test_a_researchers_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("minari", "tensorboard"):
        pytest.importorskip(package)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    collect(CollectConfig(max_steps=40), BOX, AR1Config(), range(4), tmp_path / "run")
    words = [str(tmp_path / "run"), "--out", str(tmp_path / "hour"), "--max-steps", "1"]
    path = FOLDER / "researchers_hour.py"
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60 and not re.search(r"\b_[a-z]|import _", text)
    assert run(path, *words) == 0
    said = capsys.readouterr().out
    assert "4 episodes of" in said and "cem: real return" in said
    assert list((tmp_path / "hour/tensorboard").rglob("events.*"))
    assert (tmp_path / "hour/agent/memory.safetensors").is_file()
    assert (tmp_path / "minari/worldmodels/hour-v0").is_dir()


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.name)
def test_a_benchmark_is_explained_and_listed(path: Path) -> None:
    explained = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    assert f"    python benchmarks/{path.name}" in explained
    listed = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
    assert listed.count(f"| `benchmarks/{path.name}` |") == 1


def test_the_benchmarks_that_are_run_and_listed_are_there() -> None:
    (speed,) = re.findall(r"^SPEED := (.+)$", (ROOT / "Makefile").read_text(), re.M)
    listed = re.findall(
        r"`benchmarks/(\w+)\.py` \|", (ROOT / "docs/evaluation.md").read_text("utf-8")
    )
    assert {*speed.split(), *listed} == {path.stem for path in BENCHMARKS}
