"""A training that was killed ends as if it had not been; a driver is read back without code."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from baselines import drivers, models, ppo
from baselines.pixels import PixelConfig
from baselines.policies import PixelPolicy
from baselines.ppo import train
from baselines.recipes import RECIPES, Recipe
from baselines.settings import TrainConfig
from tests.experience import fakes
from tests.sinks import stand_in
from worldmodels import cli, runs
from worldmodels._from_json import from_json
from worldmodels.evaluation import evaluate
from worldmodels.protocols import SELECTION_SEED_START, Policy, UserError

TINY = dataclasses.replace(
    RECIPES["zoo"],
    pixels=PixelConfig(skip=2, size=36, stack=2),
    n_envs=2,
    n_steps=8,
    batch_size=8,
    n_epochs=2,
    net_arch=(8,),
)
PER_UPDATE = 32
RECURRENT = dataclasses.replace(
    TINY,
    algorithm="recurrent-ppo",
    policy="CnnLstmPolicy",
    net_arch=(),
    lstm_hidden_size=4,
    critic_lstm=False,
)


def config(out: Path, updates: int = 4, **changes: Any) -> TrainConfig:
    base = TrainConfig(
        recipe="zoo",
        out=out,
        seed=3,
        frames=updates * PER_UPDATE,
        env_id=fakes.BOX,
        checkpoint_frames=2 * PER_UPDATE,
        evaluate_episodes=2,
    )
    return dataclasses.replace(base, **changes)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "last" / drivers.WEIGHTS)


def resumed(out: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Path:
    """The run of `config`, killed in the third update and continued."""
    learn = ppo.Session.learn
    rounds = []

    def killed(session: ppo.Session) -> None:
        rounds.append(session.books.step)
        if len(rounds) == 2:
            session.every = 1
            learn(session)  # an update that no checkpoint keeps
            raise KeyboardInterrupt
        learn(session)

    with monkeypatch.context() as patch:
        patch.setattr(ppo.Session, "learn", killed)
        with pytest.raises(KeyboardInterrupt):
            train(config(out, **changes), recipe)
    np.random.seed(99)
    torch.manual_seed(99)
    return train(config(out, **changes), recipe)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(config(tmp_path_factory.mktemp("run") / "ppo"), TINY)


def test_a_killed_run_ends_like_an_uninterrupted_one(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = resumed(tmp_path / "ppo", TINY, monkeypatch)
    for name, tensor in weights(run).items():
        torch.testing.assert_close(weights(other)[name], tensor, rtol=0, atol=0)
    for file in ("frames.json", "config.json"):
        mine, theirs = (runs.read_json(folder / file) for folder in (run, other))
        for record in (mine, theirs):
            record.pop("sha256", None)  # of the configuration, which names the folder
        mine.get("config", {}).pop("out", None)
        theirs.get("config", {}).pop("out", None)
        assert mine == theirs
    curves = [runs.read_json(folder / "curve.json")["points"] for folder in (run, other)]
    for mine, theirs in zip(*curves, strict=True):
        assert {**mine, "seconds": 0} == {**theirs, "seconds": 0}


def test_recurrent_ppo_trains_resumes_and_drives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sb3_contrib")
    whole = train(config(tmp_path / "whole"), RECURRENT)
    other = resumed(tmp_path / "killed", RECURRENT, monkeypatch)
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(other)[name], tensor, rtol=0, atol=0)
    driver = drivers.load_driver(whole / "agent")
    obs = np.zeros((2, 12, 10, 3), np.uint8)
    _, state = driver.predict(obs, None, np.ones(2, np.bool_), deterministic=True)
    assert state is not None
    assert state.lstm[0].shape == (1, 2, 4)


def test_sb3_contrib_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    with pytest.raises(UserError, match=r"pip install 'worldmodels-control\[recurrent\]'"):
        train(config(tmp_path / "run"), RECURRENT)


def test_the_ledger_counts_every_frame_once(run: Path) -> None:
    ledger, curve = runs.read_json(run / "frames.json"), runs.read_json(run / "curve.json")
    training = [e["frames"] for e in ledger["entries"] if e["kind"] == "model_free"]
    last = curve["points"][-1]
    assert sum(training) == last["frames"] == ledger["totals"]["model_free"]
    assert last["frames"] <= 4 * PER_UPDATE
    seeds = (SELECTION_SEED_START, SELECTION_SEED_START + 1)
    assert ledger["totals"]["selection"] == 2 * sum(fakes.steps_of(seed) for seed in seeds)
    assert last["real_frames"] == sum(ledger["totals"].values())


@pytest.mark.parametrize("updates", [2, 5])
def test_a_shorter_budget_is_a_shorter_schedule(
    updates: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sinks, log = stand_in(monkeypatch), ("tensorboard", "wandb")
    folder = train(config(tmp_path / "run", updates, checkpoint_frames=10**6, log=log), TINY)
    assert sinks.filled()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rates = [line["learning_rate"] for line in lines if line["stage"] == "ppo"]
    np.testing.assert_allclose(rates, 1e-4 * (1 - np.arange(updates) / updates))


def test_the_best_checkpoint_is_the_agent(run: Path) -> None:
    points = runs.read_json(run / "curve.json")["points"]
    best = max(points, key=lambda point: point["mean"])
    chosen = runs.read_json(run / "agent/config.json")["selection"]
    assert chosen["step"] == best["step"]
    assert runs.read_json(run / "last/config.json")["selection"]["step"] == points[-1]["step"]
    measured = evaluate(
        drivers.load_driver(run / "agent"), fakes.BOX, range(500_000, 500_002), workers=1
    )
    np.testing.assert_allclose(measured.returns, best["returns"])


def test_a_changed_setting_is_refused(run: Path) -> None:
    with pytest.raises(UserError, match="was begun with seed 3, now it is 4"):
        train(config(run, seed=4), TINY)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_killed_run_on_a_gpu_ends_like_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(config(tmp_path / "whole", device="cuda"), TINY)
    other = resumed(tmp_path / "killed", TINY, monkeypatch, device="cuda")
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(other)[name], tensor, rtol=1e-3, atol=1e-5)


def test_a_driver_comes_back_as_it_was(tmp_path: Path) -> None:
    session = ppo.Session(config(tmp_path / "run"), TINY)
    drivers.save_driver(
        tmp_path / "driver", session.model.policy, TINY, session.probe, env_id=fakes.BOX
    )
    session.env.close()
    assert drivers.is_driver(tmp_path / "driver")
    assert not drivers.is_driver(tmp_path)
    obs = np.random.default_rng(0).integers(0, 256, (4, 12, 10, 3), dtype=np.uint8)
    driver = drivers.load_driver(tmp_path / "driver")
    assert isinstance(driver, Policy)
    assert TINY.pixels is not None
    want, _ = PixelPolicy(session.model.policy, TINY.pixels).predict(obs, deterministic=True)
    np.testing.assert_array_equal(driver.predict(obs, deterministic=True)[0], want)


def test_a_driver_that_was_changed_is_refused(run: Path, tmp_path: Path) -> None:
    for name in (drivers.CONFIG, drivers.WEIGHTS):
        (tmp_path / name).write_bytes((run / "agent" / name).read_bytes())
    tensors = load_file(tmp_path / drivers.WEIGHTS)
    save_file({k: v + 1 for k, v in tensors.items()}, tmp_path / drivers.WEIGHTS)
    with pytest.raises(UserError, match="is not the file that"):
        drivers.load_driver(tmp_path)
    (tmp_path / drivers.WEIGHTS).write_bytes(b"junk")
    with pytest.raises(UserError, match="is damaged"):
        drivers.load_driver(tmp_path)
    record = runs.read_json(tmp_path / drivers.CONFIG)
    runs.write_json(tmp_path / drivers.CONFIG, {**record, "schema": "driver/9"})
    with pytest.raises(UserError, match="schema 'driver/9'"):
        drivers.load_driver(tmp_path)


def test_evaluate_serves_a_driver(run: Path, tmp_path: Path) -> None:
    words = ["evaluate", "--agent", str(run / "agent"), "--episodes", "3", "--seed", "500000"]
    results = []
    for workers in ("1", "2"):
        file = tmp_path / f"{workers}.json"
        more = ["--json", str(file), "--workers", workers, "--resume"]
        assert cli.main([*words, *more]) == 0
        results.append(runs.read_json(file))
    timed = {"ms_per_action": None}  # the clock is not the policy's
    first, second = ([{**e, **timed} for e in result["episodes"]] for result in results)
    assert first == second
    assert results[0]["env"] == fakes.BOX
    assert results[0]["agent"] == str(run / "agent")


def test_recipes_survive_json() -> None:
    for recipe in RECIPES.values():
        assert from_json(Recipe, json.loads(json.dumps(runs.to_jsonable(recipe)))) == recipe
        assert recipe.source
    with pytest.raises(UserError, match=r"Recipe has the unknown field 'colour'"):
        from_json(Recipe, {"colour": 1})


def test_the_zoo_recipe_is_the_published_one() -> None:
    zoo = RECIPES["zoo"]
    assert zoo.rollout == 4096
    assert zoo.frames == 2 * 4_000_000  # FrameSkip 2
    assert models.policy_arguments(zoo)["net_arch"] == {"pi": [256], "vf": [256]}
    assert models.rate(zoo, 0.5) == pytest.approx(5e-5)
    assert models.rate(dataclasses.replace(zoo, schedule="constant"), 0.5) == 1e-4


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"recipe": "dream"}, "agent is None; it must be given with the recipe dream"),
        ({"frames": 0}, "frames is 0"),
        ({"evaluate_episodes": 0}, "evaluate_episodes is 0"),
        ({"recipe": "a2c"}, "recipe is 'a2c'"),
        ({"device": "tpu"}, "device is 'tpu'; it must be cpu or cuda"),
    ],
)
def test_wrong_settings_are_named(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        TrainConfig(**changes)


def test_wrong_recipes_are_named() -> None:
    for changes, text in (
        ({"batch_size": 3}, "it must be a divisor of n_envs"),
        ({"pixels": None}, "Recipe.policy is CnnPolicy"),
        ({"lstm_hidden_size": 3}, "above 0 with recurrent-ppo, and 0 with ppo"),
    ):
        with pytest.raises(UserError, match=text):
            dataclasses.replace(TINY, **changes)


def test_a_loss_that_is_no_number_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = ppo.Session(config(tmp_path / "run"), TINY)
    session.model.logger.record("train/loss", float("nan"))
    with pytest.raises(UserError, match="the loss of update 0"):
        session._log(ppo.FrameCounter())
    session.env.close()


def test_events_for_tensorboard_are_written_if_wanted(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    folder = train(config(tmp_path / "run", updates=1, log=("tensorboard",)), TINY)
    assert list((folder / "tensorboard").glob("events*"))
