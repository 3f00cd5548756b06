"""What an environment hands out, compared with what it declares.

`worldmodels.envs.make` puts `CheckedEnv` around every environment, so that a broken promise is one
clear error at the first step that shows it, and never a wrong number later on.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray

from worldmodels.protocols import UserError

LARGEST_REWARD = 1e12
"""Largest size of a reward. M learns in float32, whose largest number is 3e38: the squares of a
hundred million rewards of this size can still be added."""

SMALLEST_RANGE = 128
"""Least difference between the darkest and the brightest pixel that a space may declare. V takes
255 for white: a frame of zeros and ones would look black."""

_UINT8 = np.dtype(np.uint8)


class CheckedEnv(gym.Wrapper[NDArray[np.uint8], Any, NDArray[np.uint8], Any]):
    """An environment that is held to its spaces.

    Type and shape of the frame, reward, ends and info are checked at every step, values and the
    action at the first of each episode. Frames are the caller's own: an array that the environment
    uses again is copied. What the environment raises becomes a `UserError` that names the
    environment, the seed and the step. Everything else is passed through.
    """

    def __init__(self, env: gym.Env[NDArray[np.uint8], Any], name: str) -> None:
        """Wrap an environment with pixels.

        Args:
            env: its observation space was accepted by `require_pixels`.
            name: what errors call it.
        """
        super().__init__(env)
        self.name = name
        space = env.observation_space
        assert isinstance(space, gym.spaces.Box)
        self._shape = space.shape
        self._box = space
        self._narrow = bool((space.low > 0).any() or (space.high < 255).any())
        self._seed: int | None = None
        self._t = 0
        self._first: NDArray[np.uint8] | None = None
        self._second: NDArray[np.uint8] | None = None

    @property
    def spec(self) -> gym.envs.registration.EnvSpec | None:  # type: ignore[override]  # as in gym.Wrapper itself
        """The environment's own: what is made of it needs no second pair of checks."""
        return self.env.spec

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Begin an episode.

        Raises:
            UserError: the environment fails, or its frame or info is not what it must be.
        """
        self._seed, self._t = seed, 0
        try:
            answer: Any = self.env.reset(seed=seed, options=options)
        except UserError:
            raise
        except Exception as error:
            raise self._failure(error) from error
        if not isinstance(answer, tuple) or len(answer) != 2:
            self._refuse("the answer", _describe(answer), "a tuple of observation and info")
        obs, info = answer
        self._check_frame(obs)
        self._check_info(info)
        self._first, self._second = obs, None
        return obs.copy(), info

    def step(
        self, action: Any
    ) -> tuple[NDArray[np.uint8], SupportsFloat, bool, bool, dict[str, Any]]:
        """Take a step.

        Raises:
            UserError: the environment fails, or what it hands out is not what it must be.
        """
        self._t += 1
        if self._t == 1:
            self._check_action(action)
        try:
            obs, reward, terminated, truncated, info = self.env.step(action)
        except UserError:
            raise
        except Exception as error:
            raise self._failure(error) from error
        # for an environment that keeps its promises, each line is one or two comparisons
        if (
            type(obs) is not np.ndarray
            or obs.dtype is not _UINT8
            or obs.shape != self._shape
            or self._t == 1
        ):
            self._check_frame(obs)
        if type(reward) is not float or not -LARGEST_REWARD <= reward <= LARGEST_REWARD:
            reward = self._number(reward)
        if type(terminated) is not bool or type(truncated) is not bool:
            terminated = self._flag("terminated", terminated)
            truncated = self._flag("truncated", truncated)
        if type(info) is not dict:
            self._check_info(info)
        if self._second is None:
            self._second = obs
        if obs.base is not None or obs is self._first or obs is self._second:
            obs = obs.copy()
        return obs, reward, terminated, truncated, info

    def _check_frame(self, obs: Any) -> None:
        """Refuse another type or shape than declared, and other values where fewer are."""
        declared = f"{self._box.dtype} {self._shape}"
        if not isinstance(obs, np.ndarray) or obs.dtype != _UINT8 or obs.shape != self._shape:
            self._refuse("the observation", _describe(obs), f"{declared}, as its space declares")
        if self._narrow and not ((obs >= self._box.low) & (obs <= self._box.high)).all():
            low, high = self._box.low.min(), self._box.high.max()
            allowed = f"{declared} from {low} to {high}, as its space declares"
            self._refuse("the observation", _describe(obs), allowed)

    def _check_action(self, action: Any) -> None:
        """Refuse an action of another shape or kind than declared; ranges are the runner's."""
        space = self.env.action_space
        if isinstance(space, gym.spaces.Box):
            given = np.asarray(action)
            whole = np.issubdtype(space.dtype, np.integer)
            fine = given.shape == space.shape and given.dtype.kind in ("iu" if whole else "fiub")
        else:
            fine = space.contains(action)
        if not fine:
            self._refuse("the action", _describe(action), f"of {space}")

    def _number(self, reward: Any) -> float:
        """A reward as a plain float."""
        value = np.asarray(reward)
        if value.ndim or value.dtype.kind not in "fiub":
            self._refuse("the reward", _describe(reward), "one real number")
        number = float(value)
        if not np.isfinite(number):
            self._refuse("the reward", f"{number}", "finite")
        if abs(number) > LARGEST_REWARD:
            self._refuse(
                "the reward",
                f"{number:g}",
                f"at most {LARGEST_REWARD:g} in size, for M to learn it in float32 "
                "(gymnasium.wrappers.TransformReward can scale it)",
            )
        return number

    def _flag(self, name: str, flag: Any) -> bool:
        """An end of an episode as a plain bool."""
        value = np.asarray(flag)
        if value.ndim or value.dtype.kind not in "biu" or value not in (0, 1):
            self._refuse(name, _describe(flag), "True or False")
        return bool(value)

    def _check_info(self, info: Any) -> None:
        if not isinstance(info, Mapping):
            self._refuse("the info", _describe(info), "a dict")

    def _where(self) -> str:
        seed = "of an episode without a seed" if self._seed is None else f"of seed {self._seed}"
        return f"at the reset {seed}" if self._t == 0 else f"in step {self._t} {seed}"

    def _refuse(self, field: str, got: str, right: str) -> None:
        raise UserError(
            f"environment {self.name!r}: {field} is {got} {self._where()}; it must be {right}"
        )

    def _failure(self, error: Exception) -> UserError:
        """What the environment raised, in one line with its place."""
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if "site-packages" not in frame.filename]
        frame = (own[1:] or frames)[-1]  # the first one is this module's
        text = " ".join(str(error).split())
        return UserError(
            f"environment {self.name!r} failed {self._where()}: {type(error).__name__}: {text} "
            f"({os.path.basename(frame.filename)}, line {frame.lineno})"
        )


