from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pygame
import pytest
from gymnasium.error import InvalidAction
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from worldmodels import envs
from worldmodels.envs.car_racing import FastCarRacing
from worldmodels.envs.car_racing.car import FastCar
from worldmodels.envs.car_racing.parity import compare, pursue
from worldmodels.envs.car_racing.stock import StockCarRacing
from worldmodels.protocols import UserError

ID = "worldmodels/CarRacing-v3"


def pair(**kwargs: Any) -> tuple[Any, Any]:
    """Stock's environment and ours; typed loosely, as stock is."""
    stock, ours = StockCarRacing(**kwargs), FastCarRacing(**kwargs)
    stock.draws_observations = False
    return stock, ours


def state(env: Any) -> list[float]:
    """All floats of the car: bodies, joints, engine."""
    return [env.reward, env.t, env.tile_visited_count, *FastCar.numbers(env.car)]


@pytest.mark.parametrize(
    ("seed", "driven", "kwargs"),
    [
        (0, True, {}),
        (1, True, {"domain_randomize": True}),
        (2, False, {}),
        (3, False, {"domain_randomize": True, "lap_complete_percent": 0.1}),
    ],
)
def test_episode_is_stock_in_all_but_half_a_level(
    seed: int, driven: bool, kwargs: dict[str, Any]
) -> None:
    result = compare(seed, driven, every=25, steps=500, **kwargs)
    assert result.identical
    assert result.returns[0] == result.returns[1]
    assert len(result.errors) >= 3
    assert np.mean(result.errors) <= 0.1  # the contract is 0.5
    assert max(result.errors) <= 0.5
    assert result.largest <= 64


def test_zoom_at_the_start_is_drawn() -> None:
    result = compare(5, driven=True, every=7, steps=56)
    assert len(result.errors) == 9
    assert max(result.errors) <= 0.2


@pytest.mark.parametrize("seed", [0, 7])
def test_physics_are_bit_identical_until_the_lap_is_finished(seed: int) -> None:
    stock, ours = pair()
    stock.reset(seed=seed)
    ours.reset(seed=seed)
    for _ in range(1000):
        action = pursue(stock)
        left, right = stock.step(action), ours.step(action)
        assert left[1:] == right[1:]
        assert state(stock) == state(ours)
        if left[2]:
            break
    visited = [[tile.road_visited for tile in env.road] for env in (stock, ours)]
    assert visited[0] == visited[1]
    assert sum(visited[0]) > 150


def test_wild_driving_is_bit_identical() -> None:
    stock, ours = pair()
    stock.reset(seed=11)
    ours.reset(seed=11)
    rng = np.random.default_rng(0)
    for step in range(600):
        if step % 10 == 0:  # also beyond the action space, which stock lets through
            action = rng.uniform([-2, -0.5, -0.2], [2, 1.5, 1.2])
        assert stock.step(action)[1:] == ours.step(action)[1:]
        assert state(stock) == state(ours)
    traces = [[particle.poly for particle in env.car.particles] for env in (stock, ours)]
    assert traces[0] == traces[1]
    assert traces[0]


def move(env: Any, x: float, y: float) -> None:
    """Put the car elsewhere, wheels and all."""
    dx, dy = x - env.car.hull.position[0], y - env.car.hull.position[1]
    for body in env.car.drawlist:
        body.position = (body.position[0] + dx, body.position[1] + dy)


def test_leaving_the_playfield_is_stock_in_pixels_and_punishment() -> None:
    stock, ours = pair()
    for env in (stock, ours):
        env.reset(seed=4)
        move(env, 320, -300)
        env.t = 1.0
    action = np.array([0.0, 0.3, 0.0])
    for step in range(300):
        stock.draws_observations = step == 5  # the black outside is in view
        left, right = stock.step(action), ours.step(action)
        if stock.draws_observations:
            assert (left[0] == 0).all(axis=2)[:84].mean() > 0.1
            assert np.abs(left[0].astype(int) - right[0]).mean() <= 0.1
        assert left[1:] == right[1:]
        assert state(stock) == state(ours)
        if left[2]:
            break
        for env in (stock, ours):
            move(env, env.car.hull.position[0] + 0.1, env.car.hull.position[1])
    assert right[1:] == (-100, True, False, {"lap_finished": False})


def test_discrete_actions_are_stock() -> None:
    stock, ours = pair(continuous=False)
    assert ours.action_space == stock.action_space
    stock.reset(seed=3)
    ours.reset(seed=3)
    rng = np.random.default_rng(0)
    for step in range(300):
        action = 3 if step < 50 else int(rng.integers(5))
        stock.draws_observations = step == 299
        left, right = stock.step(action), ours.step(action)
        assert left[1:] == right[1:]
        assert state(stock) == state(ours)
    assert np.abs(left[0].astype(int) - right[0]).mean() <= 0.1


