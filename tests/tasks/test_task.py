"""A task is found by class and spaces or by registration, never by a piece of a name."""

from __future__ import annotations

import ast
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.box2d.car_racing import CarRacing

import worldmodels
from tests.dream.conftest import REWARD, make_memories, make_starts
from tests.pages.fixture import make_run
from worldmodels.dream.config import DreamConfig
from worldmodels.envs import make
from worldmodels.envs.spaces import ActionSpec
from worldmodels.experience.collect import CollectConfig, collect
from worldmodels.experience.exploration import AR1Config, build_behaviour
from worldmodels.experience.rollout import run_group
from worldmodels.experience.store import EpisodeStore
from worldmodels.pages import build_report
from worldmodels.pipeline import Pipeline
from worldmodels.presets import PRESETS, full, quick, smoke
from worldmodels.protocols import UserError
from worldmodels.run_config import changed
from worldmodels.stage_configs import ControllerStageConfig
from worldmodels.stages.controller import DreamEvolution
from worldmodels.stages.learning import flip_of
from worldmodels.tasks import DEFAULT, Task, Words, named, register_task, task_for, task_of
from worldmodels.tasks import task as records
from worldmodels.tasks.car_racing import CAR_RACING

SMALL = spaces.Box(0, 255, (64, 96, 3), np.uint8)


class Blocks(gym.Env[Any, Any]):
    """Black frames, two actions."""

    observation_space = spaces.Box(0, 255, (96, 96, 3), np.uint8)
    action_space: spaces.Space[Any] = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        return np.zeros((96, 96, 3), np.uint8), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros((96, 96, 3), np.uint8), 0.0, True, False, {"stacked": True}


