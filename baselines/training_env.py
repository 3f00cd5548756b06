"""The environment as a baseline learns in it: held actions, shaping, stacked frames, own seeds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecNormalize

from baselines.actions import UnitActions
from baselines.pixels import PixelConfig, push, shrink
from baselines.recipes import Recipe
from baselines.shaping import Shaper, ShapingConfig
from worldmodels import envs, runs
from worldmodels.executors.processes import close_when_terminated
from worldmodels.protocols import TRAINING_SEED_LIMIT, UserError


class TrainingEnv(gym.Wrapper[Any, Any, Any, Any]):
    """One environment for training; never for a test.

    Tracks come from the run's seed, the number of the segment between two checkpoints, the index
    of this environment and the number of the episode, so that a resumed run sees the same tracks
    as an uninterrupted one.
    """

    def __init__(
        self,
        env: gym.Env[NDArray[np.uint8], Any],
        pixels: PixelConfig,
        shaping: ShapingConfig | None,
        seed: int,
        place: int,
        actions: UnitActions | None = None,
    ) -> None:
        """Wrap an environment with pixels; `actions` are what is acted in, in place of its own."""
        super().__init__(env)
        self.observation_space, self._actions = pixels.space, actions
        if actions is not None:
            self.action_space = actions.space
        self._pixels, self._shaper = pixels, None if shaping is None else Shaper(shaping)
        self._seed, self._place = seed, place
        self._stack = np.zeros((1, *pixels.shape), np.uint8)
        self.begin(0)

    def begin(self, segment: int) -> None:
        """Take the tracks of a segment from now on; call `reset` after it."""
        self._segment, self._episode = segment, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Begin the next episode; a seed that is given is passed over."""
        own = runs.derive_seed(self._seed, "track", self._segment, self._place, self._episode)
        self._episode += 1
        obs, info = self.env.reset(seed=own % TRAINING_SEED_LIMIT, options=options)
        if self._shaper is not None:
            self._shaper.begin()
        self._total, self._length = 0.0, 0
        return self._see(obs, fresh=True), info

    def step(self, action: Any) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Hold an action for as many frames as the recipe skips.

        The info has `frames`, how many that were, and at the end `episode`: return `r` (the
        environment's own) and length `l` in frames, as Stable-Baselines3 wants them.
        """
        if self._actions is not None:
            action = self._actions.to_env(action)
        obs, reward, terminated, truncated, info, frames = self._hold(action)
        self._total += reward
        self._length += frames
        if self._shaper is not None:
            reward, lost = self._shaper.shape(reward, action, obs, frames)
            terminated = terminated or lost
        info = {**info, "frames": frames}
        if terminated or truncated:
            info["episode"] = {"r": self._total, "l": self._length, "t": 0.0}
        # as DummyVecEnv rounds it, so that environments in processes of their own pay the same
        reward = float(np.float32(reward))
        return self._see(obs, fresh=False), reward, terminated, truncated, info

    def _hold(
        self, action: Any
    ) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any], int]:
        """Step the environment; frames in between are not drawn where it can leave that out."""
        bare: Any = self.env.unwrapped
        skips = self._pixels.skip > 1 and hasattr(bare, "draws_observations")
        total, taken = 0.0, 0
        for left in reversed(range(self._pixels.skip)):
            if skips:
                bare.draws_observations = left == 0
            obs, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            taken += 1
            if terminated or truncated:
                break
        if skips:
            obs = bare.draw_last() if left else obs
            bare.draws_observations = True
        return obs, total, terminated, truncated, info, taken

    def _see(self, obs: NDArray[np.uint8], fresh: bool) -> NDArray[np.uint8]:
        frame = shrink((obs[..., None] if obs.ndim == 2 else obs)[None], self._pixels)
        self._stack = push(self._stack, frame, np.array([fresh]))
        stacked: NDArray[np.uint8] = self._stack[0].copy()
        return stacked


class Reporting(gym.Wrapper[Any, Any, Any, Any]):
    """An environment in a process of its own, whose errors travel home in the infos.

    A process of Stable-Baselines3 dies of an error, and its parent hears only that the line is
    dead. Here the step that failed, or the next one where a reset did, has the text under `error`.
    """

    _error = ""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; black pictures where that fails."""
        if not self._error:
            try:
                return self.env.reset(seed=seed, options=options)
            except UserError as error:
                self._error = str(error)
        return self._black(), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step; the end of an episode where that fails."""
        if not self._error:
            try:
                return self.env.step(action)
            except UserError as error:
                self._error = str(error)
        return self._black(), 0.0, True, False, {"error": self._error}

    def _black(self) -> NDArray[np.uint8]:
        return np.zeros(self.observation_space.shape or (), np.uint8)


def check_environment(
    env_id: str, max_steps: int | None = None, unit_actions: bool = False
) -> None:
    """Make sure that Stable-Baselines3 can learn and be measured in an environment.

    Raises:
        UserError: an episode may never end, or its algorithms do not know the action space.
    """
    env = envs.make(env_id)
    try:
        if max_steps is None:
            envs.require_limit(env, "give --max-steps, or ")
        spec = envs.ActionSpec.from_space(env.action_space)
        if not unit_actions and (spec.integer or spec.start):
            raise UserError(
                f"environment {env_id!r}: Stable-Baselines3 knows no action space "
                f"{env.action_space}; gymnasium.wrappers.TransformAction can make a Box of floats "
                "or a Discrete space from 0 of it"
            )
    finally:
        env.close()


def make_one(
    recipe: Recipe,
    env_id: str,
    seed: int,
    place: int,
    reporting: bool = False,
    max_steps: int | None = None,
) -> gym.Env[Any, Any]:
    """One of a recipe's environments, `reporting` for a process of its own."""
    assert recipe.pixels is not None, "a dream needs no wrapper"
    if reporting:
        close_when_terminated()
    env = envs.make(env_id)
    spec = envs.ActionSpec.from_space(env.action_space) if recipe.unit_actions else None
    actions = None if spec is None else UnitActions(spec)
    if max_steps is not None:
        env = TimeLimit(env, max_steps)
    env = TrainingEnv(env, recipe.pixels, recipe.shaping, seed, place, actions)
    return Reporting(env) if reporting else env


def make_training_env(
    recipe: Recipe, env_id: str, seed: int, workers: int = 1, max_steps: int | None = None
) -> VecEnv:
    """All of a recipe's environments.

    Args:
        recipe: how many, and what they show.
        env_id: any environment that `envs.make` accepts.
        seed: of the run.
        workers: 1 steps all in this process; more give each environment a process of its own,
            which pays where the environment is slow.
        max_steps: longest episode, in steps; None leaves it to the environment.

    Raises:
        UserError: the environment cannot be made.
    """
    makers: list[Callable[[], gym.Env[Any, Any]]] = [
        partial(make_one, recipe, env_id, seed, place, workers > 1, max_steps)
        for place in range(recipe.n_envs)
    ]
    return normalized(recipe, SubprocVecEnv(makers) if workers > 1 else DummyVecEnv(makers))


def normalized(recipe: Recipe, env: VecEnv) -> VecEnv:
    """With the recipe's scaling of rewards around it, which a test does without."""
    if not recipe.norm_reward:
        return env
    return VecNormalize(env, norm_obs=False, norm_reward=True, gamma=recipe.gamma)
