"""What an environment hands out, compared with what it declares.

`worldmodels.envs.make` puts `CheckedEnv` around every environment, so that a broken promise is one
clear error at the first step that shows it, and never a wrong number later on.
"""

from __future__ import annotations

import contextlib
import math
import os
import traceback
import weakref
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray

from worldmodels.protocols import UserError

LARGEST_REWARD = 1e12
"""Largest size of a reward. M learns in float32, whose largest number is 3e38: the squares of a
hundred million rewards of this size can still be added."""
_UINT8 = np.dtype(np.uint8)


class BrokenPromise(Exception):
    """An environment hands out what it does not declare: the field, the value, what is right."""


class CheckedEnv(gym.Wrapper[NDArray[np.uint8], Any, NDArray[np.uint8], Any]):
    """An environment that is held to its spaces.

    Type and shape of the frame, reward, ends and info are checked at every step, values and the
    action at the first of each episode. Frames are the caller's own: an array that the environment
    uses again is copied. What the environment raises becomes a `UserError` that names the
    environment, the seed and the step.
    """

    def __init__(self, env: gym.Env[NDArray[np.uint8], Any], name: str) -> None:
        """Wrap an environment with pixels (see `require_pixels`), which errors call `name`."""
        super().__init__(env)
        space = env.observation_space
        assert isinstance(space, gym.spaces.Box)
        self.name, self._box, self._shape = name, space, space.shape
        self._narrow = bool((space.low > 0).any() or (space.high < 255).any())
        self._seed: int | None = None
        self._t = 0
        self._first: Any = None
        self._second: Any = None
        self._end = weakref.finalize(self, _close, env)

    def close(self) -> None:
        """Close the environment; one that nobody closes is closed when it or the process ends."""
        self._end.detach()
        super().close()

    @property
    def spec(self) -> gym.envs.registration.EnvSpec | None:  # type: ignore[override]  # as in gym.Wrapper itself
        """The environment's own: what is made of it needs no second pair of checks."""
        return self.env.spec

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Begin an episode; `UserError` if the frame or the info is not what it must be."""
        self._seed, self._t = seed, 0
        answer = self._call(self.env.reset, seed=seed, options=options)
        if not isinstance(answer, tuple) or len(answer) != 2:
            self._refuse("the answer", answer, "a tuple of observation and info")
        obs, info = answer
        self._check_frame(obs)
        self._check_info(info)
        self._first, self._second = obs, None
        return obs.copy(), info

    def step(
        self, action: Any
    ) -> tuple[NDArray[np.uint8], SupportsFloat, bool, bool, dict[str, Any]]:
        """Take a step; `UserError` if something that comes back is not what it must be."""
        self._t += 1
        if self._t == 1:
            self._check_action(action)
        obs, reward, terminated, truncated, info = self._call(self.env.step, action)
        # for an environment that keeps its promises, each line is one or two comparisons
        plain = type(obs) is np.ndarray and obs.dtype is _UINT8 and obs.shape == self._shape
        if not plain or self._t == 1:
            self._check_frame(obs)
        if type(reward) is not float or not -LARGEST_REWARD <= reward <= LARGEST_REWARD:
            reward = self._number(reward)
        if type(terminated) is not bool or type(truncated) is not bool:
            terminated = self._flag("terminated", terminated)
            truncated = self._flag("truncated", truncated)
        if type(info) is not dict:
            self._check_info(info)
        self._second = obs if self._second is None else self._second
        if obs.base is not None or obs is self._first or obs is self._second:
            obs = obs.copy()
        return obs, reward, terminated, truncated, info

    def _call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What the environment returns; what it raises becomes one line with its place."""
        try:
            return method(*args, **kwargs)
        except UserError:
            raise
        except BrokenPromise as broken:
            self._refuse(*broken.args)
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            own = [frame for frame in frames if "site-packages" not in frame.filename]
            frame = (own[1:] or frames)[-1]  # the first one is this module's
            text = f"{type(error).__name__}: {' '.join(str(error).split())}"
            place = f"{os.path.basename(frame.filename)}, line {frame.lineno}"
            raise UserError(
                f"environment {self.name!r} failed {self._where()}: {text} ({place})"
            ) from error

    def _check_frame(self, obs: Any) -> None:
        """Refuse another type or shape than declared, and other values where fewer are."""
        declared = f"{self._box.dtype} {self._shape}"
        if not isinstance(obs, np.ndarray) or obs.dtype != _UINT8 or obs.shape != self._shape:
            self._refuse("the observation", obs, f"{declared}, as its space declares")
        if self._narrow and not ((obs >= self._box.low) & (obs <= self._box.high)).all():
            declared += f" from {self._box.low.min()} to {self._box.high.max()}"
            self._refuse("the observation", obs, f"{declared}, as its space declares")

    def _check_action(self, action: Any) -> None:
        """Refuse an action of another shape or kind than declared; ranges are the runner's."""
        space = self.env.action_space
        if isinstance(space, gym.spaces.Box):
            given = np.asarray(action)
            kinds = "iu" if np.issubdtype(space.dtype, np.integer) else "fiub"
            fine = given.shape == space.shape and given.dtype.kind in kinds
        else:
            fine = space.contains(action)
        if not fine:
            self._refuse("the action", action, f"of {space}")

    def _number(self, reward: Any) -> float:
        """A reward as a plain float."""
        value = np.asarray(reward)
        if value.ndim or value.dtype.kind not in "fiub":
            self._refuse("the reward", reward, "one real number")
        number = float(value)
        if not np.isfinite(number):
            self._refuse("the reward", number, "finite")
        if abs(number) > LARGEST_REWARD:
            right = f"at most {LARGEST_REWARD:g} in size, for M to learn it in float32"
            help_ = "gymnasium.wrappers.TransformReward can scale it"
            self._refuse("the reward", number, f"{right} ({help_})")
        return number

    def _flag(self, name: str, flag: Any) -> bool:
        """An end of an episode as a plain bool."""
        value = np.asarray(flag)
        if value.ndim or value.dtype.kind not in "biu" or value not in (0, 1):
            self._refuse(name, flag, "True or False")
        return bool(value)

    def _check_info(self, info: Any) -> None:
        if not isinstance(info, Mapping):
            self._refuse("the info", info, "a dict")

    def _where(self) -> str:
        seed = "of an episode without a seed" if self._seed is None else f"of seed {self._seed}"
        return f"at the reset {seed}" if self._t == 0 else f"in step {self._t} {seed}"

    def _refuse(self, field: str, got: Any, right: str) -> NoReturn:
        raise UserError(
            f"environment {self.name!r}: {field} is {_describe(got)} {self._where()}; "
            f"it must be {right}"
        )


