"""Small deterministic environments whose frames tell which step of which episode they show.

A frame is one colour: red is the step, green the seed, blue a level that the actions move. Resizing
keeps it, so that a stored frame can be decoded by reading one pixel.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from worldmodels.experience import shards
from worldmodels.experience.episode import EncodedEpisode, Episode, EpisodeEncoder, EpisodeResult
from worldmodels.tasks import Task, register_task

BOX = "tests.experience.fakes:fakes/Pixels-v0"
DISCRETE = "tests.experience.fakes:fakes/PixelsDiscrete-v0"
LAPS = "tests.experience.fakes:fakes/Laps-v0"


def steps_of(seed: int) -> int:
    """Length of the episode of a seed."""
    return 5 + 17 * seed % 60


class Pixels(gym.Env[NDArray[np.uint8], Any]):
    """Even seeds terminate, odd ones are truncated; the reward is what the level moved by."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  # gymnasium's own convention

    def __init__(
        self, discrete: bool = False, bad_reward_at: int | None = None, pause: float = 0.0
    ) -> None:
        self.observation_space = gym.spaces.Box(0, 255, (12, 10, 3), np.uint8)
        self.action_space: gym.spaces.Space[Any] = (
            gym.spaces.Discrete(4)
            if discrete
            else gym.spaces.Box(np.array([-1, 0], np.float32), np.array([1, 2], np.float32))
        )
        self.bad_reward_at = bad_reward_at
        self.pause = pause

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        assert seed is not None
        self.seed, self.t, self.level = seed, 0, 128.0
        self.jitter = self.np_random.random(1000)
        return self._frame(), {}

    def _frame(self) -> NDArray[np.uint8]:
        colour = (self.t % 256, self.seed % 256, int(self.level) % 256)
        return np.broadcast_to(np.array(colour, np.uint8), (12, 10, 3)).copy()

    def step(self, action: Any) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        time.sleep(self.pause)
        moved = float(np.sum(action)) + self.jitter[self.t]
        self.t += 1
        self.level += moved
        over = self.t >= steps_of(self.seed)
        reward = float("nan") if self.t == self.bad_reward_at else moved
        even = self.seed % 2 == 0
        return self._frame(), reward, over and even, over and not even, {}


class Laps(Pixels):
    """An environment with laps: `lap_finished` is only told when the episode terminates."""

    def step(self, action: Any) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, _ = super().step(action)
        return obs, reward, terminated, truncated, {"lap_finished": True} if terminated else {}


if "fakes/Pixels-v0" not in gym.registry:
    limit = 100  # never reached: episodes end before
    gym.register(
        "fakes/Pixels-v0", entry_point="tests.experience.fakes:Pixels", max_episode_steps=limit
    )
    gym.register(
        "fakes/PixelsDiscrete-v0",
        entry_point="tests.experience.fakes:Pixels",
        kwargs={"discrete": True},
        max_episode_steps=limit,
    )
    gym.register(
        "fakes/Laps-v0", entry_point="tests.experience.fakes:Laps", max_episode_steps=limit
    )
    register_task(Task("fakes-laps", finished_key="lap_finished"), "fakes/Laps-v0")


class EchoPolicy:
    """A policy that answers with a fixed action and remembers what it was called with."""

    def __init__(self, action: tuple[float, ...] | int = (0.25, 1.5)) -> None:
        self.action = action
        self.calls: list[tuple[Any, Any]] = []
        self.told: list[Any] = []

    def predict(
        self,
        obs: NDArray[np.uint8],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], Any]:
        self.calls.append((state, episode_start))
        action = np.asarray(self.action)
        return np.broadcast_to(action, (len(obs), *action.shape)).copy(), (state or 0) + 1

    def executed(self, state: Any, action: NDArray[Any]) -> Any:
        self.told.append(action.copy())
        return state


def load_echo(folder: Any) -> EchoPolicy:
    """Stand-in for `Agent.from_pretrained`."""
    return EchoPolicy()


def write_shard(path: Path, episodes: Sequence[Episode], meta: Mapping[str, Any]) -> shards.Shard:
    """Write episodes that are in memory."""
    packed = shards.pack_shard([_encoded(episode) for episode in episodes], meta)
    return shards.write_shard(path, packed)


def _encoded(episode: Episode) -> EncodedEpisode:
    encoder = EpisodeEncoder(episode.seed)
    for frame in episode.obs:
        encoder.add(frame)
    steps = (episode.action, episode.reward.astype(np.float64))
    return encoder.finish(EpisodeResult(0.0, len(episode), *steps, **episode.ending()))
