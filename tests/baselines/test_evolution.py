"""Evolution on real returns: a group drives like each of its candidates alone, and runs resume."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines import evolution
from baselines.evolution import DriveConfig, EvolutionConfig, RealReturns, evolve_in_reality
from tests.baselines.test_dream import make_agent
from tests.experience import fakes
from tests.sinks import stand_in
from worldmodels import executors, runs
from worldmodels.agent import Agent
from worldmodels.controller.strategies import StrategyConfig
from worldmodels.evaluation import AgentParameters, evaluate
from worldmodels.protocols import TRAINING_SEED_LIMIT, ReturnFunction, UserError

P, E = 5, 3


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with an agent and a ledger."""
    run = runs.RunFolder(tmp_path_factory.mktemp("home") / "world")
    make_agent().save_pretrained(run.agent, "float32")
    run.ledger.add("collection", 700, "collect")
    return run.path


def config(home: Path, out: Path, **changes: Any) -> EvolutionConfig:
    base = EvolutionConfig(
        agent=home / "agent",
        out=out,
        frames=3000,
        strategy=StrategyConfig(population=6, sigma0=0.5),
        drive=DriveConfig(episodes=2, group=4),
        evaluate_every=3,
        evaluate_episodes=2,
        placement=executors.Placement(1),
    )
    return dataclasses.replace(base, **changes)


def population(agent: Agent, seed: int = 0) -> Any:
    noise = np.random.default_rng(seed).standard_normal((P, agent.parameters.size))
    return (agent.parameters + 0.5 * noise).astype(np.float32)


def test_a_group_drives_like_each_candidate_alone(home: Path) -> None:
    agent = Agent.from_pretrained(home / "agent")
    cfg = DriveConfig(episodes=E, group=2)
    returns = RealReturns(home / "agent", cfg, executors.make("serial"))
    assert isinstance(returns, ReturnFunction)
    got = returns(population(agent), seed=4)
    tracks = np.random.default_rng(4).integers(TRAINING_SEED_LIMIT, size=E).tolist()
    frames = 0
    for candidate, value in zip(population(agent), got, strict=True):
        alone = evaluate(AgentParameters(home / "agent", candidate), fakes.BOX, tracks, workers=1)
        assert value == pytest.approx(alone.mean, rel=1e-4)
        frames += alone.frames
    assert returns.frames == frames
    assert len(set(got.round(3))) == P


def test_workers_do_not_matter(home: Path) -> None:
    agent, cfg = Agent.from_pretrained(home / "agent"), DriveConfig(episodes=E, group=2)
    got = []
    for workers in (1, 2):
        with executors.make(None, workers) as executor:
            got.append(RealReturns(home / "agent", cfg, executor)(population(agent), seed=1))
    np.testing.assert_array_equal(got[0], got[1])


def test_evolution_improves_counts_and_resumes(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evolve_in_reality(config(home, tmp_path / "whole"))
    curve = runs.read_json(whole / "curve.json")["points"]
    totals = runs.read_json(whole / "frames.json")["totals"]
    assert totals["collection"] == 700
    assert totals["model_free"] == curve[-1]["frames"] >= 3000
    assert curve[-1]["real_frames"] == sum(totals.values())
    assert curve[-1]["mean"] > curve[0]["mean"]  # moving the level up is all that pays
    best = max(curve, key=lambda point: point["mean"])
    agent = Agent.from_pretrained(whole / "agent")
    assert agent.metadata["selection"]["step"] == best["step"]
    measured = evaluate(whole / "agent", fakes.BOX, range(500_000, 500_002), workers=1)
    np.testing.assert_allclose(measured.returns, best["returns"], rtol=1e-4)

    # killed after the books of generation 4 are written, before the strategy's state is
    note = evolution._Session._note

    def killed(session: Any, record: Any, seconds: float) -> None:
        note(session, record, seconds)
        if record.generation == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(evolution._Session, "_note", killed)
        with pytest.raises(KeyboardInterrupt):
            evolve_in_reality(config(home, tmp_path / "killed"))
    other = evolve_in_reality(config(home, tmp_path / "killed"))
    for name in ("frames.json", "curve.json"):
        mine, theirs = runs.read_json(whole / name), runs.read_json(other / name)
        for record in (mine, theirs):
            for point in record.get("points", []):
                point["seconds"] = 0
            for name in ("training_seconds", "selection_seconds"):
                record.pop(name, None)
        assert mine == theirs
    assert (whole / "last/controller.safetensors").read_bytes() == (
        other / "last/controller.safetensors"
    ).read_bytes()


def test_a_run_may_be_made_longer_but_not_changed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sinks, log = stand_in(monkeypatch), ("tensorboard", "wandb")
    evolve_in_reality(config(home, tmp_path / "run", frames=100, log=log))
    assert sinks.filled()
    steps = len(runs.read_json(tmp_path / "run/curve.json")["points"])
    evolve_in_reality(config(home, tmp_path / "run", frames=2000))
    assert len(runs.read_json(tmp_path / "run/curve.json")["points"]) > steps
    with pytest.raises(UserError, match="was begun with evaluate_every 3"):
        evolve_in_reality(config(home, tmp_path / "run", evaluate_every=4))


def test_a_search_in_components_resumes(home: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"components": 2, "mean_window": 2}
    whole = evolve_in_reality(config(home, tmp_path / "whole", **changes))
    evolve_in_reality(config(home, tmp_path / "parts", frames=100, **changes))
    parts = evolve_in_reality(config(home, tmp_path / "parts", **changes))
    one, other = (Agent.from_pretrained(run / "last").parameters for run in (whole, parts))
    np.testing.assert_array_equal(one, other)
    bare = Agent.from_pretrained(home / "agent")
    bare.starts = None
    run = runs.RunFolder(tmp_path / "bare")
    bare.save_pretrained(run.agent, "float32")
    run.ledger.add("collection", 700, "collect")
    with pytest.raises(UserError, match=r"components is 2, but agent .* has no recorded starts"):
        evolve_in_reality(config(tmp_path / "bare", tmp_path / "none", **changes))


def test_wrong_settings_are_named() -> None:
    with pytest.raises(UserError, match=r"DriveConfig\.group is 0"):
        DriveConfig(group=0)
    with pytest.raises(UserError, match="frames is 0"):
        EvolutionConfig(Path("a"), frames=0)