def _close(env: gym.Env[Any, Any]) -> None:
    """Close an environment that nobody uses any more, and so nobody hears of a failure."""
    with contextlib.suppress(Exception):
        env.close()


def time_limit(env: gym.Env[Any, Any]) -> int | None:
    """The steps after which an environment truncates its episodes; None where it never says so."""
    limits = []
    while isinstance(env, gym.Wrapper):
        if isinstance(env, TimeLimit):
            limits.append(int(env._max_episode_steps))
        env = env.env
    if env.spec is not None:
        if env.spec.max_episode_steps is not None:
            limits.append(int(env.spec.max_episode_steps))
        frames, skip = (
            env.spec.kwargs.get(name) for name in ("max_num_frames_per_episode", "frameskip")
        )
        if isinstance(frames, int) and isinstance(skip, int):  # the emulator's own limit (ALE)
            limits.append(math.ceil(frames / max(1, skip)))
    return min(limits, default=None)


def require_limit(env: gym.Env[Any, Any], remedy: str = "") -> None:
    """Refuse an environment whose episodes may never end, with a remedy beside registering it."""
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


def _describe(value: Any) -> str:
    """What was handed out, in few words."""
    if type(value) is float:
        return f"{value:g}"
    if not isinstance(value, np.ndarray | np.generic):
        text = " ".join(repr(value).split())
        return f"{type(value).__name__} {text if len(text) <= 60 else text[:60] + '...'}"
    text = f"{value.dtype} {value.shape if value.ndim else value}"
    if value.ndim == 0 or value.size == 0 or value.dtype.kind not in "fiub":
        return text
    if np.isnan(value).any():
        return f"{text} with NaN"
    return f"{text} from {float(value.min()):g} to {float(value.max()):g}"
