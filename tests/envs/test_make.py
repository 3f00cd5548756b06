from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from worldmodels import envs
from worldmodels.envs.car_racing import FastCarRacing
from worldmodels.protocols import UserError


class Pixels(gym.Env[NDArray[np.uint8], Any]):
    """Shows noise of any shape, for any actions."""

    def __init__(
        self, shape: tuple[int, ...] = (20, 30, 3), action: gym.Space[Any] | None = None
    ) -> None:
        self.observation_space = gym.spaces.Box(0, 255, shape, np.uint8)
        self.action_space = action or gym.spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        return self.np_random.integers(0, 256, self.observation_space.shape, dtype=np.uint8), {}


@pytest.fixture(autouse=True)
def _registered() -> None:
    if "test/Pixels-v0" not in gym.registry:
        entry: Any = Pixels
        gym.register("test/Pixels-v0", entry_point=entry, disable_env_checker=True)


def test_fast_car_racing_is_made_with_its_arguments() -> None:
    env = envs.make("worldmodels/CarRacing-v3", continuous=False)
    assert isinstance(env.unwrapped, FastCarRacing)
    assert envs.ActionSpec.from_space(env.action_space) == envs.ActionSpec("discrete", 5)
    assert env.spec is not None
    assert env.spec.max_episode_steps == 1000


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1), (20, 30, 3)])
def test_any_environment_with_pixels_is_made(shape: tuple[int, ...]) -> None:
    env = envs.make("test/Pixels-v0", shape=shape)
    frame = envs.to_vision(env.reset(seed=0)[0], envs.FrameSpec())
    assert frame.shape == (64, 64, 3)


def test_unknown_id_suggests_what_was_meant() -> None:
    with pytest.raises(UserError, match=r"'CarRacin-v3' is unknown: did you mean CarRacing-v3"):
        envs.make("CarRacin-v3")
    with pytest.raises(UserError, match="is unknown"):
        envs.make("Xyzzy-v0")
    with pytest.raises(UserError, match="CarRacing-v99"):
        envs.make("CarRacing-v99")


def test_environment_without_pixels_is_refused() -> None:
    with pytest.raises(
        UserError,
        match=r"'test/Pixels-v0' has observations Box.*uint8 Box of shape.*AddRenderObservation",
    ):
        envs.make("test/Pixels-v0", shape=(64,))
    with pytest.raises(UserError, match=r"expected pixels.*keep 3 of the 40 channels"):
        envs.make("test/Pixels-v0", shape=(64, 64, 40))


def test_unsupported_action_space_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"'test/Pixels-v0': action space MultiBinary\(7\)"):
        envs.make("test/Pixels-v0", action=gym.spaces.MultiBinary(7))


def test_unknown_argument_is_refused() -> None:
    with pytest.raises(UserError, match=r"cannot be made with \{'wings': 2\}"):
        envs.make("worldmodels/CarRacing-v3", wings=2)


def test_module_is_imported_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "import gymnasium\ngymnasium.register('late/Pixels-v0', entry_point={!r})\n"
    entry = "gymnasium.envs.box2d.car_racing:CarRacing"
    (tmp_path / "registers_late.py").write_text(source.format(entry))
    monkeypatch.syspath_prepend(str(tmp_path))
    env = envs.make("registers_late:late/Pixels-v0")
    assert env.observation_space.shape == (96, 96, 3)
    assert "registers_late" in sys.modules
    with pytest.raises(UserError, match="module 'no_such_module' cannot be imported"):
        envs.make("no_such_module:late/Pixels-v0")
