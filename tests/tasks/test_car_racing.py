"""CarRacing's knowledge: the flipped world is what the environment would show."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from worldmodels.envs import ActionSpec, FrameSpec, make, to_vision
from worldmodels.protocols import UserError
from worldmodels.tasks import DEFAULT
from worldmodels.tasks.car_racing import CAR_RACING, Flip

ENV = "worldmodels/CarRacing-v3"
WHOLE = FrameSpec(rows=96)


def flip_of(spec: FrameSpec = WHOLE) -> Flip:
    env = make(ENV)
    found = CAR_RACING.flip(ENV, spec, ActionSpec.from_space(env.action_space))
    env.close()
    assert isinstance(found, Flip)
    return found


def drive(steer: float, steps: int = 16) -> NDArray[np.uint8]:
    """(T, 64, 64, 3) frames of a start on a straight."""
    env = make(ENV)
    env.reset(seed=3)
    frames = [env.step(np.array([steer, 0.6, 0.0], np.float32))[0] for _ in range(steps)]
    env.close()
    return to_vision(np.stack(frames), WHOLE)


def test_flipped_actions_make_the_flipped_dashboard() -> None:
    flip = flip_of()
    right, left = drive(0.3), drive(-0.3)
    dashboard = (slice(8, None), slice(57, None), slice(9, None))  # beside the score
    images = flip.frames(right)[dashboard].astype(int)
    apart = np.abs(images - left[dashboard]).max(axis=(0, 1))
    assert apart.max() <= 70  # bars are whole pixels of a coarser canvas, on one side one more
    assert np.abs(images - left[dashboard]).mean() < 1.0
    assert np.abs(right[dashboard].astype(int) - left[dashboard]).mean() > 2.0


def test_the_world_is_turned_as_a_whole() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    whole = flip_of()
    turned = whole.frames(frames)
    np.testing.assert_array_equal(turned[:, :56], frames[:, :56, ::-1])
    np.testing.assert_array_equal(turned[:, 56:, :24], frames[:, 56:, :24])
    np.testing.assert_array_equal(turned[:, 56:, 24:40], frames[:, 56:, 24:40][:, :, ::-1])
    np.testing.assert_array_equal(whole.frames(turned), frames)
    np.testing.assert_array_equal(whole.frames(frames[0]), turned[0])
    without = flip_of(FrameSpec(rows=84))
    np.testing.assert_array_equal(without.frames(frames), frames[:, :, ::-1])


def test_actions_of_either_kind() -> None:
    box = np.array([[0.5, 1.0, 0.0], [-1.0, 0.0, 0.25]], np.float32)
    np.testing.assert_array_equal(flip_of().actions(box), box * np.array([-1, 1, 1], np.float32))
    env = gym.make("CarRacing-v3", continuous=False)
    spec = ActionSpec.from_space(env.action_space)
    choices = np.arange(5)
    turned = CAR_RACING.flip("CarRacing-v3", WHOLE, spec).actions(choices)
    assert turned.tolist() == [0, 2, 1, 3, 4]
    assert choices.tolist() == [0, 1, 2, 3, 4]
    env.close()


def test_another_environment_has_none() -> None:
    spec = ActionSpec("discrete", 6)
    with pytest.raises(UserError, match="horizontal_flip is on for ALE/Pong-v5"):
        DEFAULT.flip("ALE/Pong-v5", FrameSpec(), spec)
    with pytest.raises(UserError, match=r"crop is \(0, 0, 10, 0\): the symmetry of X is one of"):
        CAR_RACING.flip("X", FrameSpec(crop=(0, 0, 10, 0)), spec)
