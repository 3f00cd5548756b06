"""PPO beside a run of any environment: the same frames and number of them, a row in the report."""

from __future__ import annotations

import dataclasses
import runpy
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from baselines import drivers
from baselines.actions import UnitActions
from baselines.control import beside, enter
from baselines.pixels import PixelConfig
from baselines.policies import PixelPolicy
from baselines.ppo import Session, train
from baselines.recipes import recipe_for
from baselines.results import read_runs
from baselines.settings import TrainConfig
from baselines.training_env import make_one
from tests.envs.odd import ODD
from tests.experience import fakes
from worldmodels import envs, evaluation, runs
from worldmodels.envs import ActionSpec, FrameSpec
from worldmodels.pages.data import load_run
from worldmodels.protocols import UserError
from worldmodels.tasks import Task, register_task
from worldmodels.tasks import task as records

CASES = {name: f"tests.baselines.test_control:tests/{name}-v0" for name in ("Odd5", "OddWhole")}
if "tests/Odd5-v0" not in gym.registry:
    for name, case in (("Odd5", "choices from 5"), ("OddWhole", "whole numbers")):
        kwargs = {"case": case}
        gym.register(f"tests/{name}-v0", "tests.envs.odd:Odd", max_episode_steps=6, kwargs=kwargs)
FRAMES, SELECTION = 300, 40


def finished_run(folder: Path, env_id: str, action_repeat: int = 1, **more: Any) -> Path:
    """What is read of a run."""
    run = runs.RunFolder(folder)
    config = {
        "env_id": env_id,
        "test_env_id": env_id,
        "action_repeat": action_repeat,
        "frame_rows": 10,
        "test": {"seed": 1_000_000, "max_steps": None},
        "seed": 3,
        **more,
    }
    run.write_config(config)
    counted = {"collection": FRAMES, "selection": SELECTION, "test": 7, "controls": 9, "dream": 999}
    for kind, frames in counted.items():
        run.ledger.add(kind, frames, kind)
    episodes = [{"seed": 1_000_000, "return": 1.0, "length": 3}]
    runs.write_json(run.path / "evaluation.json", {"episodes": episodes, "env": env_id})
    return run.path


def tiny(cfg: TrainConfig, **changes: Any) -> Any:
    small = dict(n_envs=2, n_steps=16, batch_size=16, n_epochs=1)
    return dataclasses.replace(cfg.resolved_recipe(), **{**small, **changes})


