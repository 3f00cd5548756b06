"""What `make` takes by wrappers, and what it says about it."""

from __future__ import annotations

import functools
import os
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import (
    AddRenderObservation,
    FrameStackObservation,
    GrayscaleObservation,
    HumanRendering,
    RecordEpisodeStatistics,
)

from tests.envs.odd import ODD, H, W, rgb
from worldmodels import envs
from worldmodels.envs import pixels
from worldmodels.evaluation.policies import RandomPolicy
from worldmodels.experience import rollout
from worldmodels.experience.rollout import run_group
from worldmodels.protocols import UserError
from worldmodels.tasks import DEFAULT, task_for
from worldmodels.tasks.default import measure
from worldmodels.tasks.findings import findings

SEED = 7


def stacked() -> gym.Env[Any, Any]:
    return FrameStackObservation(gym.make("worldmodels/CarRacing-v3"), 4)


if "test/Stacked-v0" not in gym.registry:
    entry: Any = stacked
    gym.register("test/Stacked-v0", entry_point=entry)


@pytest.mark.parametrize(
    ("shape", "image"),
    [
        ((H, W), (H, W)),
        ((H, W, 3), (H, W, 3)),
        ((3, H, W), (H, W, 3)),
        ((1, H, W), (H, W, 1)),
        ((H, W, 4), (H, W, 3)),
        ((H, W, 2), (H, W, 1)),
        ((H, W, 9), (H, W, 3)),
        ((6, H, W), (H, W, 3)),
        ((4, H, W), (H, W)),
        ((4, H, W, 1), (H, W, 1)),
        ((4, 3, H, W), (H, W, 3)),
        ((4, H, W, 4), (H, W, 3)),
        ((40, 30, 20), None),
        ((4,), None),
        ((), None),
        ((2, 2, 2, 2, 2), None),
    ],
)
def test_layouts(shape: tuple[int, ...], image: tuple[int, ...] | None) -> None:
    found = pixels.layout(shape)
    assert (None if found is None else found.shape) == image
    if found is not None:
        assert found.of(np.zeros(shape, np.uint8)).shape == image


@pytest.mark.parametrize("shape", [(H, W, 3), (3, H, W), (H, W)])
def test_the_newest_of_gymnasiums_stack_is_kept(shape: tuple[int, ...]) -> None:
    space = spaces.Box(0, 255, shape, np.uint8)

    class Noise(gym.Env[Any, Any]):
        observation_space, action_space = space, spaces.Discrete(2)

        def reset(self, **_: Any) -> tuple[Any, Any]:
            super().reset(seed=SEED)
            return self._see(), {}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, Any]:
            return self._see(), 0.0, False, False, {}

        def _see(self) -> Any:
            self.last = self.np_random.integers(0, 256, shape, np.uint8)
            return self.last

    bare = Noise()
    env, _ = pixels.seen(FrameStackObservation(bare, 4), "noise", None)
    single = pixels.layout(shape)
    assert single is not None
    assert np.array_equal(env.reset()[0], single.of(bare.last))
    for _ in range(3):
        assert np.array_equal(env.step(0)[0], single.of(bare.last))


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_what_an_environment_draws_stands_for_its_observations(
    env_id: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envs, "_told", set())
    env = envs.make(env_id)
    obs, _ = env.reset(seed=SEED)
    drawn: Any = env.render()
    assert np.array_equal(obs, drawn)
    assert env.observation_space.contains(obs)
    again, other = envs.make(env_id), envs.make(env_id)
    assert np.array_equal(again.reset(seed=SEED)[0], obs)
    other.close()  # which leaves the others alone
    env.close()
    assert again.step(again.action_space.sample())[0].shape == obs.shape
    assert envs.time_limit(again) == {"CartPole-v1": 500, "Pendulum-v1": 200}[env_id]
    assert capsys.readouterr().out == (
        f"note: environment '{env_id}': what it draws stands for its observations "
        "(AddRenderObservation)\n"
    )


