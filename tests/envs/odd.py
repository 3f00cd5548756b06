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


def box(shape: tuple[int, ...], dtype: Any = np.uint8, high: float = 255, low: float = 0) -> Any:
    return spaces.Box(low, high, shape, dtype)


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
        """All pixels show the step; what a wrapper leaves out shows white."""
        shape = self.observation_space.shape or (H, W, 3)
        frame = np.full(shape, 20 * self.t % 256, np.uint8)
        if len(shape) == 4:
            frame[:-1] = 255
        elif shape[-1] in (4, 5, 12):
            frame[..., {4: slice(3, None), 5: slice(4), 12: slice(9)}[shape[-1]]] = 255
        elif shape[0] in (4, 12) and len(shape) == 3 and shape[-1] == W:
            frame[: {4: 3, 12: 9}[shape[0]]] = 255
        return self.case.frame(frame, self)


def typed(frame: Any, env: Odd) -> Any:
    return frame.astype(env.observation_space.dtype)


def tenths(frame: Any, env: Odd) -> Any:
    return typed(frame, env) / 255


def centred(frame: Any, env: Odd) -> Any:
    return typed(frame, env) - np.float32(127.5)


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
    # what wrappers make of other spaces
    "channels first": Case(observation=box((3, H, W))),
    "grey channel first": Case(observation=box((1, H, W))),
    "RGBA": Case(observation=rgb(4)),
    "stacked": Case(observation=rgb(12)),
    "grey stacked": Case(observation=rgb(5)),
    "stacked in front": Case(observation=box((4, H, W, 3))),
    "grey stacked in front": Case(observation=box((4, H, W))),
    "stacked with channels first": Case(observation=box((12, H, W))),
    "float frames": Case(observation=rgb(3, np.float32, 1), frame=tenths),
    "float64 grey frames": Case(observation=box((H, W), np.float64, 1), frame=tenths),
    "floats to 255": Case(observation=rgb(3, np.float32), frame=typed),
    "floats around 0": Case(observation=box((H, W, 3), np.float32, 127.5, -127.5), frame=centred),
    "int32 frames": Case(observation=rgb(3, np.int32), frame=typed),
    "few shades": Case(observation=rgb(high=51), frame=lambda frame, env: frame // 5),
    "dict": Case(
        observation=spaces.Dict(image=rgb(), speed=spaces.Box(0, 1, (1,))),
        frame=lambda frame, env: {"image": frame, "speed": np.zeros(1, np.float32)},
    ),
    "several choices": Case(action=spaces.MultiDiscrete([3, 2])),
    "several choices from 1": Case(action=spaces.MultiDiscrete([3, 2], start=[1, 5])),
    "switches": Case(action=spaces.MultiBinary(3)),
    "matrix of switches": Case(action=spaces.MultiBinary((2, 3))),
    # what is refused when it is made
    "floats without bounds": Case(
        f"{WRAP}TransformObservation can scale them", observation=box((H, W, 3), np.float32, np.inf)
    ),
    "many channels": Case("keep 3 of the 20 channels", observation=box((20, 24, 20))),
    "dict of images": Case(
        "shows several images, 'a', 'b': choose one, for example by --obs-key a",
        observation=spaces.Dict(a=rgb(), b=rgb()),
    ),
    "dict without image": Case(
        r"a Dict .* without an image \('cells' \(uint8 \(3, 3\)\), 'x' \(Discrete\)\): "
        f"{WRAP}TransformObservation",
        observation=spaces.Dict(cells=box((3, 3)), x=spaces.Discrete(3)),
    ),
    "too many choices": Case(
        r"MultiDiscrete\(\[9 9\]\) has 81 combinations; at most 64",
        action=spaces.MultiDiscrete([9, 9]),
    ),
    "too many switches": Case("more than 10\\^12 combinations", action=spaces.MultiBinary(20000)),
    "no pixels": Case(
        f"{WRAP}AddRenderObservation", observation=spaces.Box(-1, 1, (4,), np.float32)
    ),
    "one choice": Case("one choice", action=spaces.Discrete(1)),
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
    "floats beyond 1": Case(
        at_step=r"float32 .* from 2 to 2 at the reset .*float32 \(12, 16, 3\) from 0 to 1, as its",
        observation=rgb(3, np.float32, 1),
        frame=lambda frame, env: typed(frame, env) + 2,
    ),
    "NaN among floats": Case(
        at_step="float32 .* with NaN at the reset .* from 0 to 1, as its space",
        observation=rgb(3, np.float32, 1),
        frame=lambda frame, env: typed(frame, env) * np.nan,
    ),
    "other channels first": Case(
        at_step=rf"uint8 \(12, 16, 3\) from 0 to 0 {AT_RESET}it must be uint8 \(3, 12, 16\), as",
        observation=box((3, H, W)),
        frame=lambda frame, env: frame.transpose(1, 2, 0),
    ),
    "dict without its image": Case(
        at_step=rf"the observation is dict .*{AT_RESET}it must be a dict with 'image'",
        observation=spaces.Dict(image=rgb()),
        frame=lambda frame, env: {"other": frame},
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
