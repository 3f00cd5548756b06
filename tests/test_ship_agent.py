"""A run's agent becomes one of the package's: whole, small, and with its score on the card."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from pathlib import Path

import pytest

from tests.agents import make
from tests.pages.fixture import make_run
from tests.test_scripts import FOLDER, run
from worldmodels.agent import Agent
from worldmodels.protocols import SHIPPED

SCRIPT = FOLDER / "ship_agent.py"


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A run with results and an agent."""
    folder = make_run(tmp_path / "run", tracks=4, media=False)
    make(metadata={"seed": 3}).save_pretrained(folder / "agent")
    (folder / "agent" / "notes.txt").write_text("x")
    (tmp_path / "agents").mkdir()
    return folder


def test_the_agent_acts_as_before_and_its_card_has_the_score(finished: Path) -> None:
    to = finished.parent / "agents"
    for _ in range(2):  # the second takes the first one's place
        assert run(SCRIPT, str(finished), "--name", "mine", "--to", str(to)) == 0
    assert [path.name for path in to.iterdir()] == ["mine"]
    before, after = (Agent.from_pretrained(folder) for folder in (finished / "agent", to / "mine"))
    assert (before.parameters == after.parameters).all()
    assert after.vision.decoder is None and after.starts is None
    tested = json.loads((finished / "evaluation.json").read_text())
    ledger = json.loads((finished / "frames.json").read_text())["totals"]
    card = (to / "mine" / "README.md").read_text()
    assert f"Mean return {tested['mean']:.1f} +- {tested['std']:.1f}" in card
    assert "over 4 episodes, seeds 1000000 to 1000003" in card
    assert f"| collection | {ledger['collection']:,} |" in card
    assert (to / "mine" / "notes.txt").is_file()
    assert after.metadata["seed"] == 3


def test_dreams_are_kept_when_asked_for(finished: Path) -> None:
    to = finished.parent / "agents"
    assert run(SCRIPT, str(finished), "--name", "mine", "--to", str(to), "--dreams") == 0
    assert Agent.from_pretrained(to / "mine").vision.decoder is not None


def test_what_cannot_be_shipped_leaves_the_package_alone(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = finished.parent / "agents"
    words = [str(finished), "--name", "mine", "--to", str(to)]
    (finished / "agent" / "film.mp4").write_bytes(bytes(5_000_000))
    assert run(SCRIPT, *words) == 2
    assert "at most 5,000,000 are shipped" in capsys.readouterr().err
    (finished / "agent" / "film.mp4").unlink()
    agent = make()
    agent.env_id = "some_module:Id-v0"
    agent.save_pretrained(finished / "agent")
    assert run(SCRIPT, *words) == 2
    assert "without a module" in capsys.readouterr().err
    (finished / "evaluation.json").unlink()
    assert run(SCRIPT, *words) == 2
    assert not list(to.iterdir())


def test_the_package_stays_small() -> None:
    """A wheel, which is compressed, of at most 30 MB, of which the code takes one."""
    files = [file for file in SHIPPED.rglob("*") if file.is_file()]
    assert sum(len(zlib.compress(file.read_bytes(), 1)) for file in files) < 29_000_000
    sizes = Counter[str]()
    for file in files:
        sizes[file.relative_to(SHIPPED).parts[0]] += file.stat().st_size
    assert all(size <= 5_000_000 for name, size in sizes.items() if name != "car-racing")
