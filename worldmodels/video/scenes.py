"""What a person or an agent acts in before a window: the real environment, or an agent's dream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import gymnasium as gym
import numpy as np
import torch

from worldmodels import envs
from worldmodels.agent import Agent
from worldmodels.dream.env import Dream
from worldmodels.envs import pixels
from worldmodels.envs.spaces import ActionSpec
from worldmodels.protocols import Policy
from worldmodels.tasks import task_for
from worldmodels.tasks.keys import Keyboard
from worldmodels.video.drawing import Frames
from worldmodels.video.films import pace, pace_of
from worldmodels.video.window import Window

LAST_SECONDS = 2.0
"""How long the last frame of an episode stays in a window."""

Act: TypeAlias = Callable[[Any, Sequence[str]], Any]
"""From an observation and the keys that are held to an action."""
Look: TypeAlias = Callable[[Any], Frames]
"""From an observation to the frames (n, H, W, 3) since the one before."""


class Ride(NamedTuple):
    """An episode, or as much of it as was seen."""

    total: float
    """return"""
    length: int
    """steps of the real environment"""

    def __str__(self) -> str:
        """In words."""
        return f"return {self.total:.1f} in {self.length} steps"


@dataclass(frozen=True)
class Scene:
    """Where one acts, and how it looks."""

    env: gym.Env[Any, Any]
    look: Look
    rate: float
    """frames per second"""
    keyboard: Keyboard
    held: int = 1
    """steps of the real environment in one of these"""


def reality(env_id: str) -> Scene:
    """A real environment as it draws itself for people, where its observations stay the same."""
    env = envs.make(env_id)
    draws = False
    if pixels.DRAWN in env.metadata.get("render_modes", ()):
        drawn = envs.make(env_id, render_mode=pixels.DRAWN)
        draws = drawn.observation_space == env.observation_space
        (env if draws else drawn).close()
        env = drawn if draws else env

    def look(obs: Any) -> Frames:
        return _as_frames(env.render() if draws else obs)

    keyboard = Keyboard.of(ActionSpec.from_space(env.action_space), task_for(env_id).keys)
    return Scene(env, look, pace(env), keyboard)


def dream(agent: Agent, steps: int) -> Scene:
    """The dream of an agent for ``steps`` of the real environment; M says where it ends.

    Frames between two decisions are decoded from z in between.
    """
    held, last = agent.action_repeat, None
    env = Dream(agent, horizon=max(1, steps // held))

    def look(obs: Any) -> Frames:
        nonlocal last
        z = obs[: agent.z_dim]
        parts = np.linspace(0, 1, held + 1, dtype=np.float32)[1:, None]
        between = z[None] if last is None else (1 - parts) * last + parts * z
        last = z
        return agent.decode(between)

    keyboard = Keyboard.of(agent.action_spec, task_for(agent.env_id).keys)
    return Scene(env, look, pace_of(agent.env_id), keyboard, held)


def _as_frames(obs: Any) -> Frames:
    """One frame (H, W, 3), (H, W, 1) or (H, W) as (1, H, W, 3)."""
    frame: Frames = np.asarray(obs, np.uint8)
    frame = frame[..., None] if frame.ndim == 2 else frame
    return np.broadcast_to(frame, (1, *frame.shape[:2], 3))


def person(keyboard: Keyboard) -> Act:
    """Acts by the keys that are held."""
    last: Any = None

    def act(_: Any, held: Sequence[str]) -> Any:
        nonlocal last
        last = keyboard.action(held, last)
        return last

    return act


def policy(acting: Policy) -> Act:
    """Acts by a policy on real frames."""
    state: Any = None
    starts = np.ones(1, np.bool_)

    def act(obs: Any, _: Sequence[str]) -> Any:
        nonlocal state, starts
        action, state = acting.predict(np.asarray(obs)[None], state, starts, True)
        starts = np.zeros(1, np.bool_)
        return action[0]

    return act


def dreamer(agent: Agent) -> Act:
    """Acts by an agent on z and what it sees of M."""

    @torch.inference_mode()
    def act(obs: Any, _: Sequence[str]) -> Any:
        seen = torch.from_numpy(obs)[None]
        taken = agent.act(seen[:, : agent.z_dim], seen[:, agent.z_dim :])
        return agent.action_spec.decode(taken.numpy())[0]

    return act


def ride(
    scene: Scene,
    act: Act,
    seed: int,
    steps: int,
    window: Window | None = None,
    greeting: str = "",
) -> Ride:
    """Act for an episode of at most ``steps``, before a window if one is given.

    A ``greeting`` under the first frame waits for a key, and the last one stays for a moment.
    Closing the window ends the ride.
    """
    obs, _ = scene.env.reset(seed=seed)
    total, length = 0.0, 0

    def shown(line: str) -> bool:
        return window is None or all(window.show(frame, line) for frame in scene.look(obs))

    while window and greeting and not window.keys() and shown(greeting):
        pass
    going = not (window and window.closed)
    while going and length < steps:
        action = act(obs, window.keys() if window else ())
        obs, reward, terminated, truncated, _ = scene.env.step(action)
        total, length = total + float(reward), length + scene.held
        line = f"step {length}   return {total:.1f}   reward {float(reward):+.1f}"
        going = shown(line) and not (terminated or truncated)
    left = round(scene.rate * LAST_SECONDS / scene.held)
    while window and not window.closed and left > 0 and shown(f"the end: return {total:.1f}"):
        left -= 1
    return Ride(total, length)