@pytest.mark.parametrize("seed", range(12))
def test_tracks_are_bit_identical(seed: int) -> None:
    stock, ours = pair()
    for env in (stock, ours):
        env.reset(seed=seed)
        env.reset()  # and so is the random stream after the first episode
    assert ours.track == stock.track
    assert ours.np_random.random() == stock.np_random.random()
    for theirs, mine in zip(stock.road_poly, ours.road_poly, strict=True):
        assert [tuple(p) for p in theirs[0]] == [tuple(p) for p in mine[0]]
        assert np.array_equal(theirs[1], mine[1])
    for theirs, mine in zip(stock.road, ours.road, strict=True):
        assert theirs.fixtures[0].shape.vertices == mine.fixtures[0].shape.vertices
        assert mine.fixtures[0].sensor


def test_colours_are_kept_or_drawn_again_as_in_stock() -> None:
    stock, ours = pair(domain_randomize=True)
    options: tuple[dict[str, Any] | None, ...] = (None, {"randomize": False}, {"randomize": True})
    colours = []
    for k, option in enumerate(options):
        for env in (stock, ours):
            env.reset(seed=0 if k == 0 else None, options=option)
        for name in ("road_color", "bg_color", "grass_color"):
            assert np.array_equal(getattr(stock, name), getattr(ours, name))
        colours.append(ours.road_color.tolist())
    assert colours[0] == colours[1] != colours[2]


def test_render_draws_what_stock_draws() -> None:
    stock, ours = pair(render_mode="rgb_array")
    stock.reset(seed=8)
    ours.reset(seed=8)
    for step in range(60):  # hard turns leave traces on the road, which only people see
        action = np.array([0.9 if step > 30 else 0.0, 1.0, 0.9 if step % 7 == 0 else 0.0])
        stock.step(action)
        ours.step(action)
    stock.draws_observations = True
    picture = ours.render()
    assert len(ours.car.particles) > 0
    assert picture.shape == (400, 600, 3)
    assert np.array_equal(picture, stock.render())


def test_human_mode_shows_frames() -> None:
    env: Any = FastCarRacing(render_mode="human")
    env.reset(seed=0)
    obs = env.step(np.zeros(3))[0]
    assert obs.shape == (96, 96, 3)
    assert env.screen is not None
    env.close()


def test_no_display_is_opened_without_a_render_mode() -> None:
    pygame.display.quit()
    env = FastCarRacing()
    env.reset(seed=0)
    env.step(np.zeros(3))
    assert not pygame.display.get_init()
    assert env.screen is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_action_that_is_not_finite_is_refused_by_name(bad: float) -> None:
    env = FastCarRacing()
    env.reset(seed=0)
    with pytest.raises(UserError, match=r"\[0.5, (nan|inf|-inf), 0.0\]; it takes 3 finite numbers"):
        env.step(np.array([0.5, bad, 0.0]))


def test_action_of_another_shape_is_refused() -> None:
    env = FastCarRacing()
    env.reset(seed=0)
    with pytest.raises(UserError, match=r"\[0.0, 0.0\]; it takes 3 finite numbers"):
        env.step(np.zeros(2))


def test_action_outside_a_discrete_space_is_refused() -> None:
    env = FastCarRacing(continuous=False)
    env.reset(seed=0)
    with pytest.raises(InvalidAction, match="invalid action `5`"):
        env.step(5)


def test_one_seed_gives_one_episode() -> None:
    frames = []
    env = FastCarRacing()
    for _ in range(2):
        seen = [env.reset(seed=21)[0]]
        seen += [env.step(np.array([0.1, 0.6, 0.0]))[0] for _ in range(40)]
        frames.append(np.stack(seen))
    assert np.array_equal(frames[0], frames[1])
    assert len(np.unique(frames[0].reshape(len(frames[0]), -1), axis=0)) == len(frames[0])


def test_scratch_is_left_empty() -> None:
    env = FastCarRacing()
    env.reset(seed=2)
    for _ in range(60):
        env.step(np.array([0.3, 1.0, 0.0]))
    planes, _, window = env._scratch
    assert not planes.any()
    assert not window.any()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's process table")
def test_episodes_leave_no_bodies_behind() -> None:
    def resident() -> int:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    env = FastCarRacing()
    for seed in range(30):
        env.reset(seed=seed)
    before = resident()
    for seed in range(60):
        env.reset(seed=seed)
    assert env.world.bodyCount == len(env.road) + 5
    assert (resident() - before) / 60 < 10_000  # Box2D itself keeps about 3 kB


@pytest.mark.parametrize("kwargs", [{}, {"continuous": False}, {"render_mode": "rgb_array"}])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_both_environment_checkers_pass(kwargs: dict[str, Any]) -> None:
    env = gym.make(ID, **kwargs).unwrapped
    check_env(env)
    sb3_check_env(env)


def test_registered_environment_ends_after_a_thousand_steps() -> None:
    env = envs.make(ID)
    env.reset(seed=0)
    for step in range(1, 1001):
        _, _, terminated, truncated, _ = env.step(np.zeros(3, np.float32))
        assert not terminated
        assert truncated == (step == 1000)
