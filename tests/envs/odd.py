"""Small environments with one difficulty each, and what is right for each of them.

A bright block moves with the action; the episode has `LENGTH` steps. `CASES` is the specification:
an environment works, is refused when it is made, or breaks a promise that is told at the step that
shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

H, W, LENGTH = 12, 16, 6
ODD = "tests.envs.odd:tests/Odd-v0"


def rgb(channels: int = 3, dtype: Any = np.uint8, high: float = 255) -> spaces.Box:
    return spaces.Box(0, high, (H, W, channels), dtype)


@dataclass(frozen=True)
class Case:
    """One difficulty."""

    at_make: str = ""
    """what `make` says; empty where it accepts"""
    at_step: str = ""
    """what the first episode says; empty where it ends well"""
    observation: gym.Space[Any] | None = None
    action: gym.Space[Any] | None = None
    frame: Callable[[Any, Odd], Any] = lambda frame, env: frame
    reward: Callable[[Odd], Any] = lambda env: 1.0
    end: Callable[[bool], Any] = lambda over: over
    info: Any = None


class Odd(gym.Env[Any, Any]):
    """The environment of a case."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  # gymnasium's own convention

    def __init__(self, case: str = "fine", length: int = LENGTH) -> None:
        self.case, self.length = CASES[case], length
        self.observation_space = self.case.observation or rgb()
        self.action_space = self.case.action or spaces.Box(-1, 1, (2,), np.float32)
        self.buffers = [np.zeros(self.observation_space.shape or (1,), np.uint8) for _ in "ab"]
        self.taken: list[Any] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        self.t = 0
        self.taken.clear()
        return self._frame(), {}

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, Any]:
        self.t += 1
        self.taken.append(action)
        info = {} if self.case.info is None else self.case.info
        over = self.case.end(self.t >= self.length)
        return self._frame(), self.case.reward(self), over, self.case.end(False), info

    def _frame(self) -> Any:
        """All pixels show the step."""
        shape = self.observation_space.shape or (H, W, 3)
        return self.case.frame(np.full(shape, 20 * self.t % 256, np.uint8), self)


def same_buffer(frame: Any, env: Odd) -> Any:
    env.buffers[0][:] = frame
    return env.buffers[0]


def two_buffers(frame: Any, env: Odd) -> Any:
    env.buffers[env.t % 2][:] = frame
    return env.buffers[env.t % 2]


def view(frame: Any, env: Odd) -> Any:
    env.buffers[0][:] = frame
    return env.buffers[0][:]


def later(change: Callable[[Any], Any], at: int = 3) -> Callable[[Any, Odd], Any]:
    """Change the frame of one step."""
    return lambda frame, env: change(frame) if env.t == at else frame


def fails_at(step: int) -> Callable[[Odd], Any]:
    def reward(env: Odd) -> Any:
        if env.t == step:
            raise RuntimeError("the simulator\nlost its connection")
        return 1.0

    return reward


DECLARED = r"it must be uint8 \(12, 16, 3\), as its space declares"
AT_RESET = r"at the reset of seed 7; "
STEP_3 = r"in step 3 of seed 7; "
WRAP = r"gymnasium\.wrappers\."