def time_limit(env: gym.Env[Any, Any]) -> int | None:
    """The steps after which an environment truncates its episodes; None where it never does."""
    limits = []
    inner: Any = env
    while isinstance(inner, gym.Wrapper):
        if isinstance(inner, TimeLimit):
            limits.append(int(inner._max_episode_steps))
        inner = inner.env
    if inner.spec is not None and inner.spec.max_episode_steps is not None:
        limits.append(int(inner.spec.max_episode_steps))
    return min(limits, default=None)


def require_limit(env: gym.Env[Any, Any], remedy: str = "") -> None:
    """Refuse an environment whose episodes may never end.

    Args:
        env: the environment.
        remedy: what would limit them, beside registering the environment with a limit.

    Raises:
        UserError: it has no time limit.
    """
    if time_limit(env) is None:
        raise UserError(
            f"environment {_name(env)!r} has no time limit, so an episode may never end: "
            f"{remedy}register it with max_episode_steps"
        )


def note_endless(env: gym.Env[Any, Any], max_steps: int | None) -> None:
    """Say so where an episode may never end: no limit was given, and the environment has none."""
    if max_steps is None and time_limit(env) is None:
        print(
            f"note: environment {_name(env)!r} has no time limit, and no --max-steps (max_steps) "
            "was given: an episode that does not end by itself never ends",
            flush=True,
        )


def _name(env: gym.Env[Any, Any]) -> str:
    return env.spec.id if env.spec is not None else str(env)


def require_pixels(space: gym.spaces.Space[Any], env_id: str) -> None:
    """Refuse observations other than uint8 images, channels last.

    Raises:
        UserError: names the wrapper that makes pixels of them.
    """
    fault = _fault_of_pixels(space)
    if fault is not None:
        raise UserError(
            f"environment {env_id!r} has observations {_short(space)}; expected pixels, a uint8 "
            f"Box of shape (H, W), (H, W, 1) or (H, W, 3): {fault}"
        )


def _fault_of_pixels(space: gym.spaces.Space[Any]) -> str | None:
    """How to make pixels of observations; None where they are pixels."""
    transform = "gymnasium.wrappers.TransformObservation can"
    if isinstance(space, gym.spaces.Dict):
        images = [key for key, part in space.items() if _fault_of_pixels(part) is None]
        return f"{transform} pick {' or '.join(map(repr, images)) or 'an image'}"
    if not isinstance(space, gym.spaces.Box) or len(space.shape) not in (2, 3, 4):
        return "gymnasium.wrappers.AddRenderObservation can show what the environment draws"
    shape = space.shape
    if len(shape) == 4:
        return f"{transform} take the newest frame of a stack"
    if 0 in shape:
        return "there is nothing to see"
    if len(shape) == 3 and shape[2] not in (1, 3):
        if shape[0] in (1, 3):
            return f"{transform} move the channels last"
        return f"{transform} keep 3 of the {shape[2]} channels"
    if space.dtype != np.uint8:
        return f"{transform} scale them to 0 to 255 and round them to uint8"
    low, high = int(space.low.min()), int(space.high.max())
    if high - low < SMALLEST_RANGE:
        return f"{transform} stretch {low} to {high} to 0 to 255, where white is 255"
    return None


def _short(space: gym.spaces.Space[Any]) -> str:
    """A space in few words."""
    if isinstance(space, gym.spaces.Box) and len(space.shape) > 1:
        return f"Box({space.low.min()}, {space.high.max()}, {space.shape}, {space.dtype})"
    return str(space)


def _describe(value: Any) -> str:
    """What was handed out, in few words."""
    if not isinstance(value, np.ndarray | np.generic):
        text = repr(value)
        return f"{type(value).__name__} {text if len(text) <= 60 else text[:60] + '...'}"
    if value.ndim == 0 or value.size == 0 or value.dtype.kind not in "fiub":
        return f"{value.dtype} {value.shape}" if value.ndim else f"{value.dtype} {value}"
    if np.isnan(value).any():
        return f"{value.dtype} {value.shape} with NaN"
    return f"{value.dtype} {value.shape} from {float(value.min()):g} to {float(value.max()):g}"
