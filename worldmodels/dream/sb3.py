"""The dream for Stable-Baselines3: its algorithms train in it and then act in the environment."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from worldmodels.envs.spaces import ActionSpec
from worldmodels.protocols import Predictor


class DreamVecEnv(VecEnv):
    """Stable-Baselines3's `VecEnv` over dreams: 4-tuples, a dream that ends restarts at once."""

    def __init__(self, vector: Any, seed: int = 0) -> None:
        """Wrap a `DreamVector`, such as ``gymnasium.make_vec("worldmodels/Dream-v0", ...)``."""
        self._vector = dreams = vector.unwrapped
        self.render_mode = dreams.render_mode
        spaces = dreams.single_observation_space, dreams.single_action_space
        super().__init__(dreams.num_envs, *spaces)
        self._rng = np.random.default_rng(seed)
        self._actions: NDArray[Any] = np.empty(0)

    __copy__ = copy.deepcopy  # two environments cannot share a dream

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed all dreams; it takes effect at once."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        return [seed] * self.num_envs

    def reset(self) -> VecEnvObs:
        """Begin all dreams."""
        self._vector.restart(np.arange(self.num_envs), self._rng)
        obs: NDArray[np.float32] = self._vector.observe()
        return obs

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Dream one step; ``terminal_observation`` is in the info of a dream that ended."""
        step, truncated = self._vector.dream(self._actions, self._rng)
        done, obs = step.terminated | truncated, self._vector.observe()
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if done.any():
            rows = np.flatnonzero(done)
            for row in rows:
                infos[row]["terminal_observation"] = obs[row]
                infos[row]["TimeLimit.truncated"] = bool(truncated[row])
            self._vector.restart(rows, self._rng)
            obs = self._vector.observe()
        return obs, step.reward, done, infos

    def close(self) -> None:
        """Nothing is held open."""

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """Pictures of all dreams."""
        return self._vector.render() or [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The same attribute of the vector for every index."""
        return [getattr(self._vector, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the vector, which all dreams share."""
        setattr(self._vector, attr_name, value)

    def env_method(
        self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """Refused: a dream of a vector is not an environment."""
        raise NotImplementedError(f"a vector of dreams has no {method_name}() for each dream")

    def env_is_wrapped(self, wrapper_class: type, indices: VecEnvIndices = None) -> list[bool]:
        """No dream is wrapped."""
        return [False for _ in self._get_indices(indices)]


class Learnt(Predictor, Protocol):
    """An algorithm that knows its actions."""

    action_space: spaces.Space[Any]


class LatentPredictor:
    """A policy learnt in the dream, in C's place: see `Agent.with_policy`."""

    def __init__(self, policy: Learnt) -> None:
        """Take a model or a policy without a recurrent state."""
        self.policy, self.spec = policy, ActionSpec.from_space(policy.action_space)

    def __call__(self, z: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        """Deterministic actions for z (B, Z) and h (B, H), or [h, c], as M sees them: (B, A)."""
        seen = torch.cat([z, h], dim=1).numpy()
        return torch.from_numpy(self.spec.encode(self.policy.predict(seen, deterministic=True)[0]))