@pytest.mark.parametrize(
    "env_id",
    ["Acrobot-v1", "CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"],
)
def test_a_lighter_screen_shows_the_same_frames(env_id: str) -> None:
    stock: Any = gym.make(env_id, render_mode="rgb_array")
    env: Any = envs.make(env_id)
    assert type(stock.unwrapped) in pixels.CLASSIC
    stock.reset(seed=SEED)
    frames, drawn = [env.reset(seed=SEED)[0]], [stock.render()]
    stock.action_space.seed(SEED)
    for _ in range(20):
        action = stock.action_space.sample()
        frames.append(env.step(action)[0])
        stock.step(action)
        drawn.append(stock.render())
    screens = [one.unwrapped.screen for one in (stock, env)]
    assert [screen.get_bitsize() for screen in screens] == [32, 24]
    assert np.array_equal(frames, np.asarray(drawn))
    stock.close()
    env.close()


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_frames_that_nobody_sees_are_not_drawn(
    env_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is seen is the same as where every frame is drawn."""
    drawn = 0
    draw = pixels.Drawn.draw_last

    def count(env: pixels.Drawn) -> Any:
        nonlocal drawn
        drawn += 1
        return draw(env)

    def play() -> list[Any]:
        frames: list[Any] = []
        env = envs.make(env_id)
        run_group(
            [env],
            RandomPolicy(env.action_space),
            [SEED],
            max_steps=23,  # ends amid a held action
            action_repeat=4,
            on_frames=lambda obs, _: frames.append(obs[0].copy()),
        )
        return frames

    monkeypatch.setattr(pixels.Drawn, "draw_last", count)
    seen = play()
    assert drawn == len(seen)
    monkeypatch.setattr(rollout, "drawer_of", lambda env: None)
    assert np.array_equal(seen, play())


def test_a_wrapper_that_changes_frames_gets_them_all() -> None:
    env = gym.make("worldmodels/CarRacing-v3")
    assert pixels.drawer_of(env) is env.unwrapped
    assert pixels.drawer_of(GrayscaleObservation(env)) is None
    env.close()


def test_no_window_is_looked_for_where_there_is_no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("DISPLAY", ":0")
    envs.make(ODD)
    assert "SDL_VIDEODRIVER" not in os.environ
    monkeypatch.delenv("DISPLAY")
    envs.make(ODD)
    assert os.environ["SDL_VIDEODRIVER"] == "dummy"
    monkeypatch.setenv("SDL_VIDEODRIVER", "offscreen")
    envs.make(ODD)
    assert os.environ["SDL_VIDEODRIVER"] == "offscreen"


class Corridor(gym.Env[Any, Any]):
    """Four channels: RGBA, or the four newest grey frames with the newest last."""

    action_space = spaces.Discrete(2)
    observation_space = spaces.Box(0, 255, (H, W, 4), np.uint8)

    def __init__(self, stack: bool) -> None:
        self.stack = stack

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        self.x, self.seen = 1, np.zeros((H, W, 4), np.uint8)
        return self._see(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Any]:
        self.x += 1
        return self._see(), float(action), self.x >= W - 1, False, {}

    def _see(self) -> Any:
        grey = np.full((H, W, 1), 50, np.uint8)
        grey[:, self.x] = 250
        parts = [self.seen[..., 1:], grey] if self.stack else [grey, grey, grey, grey * 0 + 255]
        self.seen = np.concatenate(parts, axis=-1)
        return self.seen


@pytest.mark.parametrize("stack", [True, False])
def test_four_channels_are_told_apart_by_what_is_in_them(stack: bool) -> None:
    name = f"test/Corridor{stack}-v0"
    entry: Any = functools.partial(Corridor, stack)
    gym.register(name, entry_point=entry)
    try:
        found = measure(name)
    finally:
        gym.registry.pop(name)
    assert found.stacked == stack
    said = [one for one in findings(found) if "four grey frames" in one.text]
    assert [one.level for one in said] == ["warning"] * stack


def test_a_window_shows_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = envs.make("CartPole-v1", render_mode="human")
    window: Any = env
    assert isinstance(window.env, HumanRendering)
    assert env.reset(seed=SEED)[0].shape == (400, 600, 3)
    env.close()


def test_without_a_picture_the_render_mode_is_named() -> None:
    with pytest.raises(UserError, match=r"AddRenderObservation .*render mode rgb_array"):
        envs.make(ODD, case="no pixels")


def test_a_failure_to_draw_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no\ndisplay")

    monkeypatch.setattr(AddRenderObservation, "__init__", fail)
    with pytest.raises(UserError, match=r"'CartPole-v1' cannot draw .* RuntimeError: no display"):
        envs.make("CartPole-v1")


def test_a_part_of_a_dict_is_chosen() -> None:
    env = envs.make(ODD, case="dict of images", obs_key="b")
    assert env.observation_space == rgb()
    assert envs.make(f"{ODD}?case=dict&obs_key=image").observation_space == rgb()
    with pytest.raises(UserError, match=r"--obs-key is 'c'; images among .*: 'a', 'b'; all: 'a'"):
        envs.make(ODD, case="dict of images", obs_key="c")
    with pytest.raises(
        UserError, match=r"--obs-key is 'speed'; images .*: 'image'; all: .*'speed'"
    ):
        envs.make(f"{ODD}?case=dict&obs_key=speed")
    with pytest.raises(UserError, match="no Dict; leave it out"):
        envs.make(ODD, obs_key="image")


def test_every_combination_is_one_choice() -> None:
    env = envs.make(ODD, case="several choices from 1")
    assert env.action_space == spaces.Discrete(6)
    bare: Any = env.unwrapped
    env.reset(seed=SEED)
    for choice in range(6):
        env.step(np.int64(choice))
    assert [action.tolist() for action in bare.taken] == [[a, b] for a in (1, 2, 3) for b in (5, 6)]
    env = envs.make(ODD, case="matrix of switches", length=100)
    bare = env.unwrapped
    env.reset(seed=SEED)
    for choice in range(64):
        env.step(choice)
    assert len({action.tobytes() for action in bare.taken}) == 64
    assert all(bare.action_space.contains(action) for action in bare.taken)


def test_wrappers_travel_to_other_processes() -> None:
    env: Any = envs.make("test/Stacked-v0")
    assert len(env.reset(seed=SEED)[0].shape) == 3
    copy = pickle.loads(pickle.dumps(env))
    assert np.array_equal(copy.reset(seed=SEED)[0], env.reset(seed=SEED)[0])


def test_car_racing_has_no_more_wrappers_than_before() -> None:
    env: Any = envs.make("worldmodels/CarRacing-v3")
    names = []
    while isinstance(env, gym.Wrapper):
        names.append(type(env).__name__)
        env = env.env
    assert names == ["CheckedEnv", "TimeLimit", "OrderEnforcing"]


def test_a_task_is_found_without_the_arguments() -> None:
    assert task_for("worldmodels/CarRacing-v3?continuous=false").name == "car-racing"
    task = task_for("worldmodels/CarRacing-v3?domain_randomize=true")
    stock = task.test_env("worldmodels/CarRacing-v3?domain_randomize=true")
    assert stock == "CarRacing-v3?domain_randomize=true"
    assert task_for("CartPole-v1?sutton_barto_reward=true").name == "cart-pole"
    assert task_for("MountainCar-v0?goal_velocity=0.1") is DEFAULT


def test_an_unclosed_environment_is_closed_with_its_last_user() -> None:
    closed = []

    class Closing(RecordEpisodeStatistics):
        def close(self) -> None:
            closed.append(True)

    env = envs.CheckedEnv(Closing(gym.make("worldmodels/CarRacing-v3")), "name")
    env.close()
    del env
    assert closed == [True]
    env = envs.CheckedEnv(Closing(gym.make("worldmodels/CarRacing-v3")), "name")
    del env
    assert closed == [True, True]


@pytest.mark.parametrize(
    ("env_id", "shape"),
    [
        ("vizdoom.gymnasium_wrapper:VizdoomTakeCover-v1?frame_skip=4", (200, 320, 3)),
        ("ale_py:ALE/Freeway-v5?frameskip=4", (210, 160, 3)),
        ('minigrid:MiniGrid-Empty-5x5-v0?render_mode="rgb_array"', (160, 160, 3)),
    ],
)
def test_environments_of_other_packages(env_id: str, shape: tuple[int, ...]) -> None:
    pytest.importorskip(env_id.partition(":")[0].partition(".")[0])
    env = envs.make(env_id)
    assert env.observation_space.shape == shape
    assert env.reset(seed=SEED)[0].max() > 0
    env.close()
