"""Runs and evaluations as functions: the same as the commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import worldmodels
from tests.experience.fakes import BOX, DISCRETE
from worldmodels import cli, pipeline
from worldmodels.agent import Agent
from worldmodels.commands.parsing import load_preset
from worldmodels.protocols import UserError
from worldmodels.run_config import RunConfig
from worldmodels.runs import read_json
from worldmodels.settings import with_settings


class Still:
    """A policy that is nobody's agent."""

    def predict(self, observation: np.ndarray, *_: object, **__: object) -> tuple[np.ndarray, None]:
        return np.zeros((len(observation), 2), np.float32), None


def test_run_has_the_settings_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[RunConfig, Path, int]] = []
    monkeypatch.setattr(
        "worldmodels.api.run_pipeline", lambda cfg, out, seed, *_: asked.append((cfg, out, seed))
    )
    monkeypatch.setattr(
        pipeline, "run_pipeline", lambda cfg, out, seed, *_: asked.append((cfg, out, seed))
    )
    settings = {"dream.temperature": 1.1, "iterations": 3}
    made = tmp_path / "a"
    folder = worldmodels.run(
        BOX, made, preset="smoke", settings=settings, seed=4, max_steps=9, check=False
    )
    words = ["--preset", "smoke", "--env", BOX, "--seed", "4", "--max-steps", "9", "--no-check"]
    words += ["--dream.temperature", "1.1", "--iterations", "3", "--out", str(made)]
    assert cli.main(["run", *words]) == 0
    assert asked[0] == asked[1]
    assert asked[0][0] == with_settings(load_preset("smoke", BOX), settings).limited(9)
    assert folder == made
    with pytest.raises(UserError, match="unknown setting 'temperature'"):
        worldmodels.run(BOX, made, settings={"temperature": 1})
    with pytest.raises(UserError, match="--preset is 'small'"):
        worldmodels.run(BOX, made, preset="small")


def test_evaluate_is_the_command(tmp_path: Path) -> None:
    words = ["--episodes", "2", "--max-steps", "5", "--workers", "1", "--env", DISCRETE]
    json = tmp_path / "r.json"
    assert cli.main(["evaluate", "--agent", "random", *words, "--json", str(json)]) == 0
    found = worldmodels.evaluate("random", DISCRETE, episodes=2, max_steps=5, workers=1)
    told = read_json(json)
    assert [episode["return"] for episode in told["episodes"]] == found.returns.tolist()
    assert [episode.seed for episode in found.episodes] == [1_000_000, 1_000_001]


def test_evaluate_takes_objects() -> None:
    short = {"episodes": 1, "max_steps": 2, "workers": 1}
    found = worldmodels.evaluate(Still(), BOX, **short)  # type: ignore[arg-type]  # a smaller predict
    assert found.episodes[0].length == 2
    agent = Agent.from_pretrained("car-racing")
    assert worldmodels.evaluate(agent, seed=7, **short).env == "CarRacing-v3"  # type: ignore[arg-type]  # mixed values
    with pytest.raises(UserError, match="name it with env"):
        worldmodels.evaluate(Still())
    with pytest.raises(UserError, match="with an object leave it out"):
        worldmodels.evaluate(agent, policy="icem")