CASES = {
    # what works
    "fine": Case(),
    "grey": Case(observation=spaces.Box(0, 255, (H, W), np.uint8)),
    "grey with a channel": Case(observation=rgb(1)),
    "choices": Case(action=spaces.Discrete(3)),
    "choices from 5": Case(action=spaces.Discrete(3, start=5)),
    "whole numbers": Case(action=spaces.Box(0, 4, (2,), np.int64)),
    "float64 actions": Case(action=spaces.Box(-0.1, 0.1, (2,), np.float64)),
    "one buffer": Case(frame=same_buffer),
    "two buffers": Case(frame=two_buffers),
    "views": Case(frame=view),
    "integer reward": Case(reward=lambda env: np.int64(1)),
    "float32 reward": Case(reward=lambda env: np.float32(1)),
    "reward without axes": Case(reward=lambda env: np.array(1.0)),
    "NumPy's bools": Case(end=np.bool_, info={"array": np.arange(3)}),
    # what is refused when it is made
    "float frames": Case(
        "scale them to 0 to 255 and round them to uint8", observation=rgb(3, np.float32, 1)
    ),
    "zeros and ones": Case("stretch 0 to 1 to 0 to 255", observation=rgb(high=1)),
    "RGBA": Case("keep 3 of the 4 channels", observation=rgb(4)),
    "stacked": Case("keep 3 of the 12 channels", observation=rgb(12)),
    "stacked in front": Case(
        "take the newest frame", observation=spaces.Box(0, 255, (4, H, W, 3), np.uint8)
    ),
    "channels first": Case(
        "move the channels last", observation=spaces.Box(0, 255, (3, H, W), np.uint8)
    ),
    "no pixels": Case(
        f"{WRAP}AddRenderObservation", observation=spaces.Box(-1, 1, (4,), np.float32)
    ),
    "dict": Case(
        f"{WRAP}TransformObservation can pick 'image'",
        observation=spaces.Dict(image=rgb(), speed=spaces.Box(0, 1, (1,))),
    ),
    "one choice": Case("one choice", action=spaces.Discrete(1)),
    "several choices": Case(f"{WRAP}TransformAction", action=spaces.MultiDiscrete([3, 2])),
    "switches": Case(f"{WRAP}TransformAction", action=spaces.MultiBinary(3)),
    "matrix": Case(
        f"{WRAP}TransformAction can reshape", action=spaces.Box(-1, 1, (2, 2), np.float32)
    ),
    "unbounded": Case("is unbounded", action=spaces.Box(-np.inf, np.inf, (1,), np.float32)),
    "flat": Case(
        "cannot move in component 1",
        action=spaces.Box(np.array([-1, 0], np.float32), np.array([1, 0], np.float32)),
    ),
    # what breaks a promise
    "floats from 0 to 1": Case(
        at_step=rf"the observation is float32 \(12, 16, 3\) from 0 to 0 {AT_RESET}{DECLARED}",
        frame=lambda frame, env: frame.astype(np.float32) / 255,
    ),
    "floats from -1 to 1": Case(
        at_step=rf"float64 \(12, 16, 3\) from -1 to -1 {AT_RESET}{DECLARED}",
        frame=lambda frame, env: frame / 127.5 - 1,
    ),
    "int16": Case(
        at_step=rf"int16 \(12, 16, 3\) from 0 to 0 {AT_RESET}{DECLARED}",
        frame=lambda frame, env: frame.astype(np.int16),
    ),
    "NaN": Case(
        at_step=rf"float32 \(12, 16, 3\) with NaN {AT_RESET}{DECLARED}",
        frame=lambda frame, env: np.full_like(frame, np.nan, np.float32),
    ),
    "turned": Case(
        at_step=rf"uint8 \(16, 12, 3\) from 0 to 0 {AT_RESET}{DECLARED}",
        frame=lambda frame, env: frame.transpose(1, 0, 2),
    ),
    "row": Case(at_step=rf"uint8 \(16, 3\) .*{DECLARED}", frame=lambda frame, env: frame[0]),
    "scalar": Case(at_step=rf"int 0 {AT_RESET}{DECLARED}", frame=lambda frame, env: 0),
    "None": Case(at_step=rf"NoneType None {AT_RESET}", frame=lambda frame, env: None),
    "row later": Case(
        at_step=rf"uint8 \(16, 3\) from 60 to 60 {STEP_3}{DECLARED}",
        frame=later(lambda frame: frame[0]),
    ),
    "floats later": Case(
        at_step=rf"float64 .* {STEP_3}{DECLARED}", frame=later(lambda frame: frame / 255)
    ),
    "too bright": Case(
        at_step=r"from 0 to 255 at the reset .*uint8 \(12, 16, 3\) from 0 to 200, as its space",
        observation=rgb(high=200),
        frame=lambda frame, env: frame | np.array([0, 255, 0], np.uint8),
    ),
    "reward in an array": Case(
        at_step=r"the reward is float64 \(1,\) from 1 to 1 in step 1 of seed 7; .*one real number",
        reward=lambda env: np.array([1.0]),
    ),
    "no reward": Case(at_step="the reward is NoneType None in step 1", reward=lambda env: None),
    "NaN reward": Case(
        at_step=f"the reward is nan {STEP_3}it must be finite",
        reward=lambda env: float("nan") if env.t == 3 else 1.0,
    ),
    "huge reward": Case(
        at_step=f"the reward is 1e\\+30 .*at most 1e\\+12.*{WRAP}TransformReward",
        reward=lambda env: 1e30,
    ),
    "end in an array": Case(
        at_step=r"terminated is bool \(1,\).*True or False", end=lambda over: np.array([over])
    ),
    "end without sense": Case(
        at_step="terminated is str 'no' .*True or False", end=lambda over: "yes" if over else "no"
    ),
    "no info": Case(at_step=r"the info is tuple \(\).*a dict", info=()),
    "failure": Case(
        at_step=r"'tests/Odd-v0' failed in step 3 of seed 7: RuntimeError: the simulator lost its "
        r"connection \(odd.py, line \d+\)",
        reward=fails_at(3),
    ),
}

if "tests/Odd-v0" not in gym.registry:
    gym.register("tests/Odd-v0", entry_point="tests.envs.odd:Odd")
    gym.register("tests/OddLimited-v0", entry_point="tests.envs.odd:Odd", max_episode_steps=4)