@pytest.mark.parametrize("env_id", [fakes.DISCRETE, fakes.BOX, *CASES.values()])
def test_ppo_learns_beside_a_run_and_is_in_its_report(env_id: str, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", env_id, action_repeat=2)
    cfg = beside(TrainConfig(run=run, evaluate_episodes=1, test_episodes=3, env_id=env_id))
    assert cfg.frames == FRAMES + SELECTION
    assert cfg.seed == 3
    recipe = tiny(cfg)
    assert (recipe.pixels.skip, recipe.pixels.rows, recipe.pixels.size) == (2, 10, 64)
    folder = train(cfg, recipe)
    assert folder == run / "baselines/ppo-3"
    trained = runs.read_json(folder / "frames.json")["totals"]["model_free"]
    assert 0.6 * cfg.frames < trained <= cfg.frames + 64  # episodes may end within a held action
    result = enter(cfg)
    (row,) = load_run(run).others
    assert (row.name, row.mean) == (f"PPO, {trained:,} frames, seed 3", result.mean)
    assert [e["seed"] for e in row.episodes] == [1_000_000, 1_000_001, 1_000_002]
    assert row.name in (run / "report.html").read_text()
    assert runs.read_json(run / "frames.json")["totals"]["collection"] == FRAMES
    assert [read.method for read in read_runs([str(folder)])] == ["ppo"]
    assert enter(cfg).returns.tolist() == result.returns.tolist()


@pytest.mark.parametrize("better", [False, True])
def test_ppo_acts_by_its_mode_or_by_samples_whichever_is_better(
    better: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = evaluation.evaluate_many
    asked = list[bool]()

    def scored(policies: Any, *args: Any, **kwargs: Any) -> Any:
        asked.extend(policy.sampled for policy in policies)
        results = run(policies, *args, **kwargs)
        summaries = [dataclasses.replace(r.summary, mean=float(n)) for n, r in enumerate(results)]
        summaries = summaries if better else summaries[::-1]
        return [dataclasses.replace(r, summary=s) for r, s in zip(results, summaries, strict=True)]

    monkeypatch.setattr(evaluation, "evaluate_many", scored)
    cfg = TrainConfig(env_id=fakes.DISCRETE, out=tmp_path / "ppo", frames=32, evaluate_episodes=1)
    folder = train(cfg, tiny(cfg))
    policy = drivers.load_driver(folder)
    assert isinstance(policy, PixelPolicy)
    assert policy.sampled == better
    assert asked == [False, True]
    totals = runs.read_json(folder / "frames.json")["totals"]
    assert totals["selection"] == 2 * fakes.steps_of(500_000)
    assert runs.read_json(folder / "curve.json")["points"][-1]["real_frames"] == sum(
        totals.values()
    )


def test_the_command_needs_the_run_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished_run(tmp_path / "run", fakes.BOX)
    recipe = tiny(TrainConfig(env_id=fakes.BOX))
    monkeypatch.setattr("baselines.settings.recipe_for", lambda *_: recipe)
    words = ["train_ppo.py", "--run", str(run), "--test-episodes", "2", "--evaluate-episodes", "1"]
    monkeypatch.setattr(sys, "argv", words)
    script = Path(__file__).resolve().parents[2] / "scripts/train_ppo.py"
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(script), run_name="__main__")
    assert end.value.code == 0
    assert f"report: {run}/report.html" in capsys.readouterr().out


def test_what_a_run_does_not_offer_is_refused(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", fakes.BOX)
    with pytest.raises(UserError, match=r"--env is 'Other-v0', but .* is of 'tests"):
        beside(TrainConfig(run=run, env_id="Other-v0"))
    (run / "evaluation.json").unlink()
    with pytest.raises(UserError, match="must be the folder of a run that was tested"):
        beside(TrainConfig(run=run))
    assert "max-steps" in TrainConfig(run=run).ignored()
    assert "action-repeat" in TrainConfig(recipe="zoo").ignored()


def test_an_endless_environment_needs_a_limit(tmp_path: Path) -> None:
    cfg = TrainConfig(env_id=ODD, out=tmp_path / "ppo", frames=64, evaluate_episodes=1)
    with pytest.raises(UserError, match=r"no time limit.* give --max-steps"):
        Session(cfg, tiny(cfg))
    env = make_one(tiny(cfg), ODD, 0, 0, max_steps=3)
    env.reset()
    ends = [env.step(env.action_space.sample())[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]


def test_what_ends_by_itself_has_the_limit_of_a_run(tmp_path: Path) -> None:
    assert TrainConfig(env_id=ODD).longest() == 10_000
    assert TrainConfig(env_id=ODD, max_steps=3).longest() == 3
    assert TrainConfig(env_id=fakes.BOX.replace("Pixels", "Laps")).longest() is None
    assert TrainConfig().longest() is None
    endless = "tests.envs.blocks:tests/FakeEndless-v0"
    cfg = TrainConfig(env_id=endless, out=tmp_path / "ppo", frames=64, evaluate_episodes=1)
    with pytest.raises(UserError, match=r"no time limit.* give --max-steps"):
        train(cfg, tiny(cfg))
    assert not (tmp_path / "ppo/config.json").exists()


def test_a_run_without_a_time_limit_is_recorded_with_it(tmp_path: Path) -> None:
    cfg = TrainConfig(env_id=ODD, out=tmp_path / "ppo", frames=64, evaluate_episodes=1)
    folder = train(cfg, tiny(cfg))
    assert runs.read_json(folder / "config.json")["config"]["max_steps"] == 10_000


@pytest.mark.parametrize("crop", [None, (2, 1, 0, 3)])
def test_the_runs_crop_is_seen(crop: Any, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", fakes.BOX, crop=crop)
    pixels = beside(TrainConfig(run=run, env_id=fakes.BOX)).resolved_recipe().pixels
    assert pixels is not None
    assert pixels.spec == FrameSpec(10, 64, crop)


def test_a_damaged_crop_is_named(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", fakes.BOX, crop=[1, 2])
    with pytest.raises(UserError, match=r"config\.json: config.*crop"):
        beside(TrainConfig(run=run, env_id=fakes.BOX))


def test_the_tasks_crop_is_seen_where_nothing_else_is_said() -> None:
    register_task(Task("cropped", crop=(1, 0, 0, 0)), "fakes/Pixels-v0")
    try:
        cfg = TrainConfig(env_id=fakes.BOX)
        assert cfg.frame_spec == FrameSpec(crop=(1, 0, 0, 0))
        assert dataclasses.replace(cfg, crop=(0, 0, 2, 2)).frame_spec.crop == (0, 0, 2, 2)
    finally:
        records._TASKS.pop("cropped")
        records._look.cache_clear()


def test_what_is_seen_follows_from_the_environment() -> None:
    recipe = recipe_for(envs.make(fakes.DISCRETE), 3, FrameSpec(9, crop=(2, 0, 1, 1)))
    seen = PixelConfig(skip=3, rows=9, crop=(2, 0, 1, 1), size=64, grey=False, stack=4)
    assert recipe.pixels == seen
    assert recipe.shaping is None
    grey = recipe_for(envs.make(ODD, case="grey"))
    assert grey.pixels is not None
    assert grey.pixels.channels == 1


@pytest.mark.parametrize(
    ("spec", "given", "wanted"),
    [
        (ActionSpec("discrete", 3, start=5), [0, 2], [5, 7]),
        (ActionSpec("box", 2, (-1.0, 5.0), (1.0, 9.0)), [[-1, 0], [2, 1]], [[-1, 7], [1, 9]]),
        (ActionSpec("box", 1, (0.0,), (3.0,), "int64"), [[0.5], [-1]], [[2], [0]]),
    ],
)
def test_unit_actions_reach_every_action(spec: ActionSpec, given: Any, wanted: Any) -> None:
    unit = UnitActions(spec)
    actions = unit.to_env(np.array(given))
    np.testing.assert_allclose(actions, wanted)
    assert all(spec.to_space().contains(action) for action in actions)
    assert unit.space.shape == spec.to_space().shape


def test_a_policy_of_unit_actions_is_read_back(tmp_path: Path) -> None:
    env_id = CASES["Odd5"]
    cfg = TrainConfig(env_id=env_id, out=tmp_path / "ppo", frames=64, evaluate_episodes=1)
    folder = train(cfg, tiny(cfg))
    obs = np.zeros((2, 12, 16, 3), np.uint8)
    action, _ = drivers.load_driver(folder).predict(obs, deterministic=True)
    assert set(action.tolist()) <= set(range(5, 8))
