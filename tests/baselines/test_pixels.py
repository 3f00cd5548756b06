"""What a policy sees in a test is what it saw in training; the shaping stays in the training."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import GrayscaleObservation
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from baselines.pixels import PixelConfig, push, shrink
from baselines.policies import PixelPolicy
from baselines.shaping import Shaper, ShapingConfig, grass_share
from baselines.training_env import TrainingEnv
from tests.experience import fakes
from worldmodels import envs
from worldmodels.protocols import TRAINING_SEED_LIMIT, UserError

B, S = 3, 36


class Spy:
    """A policy that keeps what it is asked, and counts its decisions as its recurrent state."""

    def __init__(self) -> None:
        self.seen: list[NDArray[np.uint8]] = []
        self.starts: list[NDArray[np.bool_]] = []
        self.states: list[Any] = []

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], Any]:
        self.seen.append(observation.copy())
        self.starts.append(np.array(episode_start))
        self.states.append(state)
        number = float(len(self.seen))
        batch = len(observation)
        action = np.tile(np.array([np.sin(number), 0.5], np.float32), (batch, 1))
        return action, (np.full((1, batch, 2), number, np.float32),) * 2


def frames(batch: int = B, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (batch, 96, 96, 3), dtype=np.uint8)


def test_grey_is_gymnasiums() -> None:
    class One(gym.Env[Any, Any]):
        observation_space = gym.spaces.Box(0, 255, (96, 96, 3), np.uint8)
        action_space = gym.spaces.Discrete(2)

    wrapper = GrayscaleObservation(One())
    small = shrink(frames(), PixelConfig(size=96, stack=1))
    for got, frame in zip(small, frames(), strict=True):
        np.testing.assert_allclose(got[0], wrapper.observation(frame), atol=1)


def test_resize_averages_areas() -> None:
    small = shrink(frames(), PixelConfig(size=48, grey=False))
    for got, frame in zip(small, frames(), strict=True):
        want = np.asarray(Image.fromarray(frame).resize((48, 48), Image.Resampling.BOX))
        np.testing.assert_allclose(got.transpose(1, 2, 0), want, atol=1)


def test_what_the_crop_cuts_off_is_not_seen() -> None:
    cfg = PixelConfig(rows=84, size=16, grey=False, crop=(4, 8, 0, 32))
    cut = np.ascontiguousarray(frames()[:, 4:76, :-32])
    np.testing.assert_array_equal(
        shrink(frames(), cfg), shrink(cut, PixelConfig(size=16, grey=False))
    )


@given(st.lists(st.lists(st.booleans(), min_size=B, max_size=B), min_size=1, max_size=9))
def test_a_stack_holds_the_newest_frames_of_its_episode(starts: list[list[bool]]) -> None:
    cfg = PixelConfig(size=2, stack=3)
    stack = np.zeros((B, *cfg.shape), np.uint8)
    episodes: list[list[int]] = [[] for _ in range(B)]
    for number, fresh in enumerate(starts, start=1):
        stack = push(stack, np.full((B, 1, 2, 2), number, np.uint8), np.array(fresh))
        for row in range(B):
            episodes[row] = ([] if fresh[row] else episodes[row]) + [number]
            want = ([0] * 3 + episodes[row])[-3:]
            assert stack[row, :, 0, 0].tolist() == want


@pytest.mark.parametrize(("skip", "stack"), [(1, 4), (2, 2), (3, 1)])
def test_a_test_shows_what_the_training_showed(skip: int, stack: int) -> None:
    """Two episodes in training; then the same two seeds, raw frames, one call for each of them."""
    cfg = PixelConfig(skip=skip, size=S, stack=stack)
    env = TrainingEnv(envs.make(fakes.BOX), cfg, None, seed=1, place=0)
    training, tracks = Spy(), []
    for _ in range(2):
        obs, over = env.reset()[0], False
        tracks.append(env.unwrapped.seed)  # type: ignore[attr-defined]  # the fake remembers it
        while not over:
            action = training.predict(obs[None], None, np.zeros(1, np.bool_))[0][0]
            obs, _, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
    spy, state = Spy(), None
    policy = PixelPolicy(spy, cfg)
    raw = envs.make(fakes.BOX)
    for track in tracks:
        obs, over, start = raw.reset(seed=track)[0], False, True
        while not over:
            action, state = policy.predict(obs[None], state, np.array([start]))
            obs, _, terminated, truncated, _ = raw.step(action[0])
            over, start = terminated or truncated, False
    np.testing.assert_array_equal(np.stack(spy.seen), np.stack(training.seen))


def test_recurrent_state_and_starts_are_passed_on() -> None:
    spy = Spy()
    policy = PixelPolicy(spy, PixelConfig(skip=2, size=S))
    _, state = policy.predict(frames(), None, np.ones(B, np.bool_))
    assert spy.states[0] is None
    assert spy.starts[0].all()
    _, state = policy.predict(frames(), state, np.array([False, True, False]))
    assert spy.starts[1].tolist() == [False, True, False]
    assert state.lstm is not None
    assert state.lstm[0][0, :, 0].tolist() == [1, 2, 1]  # only the row that decided moved on
    assert state.held.tolist() == [2, 1, 2]
    with pytest.raises(UserError, match="2 frames were given with the state of 3"):
        policy.predict(frames(2), state)


def test_one_frame_is_a_batch_of_one() -> None:
    single, _ = PixelPolicy(Spy(), PixelConfig(size=S)).predict(frames()[0])
    batch, _ = PixelPolicy(Spy(), PixelConfig(size=S)).predict(frames()[:1])
    np.testing.assert_array_equal(single, batch[0])


def test_frames_rewards_and_tracks_are_accounted_for() -> None:
    env = TrainingEnv(envs.make(fakes.BOX), PixelConfig(skip=4, size=S), None, 7, 0)
    seeds = []
    for _ in range(3):
        env.reset(seed=5)
        bare: Any = env.unwrapped
        seeds.append(bare.seed)
        total, taken, over = 0.0, 0, False
        while not over:
            _, reward, terminated, truncated, info = env.step(np.array([0.1, 0.2], np.float32))
            over = terminated or truncated
            total += reward
            taken += info["frames"]
        assert taken == fakes.steps_of(bare.seed) == info["episode"]["l"]
        assert info["episode"]["r"] == pytest.approx(total)
        assert total == pytest.approx(0.3 * taken + bare.jitter[:taken].sum(), rel=1e-5)
    assert len(set(seeds)) == 3
    assert max(seeds) < TRAINING_SEED_LIMIT
    env.begin(0)
    env.reset()
    assert env.unwrapped.seed == seeds[0]  # type: ignore[attr-defined]  # the fake remembers it


def test_grass_is_told_from_road() -> None:
    env = envs.make("worldmodels/CarRacing-v3")
    env.reset(seed=3)
    for _ in range(60):
        obs = env.step(np.zeros(3, np.float32))[0]
    assert grass_share(obs) < 0.1
    for _ in range(120):
        obs = env.step(np.array([1, 0.3, 0], np.float32))[0]
    assert grass_share(obs) > 0.6
    with pytest.raises(UserError, match="CarRacing's frames"):
        grass_share(obs[:50])


def test_shaping_subtracts_what_it_says() -> None:
    grass = np.zeros((96, 96, 3), np.uint8)
    grass[:] = (102, 230, 102)
    cfg = ShapingConfig(grass=0.5, steering=0.1, patience=4, lost=2.0, blind=1)
    shaper, steer = Shaper(cfg), np.array([0.5, 0, 0])
    steps = [(1.0, steer, 1), (-0.1, -steer, 1), (-0.1, -steer, 2), (-0.1, -steer, 1)]
    got = [shaper.shape(reward, action, grass, held) for reward, action, held in steps]
    # blind; steering and grass; grass for two frames; lost
    wanted = [1.0, -0.1 - 0.1 - 0.5, -0.1 - 1.0, -0.1 - 0.5 - 2.0]
    np.testing.assert_allclose([reward for reward, _ in got], wanted)
    assert [lost for _, lost in got] == [False, False, False, True]
    shaper.begin()
    assert shaper.shape(-0.1, steer, grass, 1)[0] == pytest.approx(-0.1)


def test_shaping_never_reaches_the_return() -> None:
    shaping = ShapingConfig(grass=0, steering=3.0, patience=20, lost=7)
    cfg = PixelConfig(size=S)
    plain = TrainingEnv(envs.make("worldmodels/CarRacing-v3"), cfg, None, 0, 0)
    shaped = TrainingEnv(envs.make("worldmodels/CarRacing-v3"), cfg, shaping, 0, 0)
    plain.reset()
    shaped.reset()
    action, over, total = np.array([0, 0, 1], np.float32), False, 0.0
    while not over:
        _, reward, over, _, info = shaped.step(action)
        total += plain.step(action)[1]
    assert info["episode"]["r"] == pytest.approx(total)
    assert reward == pytest.approx(-0.1 - 7)
    assert info["episode"]["l"] <= 25


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: PixelConfig(skip=0), "PixelConfig.skip is 0"),
        (lambda: PixelConfig(size=0), "PixelConfig.size is 0"),
        (lambda: ShapingConfig(patience=-1), "ShapingConfig.patience is -1"),
    ],
)
def test_values_out_of_range_are_named(make: Any, text: str) -> None:
    with pytest.raises(UserError, match=text):
        make()


def test_samples_depend_on_the_policys_own_seed() -> None:
    asked = []

    class Dice:
        def predict(
            self,
            observation: Any,
            state: Any = None,
            episode_start: Any = None,
            deterministic: bool = False,
        ) -> tuple[NDArray[Any], Any]:
            asked.append(deterministic)
            return torch.randint(1000, (len(observation),)).numpy(), None

    policy = PixelPolicy(Dice(), PixelConfig(size=S, stack=1), sampled=True)

    def thrown() -> list[int]:
        policy.reseed(5)
        return [policy.predict(frames(1), deterministic=True)[0].item() for _ in range(4)]

    torch.manual_seed(3)
    first, after = thrown(), torch.rand(1).item()
    assert thrown() == first
    assert len(set(first)) > 1
    torch.manual_seed(3)
    assert torch.rand(1).item() == after
    assert asked == [False] * 8
