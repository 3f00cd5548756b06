"""The controls of the final test, on environments where one action wins."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from tests.experience import fakes
from worldmodels import executors, runs, stages
from worldmodels._from_json import from_json
from worldmodels.envs import ActionSpec
from worldmodels.evaluation import ConstantPolicy, constant_policies, evaluate
from worldmodels.pages.data import load_run
from worldmodels.pipeline import Pipeline
from worldmodels.pipeline.iteration import Iteration
from worldmodels.presets import smoke
from worldmodels.run_config import RunConfig, changed
from worldmodels.stage_configs import SelectionConfig, TestConfig
from worldmodels.stages import StageContext

CHOICES, BOX = (f"tests.stages.test_controls:tests/{name}-v0" for name in ("Wins", "WinsBox"))
LENGTH, BEST, CORNER = 5, 6, (-1.0, 3.0)
TEST, SELECTION = TestConfig(episodes=3), SelectionConfig(episodes=2)


class Wins(gym.Env[Any, Any]):
    """Pays 1 for one action, in every step."""

    observation_space = spaces.Box(0, 255, (8, 8, 3), np.uint8)

    def __init__(self, box: bool = False) -> None:
        self.box = box
        self.action_space = (
            spaces.Box(np.array([-1, 1], np.float32), np.array([1, 3], np.float32))
            if box
            else spaces.Discrete(3, start=5)
        )

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        self.t = 0
        return np.zeros((8, 8, 3), np.uint8), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        won = np.array_equal(action, CORNER) if self.box else action == BEST
        return np.full((8, 8, 3), self.t, np.uint8), float(won), self.t >= LENGTH, False, {}


if "tests/Wins-v0" not in gym.registry:
    entry = "tests.stages.test_controls:Wins"
    gym.register("tests/Wins-v0", entry, max_episode_steps=9)
    gym.register("tests/WinsBox-v0", entry, max_episode_steps=9, kwargs={"box": True})


def context(tmp_path: Path, **changes: Any) -> StageContext:
    run = runs.RunFolder(tmp_path / "run")
    (tmp_path / "state").mkdir(exist_ok=True)
    ctx = StageContext(
        run=run,
        state=tmp_path / "state",
        executor=executors.make("serial", 1),
        ledger="controls/01234567",
    )
    return dataclasses.replace(ctx, **changes)


@pytest.mark.parametrize(
    ("env_id", "tried", "best"), [(CHOICES, 3, "always 6"), (BOX, 5, "always (-1, 3)")]
)
def test_the_constant_action_that_wins_is_chosen_and_counted(
    env_id: str, tried: int, best: str, tmp_path: Path
) -> None:
    ctx = context(tmp_path)
    assert ctx.run is not None
    means = stages.run_controls(TEST, SELECTION, env_id, ctx.run.path, ctx)
    assert len(means) == tried
    assert means.pop(best) == LENGTH
    assert set(means.values()) == {0}
    constant, random = (
        runs.read_json(ctx.run.path / f"evaluation_{name}.json") for name in ("constant", "random")
    )
    assert (constant["agent"], constant["mean"]) == (best, LENGTH)
    assert [e["seed"] for e in constant["episodes"]] == [1_000_000, 1_000_001, 1_000_002]
    assert [e["return"] for e in random["episodes"]] == list(
        evaluate("random", env_id, range(1_000_000, 1_000_003), 1).returns
    )
    frames = LENGTH * (tried * SELECTION.episodes + 2 * TEST.episodes)
    assert ctx.run.ledger.read()["totals"] == {
        **dict.fromkeys(("collection", "selection", "test", "model_free", "dream"), 0),
        "controls": frames,
    }


def test_the_report_names_the_constant_action(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    assert ctx.run is not None
    stages.run_controls(TEST, SELECTION, CHOICES, ctx.run.path, ctx)
    found = {score.name: score.mean for score in load_run(ctx.run.path).others}
    assert found["best constant 6"] == LENGTH


def test_what_is_not_wanted_is_neither_played_nor_kept(tmp_path: Path) -> None:
    ctx = context(tmp_path)
    assert ctx.run is not None
    stages.run_controls(TEST, SELECTION, CHOICES, ctx.run.path, ctx)
    alone = dataclasses.replace(TEST, constant_action=False)
    kept = stages.remove_controls(alone, ctx.run.path)
    assert kept == [ctx.run.path / "evaluation_random.json"]
    assert [path.name for path in ctx.run.path.glob("evaluation*")] == [kept[0].name]
    other = context(tmp_path / "other")
    assert other.run is not None
    assert stages.run_controls(alone, SELECTION, CHOICES, other.run.path, other) == {}
    assert other.run.ledger.read()["totals"]["controls"] == LENGTH * TEST.episodes


def test_an_interrupted_trial_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx, played = context(tmp_path), list[Any]()
    assert ctx.run is not None
    step = Wins.step

    def failing(env: Wins, action: Any) -> Any:
        played.append(action)
        if len(played) == 12:  # in the second action's episodes
            raise KeyboardInterrupt
        return step(env, action)

    with monkeypatch.context() as patch:
        patch.setattr(Wins, "step", failing)
        with pytest.raises(KeyboardInterrupt):
            stages.run_controls(TEST, SELECTION, CHOICES, ctx.run.path, ctx)
        again = len(played)
        means = stages.run_controls(TEST, SELECTION, CHOICES, ctx.run.path, ctx)
    assert means["always 6"] == LENGTH
    assert played[again] == BEST  # the first action's episodes are not played again
    assert ctx.run.ledger.read()["totals"]["controls"] == LENGTH * (3 * 2 + 2 * 3)


def test_the_pipeline_plays_them_once_and_again_for_other_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = changed(smoke(env_id=CHOICES), {"selection.max_steps": None, "test.max_steps": None})
    cfg = changed(plain, {"test.constant_action": True, "test.random_policy": True})
    calls, run = list[Any](), stages.run_controls

    def counted(*args: Any) -> dict[str, float]:
        calls.append(args)
        return run(*args)

    monkeypatch.setattr(stages, "run_controls", counted)

    def play(cfg: RunConfig) -> dict[str, Any]:
        pipeline = Pipeline(cfg, tmp_path / "run")
        pipeline._run_controls(Iteration(cfg.iterations, tmp_path / "run/iterations/final"))
        pipeline.runner.settle()
        totals: dict[str, Any] = pipeline.run.ledger.read()["totals"]
        return totals

    first = play(cfg)
    assert first["controls"] == LENGTH * (3 * 2 + 2 * 2)
    assert play(cfg) == first
    assert len(calls) == 1
    (tmp_path / "run/evaluation_constant.json").unlink()
    assert play(cfg) == first
    assert len(calls) == 2
    other = changed(cfg, {"test.seed": 2_000_000, "test.episodes": 1})
    assert play(other)["controls"] == LENGTH * (3 * 2 + 2)
    assert len(calls) == 3
    assert play(plain).get("controls", 0) == 0
    assert not list((tmp_path / "run").glob("evaluation*"))
    assert len(calls) == 3


def test_the_constant_actions_of_a_box() -> None:
    small = constant_policies(ActionSpec("box", 1, (-2.0,), (2.0,)))
    assert [policy.action for policy in small] == [(0.0,), (-2.0,), (2.0,)]
    large = constant_policies(ActionSpec("box", 6, (-1.0,) * 6, (3.0,) * 6))
    assert len(large) == 1 + 2 * 6
    assert large[0].action == (1.0,) * 6
    assert large[2].action == (3.0, *[1.0] * 5)


def test_a_constant_action_is_held_whatever_the_space() -> None:
    result = evaluate(ConstantPolicy((0.5, 1.0)), fakes.BOX, [500_000], 1, keep_actions=True)
    actions = result.episodes[0].actions
    assert actions is not None
    np.testing.assert_array_equal(np.unique(actions, axis=0), [[0.5, 1.0]])
    assert result.agent == "always (0.5, 1)"


def test_runs_of_earlier_versions_keep_their_test() -> None:
    before = {"episodes": 3, "seed": 1_000_000, "max_steps": None}
    record = {**before, "random_policy": True, "videos": True}
    assert runs.to_jsonable(from_json(TestConfig, record)) == record