class Tall(CarRacing):
    """A subclass whose frames are none of CarRacing's."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.observation_space = spaces.Box(0, 255, (480, 640, 3), np.uint8)


class Mine(CarRacing):
    """A subclass that keeps the spaces."""


IDS: dict[str, Any] = {
    "CarRacingTwo-v0": Blocks,
    "mine/CarRacing-v7": Blocks,
    "MiniCarRacing-v0": Blocks,
    "CarRacing480-v0": Tall,
    "Kart-v0": Mine,
}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    known = dict(records._TASKS)
    for env_id, entry in IDS.items():
        gym.register(env_id, entry_point=entry)
    yield
    for env_id in IDS:
        del gym.registry[env_id]
    records._TASKS.clear()
    records._TASKS.update(known)
    records._look.cache_clear()


@pytest.mark.parametrize(
    ("env_id", "task"),
    [
        ("worldmodels/CarRacing-v3", CAR_RACING),
        ("CarRacing-v3", CAR_RACING),
        ("worldmodels:worldmodels/CarRacing-v3", CAR_RACING),
        ("Kart-v0", CAR_RACING),
        ("CarRacingTwo-v0", DEFAULT),
        ("mine/CarRacing-v7", DEFAULT),
        ("MiniCarRacing-v0", DEFAULT),
        ("CarRacing480-v0", DEFAULT),
        ("CarRacingUnknown-v0", DEFAULT),
    ],
)
def test_class_and_spaces_decide(env_id: str, task: Task) -> None:
    assert task_for(env_id) is task


def test_other_spaces_of_the_same_class() -> None:
    env = gym.make("worldmodels/CarRacing-v3", continuous=False)
    assert task_of(env) is CAR_RACING
    assert task_of(gym.wrappers.GrayscaleObservation(env, keep_dim=True)) is CAR_RACING
    assert task_of(gym.wrappers.TransformObservation(env, lambda obs: obs[:64], SMALL)) is DEFAULT
    env.close()


@pytest.mark.parametrize("name", PRESETS)
def test_a_name_that_looks_like_car_racing_brings_none_of_its_settings(name: str) -> None:
    cfg, own = PRESETS[name]("CarRacingTwo-v0"), PRESETS[name]("worldmodels/CarRacing-v3")
    assert (cfg.action_repeat, cfg.frame_rows, cfg.horizontal_flip) == (1, None, False)
    assert (cfg.experience.patience, cfg.experience.agent_patience) == (None, None)
    assert (cfg.dream.no_event_penalty, cfg.starts.off_track_weight) == (0, 1)
    assert cfg.residual.training.no_event_penalty == 0
    assert (cfg.selection.reward_bound, cfg.frame_spec.rows) == (None, None)
    assert cfg.test_env == "CarRacingTwo-v0"
    settings = {**CAR_RACING.settings[name], "made_for": CAR_RACING.name}
    again = changed(cfg, {**settings, "env_id": own.env_id})
    assert again == own
    assert own.test_env == "CarRacing-v3"


def test_nothing_but_its_task_and_its_environment_asks_for_car_racing() -> None:
    """No text in code names it, beside what registers it and the default of `--env`."""
    root = Path(worldmodels.__file__).parent
    found = set()
    for path in root.rglob("*.py"):
        place = path.relative_to(root).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            text = node.value if isinstance(node, ast.Constant) else None
            # documentation is one statement of its own, or has spaces
            if isinstance(text, str) and "CarRacing" in text and " " not in text:
                found.add(place)
    found = {place for place in found if not place.startswith("envs/car_racing/")}
    assert found == {"__init__.py", "run_config.py", "tasks/__init__.py", "tasks/car_racing.py"}


def test_presets_of_car_racing_have_what_its_task_says() -> None:
    assert (quick().action_repeat, quick().frame_rows, quick().horizontal_flip) == (4, 96, True)
    for name in ("vision_training", "controller", "dream", "starts"):
        assert getattr(quick(), name) == getattr(full(), name), name
    assert {cfg.residual.training.no_event_penalty for cfg in (smoke(), quick(), full())} == {2.0}
    assert (
        full().horizontal_flip,
        full().dream.no_event_penalty,
        full().starts.off_track_weight,
    ) == (True, 2.0, 8.0)
    assert (smoke().horizontal_flip, smoke().dream.no_event_penalty, smoke().action_repeat) == (
        True,
        0.5,
        1,
    )


def test_a_task_of_ones_own_is_one_record() -> None:
    def blocks(env: gym.Env[Any, Any]) -> bool:
        return isinstance(env.unwrapped, Blocks)

    task = Task(
        "blocks",
        matches=blocks,
        rows=48,
        explore_bias=(0.9, -0.9),
        settings={"quick": {"action_repeat": 3, "dream.horizon": 77}},
    )
    worldmodels.register_task(task, "mine/CarRacing-v7")
    assert task_for("CarRacingTwo-v0") is task_for("mine/CarRacing-v7") is task
    cfg = quick("MiniCarRacing-v0")
    assert (cfg.action_repeat, cfg.dream.horizon, cfg.frame_spec.rows) == (3, 77, 48)
    env = gym.make("CarRacingTwo-v0")
    behaviour = build_behaviour(AR1Config(scale=0.0, bias_std=0.0), env)
    behaviour.start([0])
    active = np.ones(1, np.bool_)
    np.testing.assert_allclose(
        behaviour.act(np.zeros((1, 96, 96, 3), np.uint8), active)[0], [0.9, -0.9]
    )
    assert named("blocks", "gone-v0") is task
    newer = dataclasses.replace(task, rows=12)
    register_task(newer)
    assert task_for("CarRacingTwo-v0") is newer is task_for("mine/CarRacing-v7")


class Upside:
    """A symmetry: frames upside down, the first number of an action negated."""

    def frames(self, frames: Any) -> Any:
        return frames[..., ::-1, :, :].copy()

    def actions(self, actions: Any) -> Any:
        return actions * np.array([-1, 1], np.float32)


def test_a_task_reaches_the_run_and_its_report(tmp_path: Path) -> None:
    """No other file has to know the environment."""
    task = Task(
        "blocks",
        rows=48,
        symmetry=lambda frames, actions: Upside(),
        stock={"mine/CarRacing-v7": "CarRacingTwo-v0"},
        finished_key="stacked",
        solved=432.0,
        words=Words("tower", "crane", "lift", ("stacked", "towers stacked"), "A block pays 7."),
        settings={"smoke": {"horizontal_flip": True, "dream.horizon": 9}},
    )
    register_task(task, "mine/CarRacing-v7")
    cfg = smoke("mine/CarRacing-v7").limited(5)
    run = Pipeline(cfg, tmp_path / "begun")
    assert (run.settings["task"], run.cfg.test_env) == ("blocks", "CarRacingTwo-v0")
    assert run.cfg.dream.horizon == 9
    out = tmp_path / "episodes"
    collect(CollectConfig(max_steps=5), cfg.env_id, AR1Config(), [0], out)
    store = EpisodeStore([out])
    assert store.frame_spec.rows == 48
    assert isinstance(flip_of(store), Upside)
    (episode,) = run_group([make(cfg.env_id)], build_behaviour(AR1Config(), make(cfg.env_id)), [0])
    assert episode.lap_finished is True
    folder = make_run(tmp_path / "run", media=False)
    config = json.loads((folder / "config.json").read_text())
    config |= {"task": "blocks", "env_id": cfg.env_id, "test_env_id": cfg.test_env}
    (folder / "config.json").write_text(json.dumps(config))
    page = build_report(folder).read_text()
    for word in ("Towers", "crane", "Watch it lift", "towers stacked", "A block pays 7.", "432"):
        assert word in page
    for word in ("lap finished", "Tracks", "N tiles"):
        assert word not in page


def test_wrong_registrations_are_refused() -> None:
    with pytest.raises(UserError, match="the default's"):
        register_task(Task("default"))
    with pytest.raises(UserError, match="'a:b-v0' names a module"):
        register_task(Task("x"), "a:b-v0")


def test_runs_of_earlier_versions_named_no_task() -> None:
    assert named(None, "CarRacing-v3") is CAR_RACING
    assert named(None, "MyCarRacing-v3") is DEFAULT
    assert named("forgotten", "CarRacing-v3") is DEFAULT


def test_a_task_orders_the_choices_of_one_output() -> None:
    register_task(Task("strafing", choice_order=(1, 0, 2)), "Strafing-v0")
    stage = ControllerStageConfig(inputs="zhc", discrete="thresholds")
    search = DreamEvolution(
        stage,
        DreamConfig(horizon=2, episodes=2),
        make_memories(action_size=3),
        REWARD,
        make_starts(),
        "Strafing-v0",
        ActionSpec("discrete", 3),
    )
    assert search.shape.choices == (1, 0, 2)
    assert search.returns()(search.first_parameters(0)[None], 0).shape == (1,)
