"""An agent's dream as a Gymnasium environment, single and vectorised.

``gymnasium.make("worldmodels/Dream-v0", agent="path/to/agent")`` and the same with
``make_vec(..., num_envs=64, vectorization_mode="vector_entry_point")``. Any agent folder will do:
observation is [z, h], the action space is that of the environment the agent learnt from.
"""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any, Self, TypeAlias

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from worldmodels.agent import Agent
from worldmodels.dream.batch import DreamBatch
from worldmodels.dream.config import DreamConfig
from worldmodels.dream.starts import DreamStarts
from worldmodels.protocols import UserError

RENDER_SCALE = 6
"""Rendered pixels per pixel of V's frame, each way."""

AgentLike: TypeAlias = Agent | str | Path

_METADATA: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 50}
_VECTOR_METADATA: dict[str, Any] = {**_METADATA, "autoreset_mode": AutoresetMode.NEXT_STEP}


class _Opened:
    """An agent's dreams: what the single and the vectorised environment share."""

    agent: Agent
    cfg: DreamConfig
    render_mode: str | None
    dreams: DreamBatch

    def _open(
        self,
        agent: AgentLike,
        count: int,
        render_mode: str | None,
        cfg: DreamConfig | None,
        changes: dict[str, Any],
    ) -> None:
        """Set the attributes above; see `Dream` for the arguments."""
        if render_mode not in (None, "rgb_array"):
            raise UserError(f"render_mode is {render_mode!r}; the dream knows 'rgb_array' and None")
        known = {field.name for field in dataclasses.fields(DreamConfig)}
        unknown = sorted(changes.keys() - known)
        if unknown:
            options = ", ".join(sorted(known))
            raise UserError(f"the dream has no option {unknown[0]!r}; it has {options}")
        agent = agent if isinstance(agent, Agent) else Agent.from_pretrained(agent)
        if agent.starts is None or agent.reward_model is None:
            missing = "recorded starts" if agent.starts is None else "reward model"
            raise UserError(
                f"this agent cannot dream: it has no {missing}; use one saved by the pipeline"
            )
        self.agent, self.render_mode = agent, render_mode
        self.cfg = dataclasses.replace(cfg or DreamConfig(horizon=1000), **changes)
        starts = DreamStarts(agent.starts.z, agent.starts.h, agent.starts.c)
        self.dreams = DreamBatch(
            agent.memories, agent.reward_model, starts, agent.action_spec, self.cfg, count
        )

    def __copy__(self) -> Self:
        """A deep copy, since two environments cannot share a dream."""
        return copy.deepcopy(self)

    def _begin(self, rng: np.random.Generator, options: dict[str, Any] | None) -> NDArray[np.int64]:
        """Restart all, at drawn starts or at ``options={"start": i}`` or (n,) indices."""
        rows, given = np.arange(self.dreams.num_dreams), None
        if options and "start" in options:
            given = np.asarray(options["start"])
            if not np.issubdtype(given.dtype, np.integer) or given.shape not in ((), rows.shape):
                found = options["start"]
                raise UserError(f'options["start"] is {found!r}; one index for each dream')
            given = np.broadcast_to(given, rows.shape).astype(np.int64)
        return self.dreams.restart(rows, rng, given)

    def _pictures(self) -> NDArray[np.uint8] | None:
        """V's pictures of z, enlarged: (n, 384, 384, 3) uint8; None without a render mode."""
        if self.render_mode is None:
            return None
        frames = torch.from_numpy(self.agent.decode(self.dreams.z)).permute(0, 3, 1, 2).float()
        large = torch.nn.functional.interpolate(frames, scale_factor=RENDER_SCALE, mode="bilinear")
        return np.ascontiguousarray(large.round().to(torch.uint8).permute(0, 2, 3, 1).numpy())


class Dream(_Opened, gym.Env[NDArray[np.float32], Any]):
    """One dream; observations are [z, h] (Z + H,) float32.

    A step of the dream is a step of M: `Agent.action_repeat` steps of the real environment.
    """

    metadata = _METADATA

    def __init__(
        self,
        agent: AgentLike,
        render_mode: str | None = None,
        cfg: DreamConfig | None = None,
        **changes: Any,
    ) -> None:
        """Open a dream.

        Args:
            agent: an agent, its folder, or the name of a shipped one.
            render_mode: "rgb_array" for what V decodes from z.
            cfg: how to dream; None takes the defaults with a horizon of 1000 steps.
            changes: fields of `DreamConfig` that differ from ``cfg``, such as ``temperature=1.15``.

        Raises:
            UserError: no such agent, no such option, or a value out of its range.
        """
        self._open(agent, 1, render_mode, cfg, changes)
        self.observation_space = self.dreams.observation_space
        self.action_space = self.dreams.action_space
        self._begun = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin at a recorded state, drawn or given as ``options={"start": index}``."""
        super().reset(seed=seed)
        index = self._begin(self.np_random, options)
        self._begun = True
        return self.dreams.observe()[0], {"start": int(index[0])}

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Dream one step; actions outside a Box are clipped to it."""
        if not self._begun:
            raise gym.error.ResetNeeded("call reset() before the first step() of a dream")
        step = self.dreams.step(np.asarray(action)[None], self.np_random)
        obs, reward, terminated, truncated = (part[0] for part in step[:4])
        info: dict[str, Any] = {}
        if step.disagreement is not None:
            info["disagreement"] = float(step.disagreement[0])
        return obs, float(reward), bool(terminated), bool(truncated), info

    def render(self) -> NDArray[np.uint8] | None:
        """V's picture of z, (384, 384, 3) uint8; None without a render mode."""
        pictures = self._pictures()
        return None if pictures is None else pictures[0]


class DreamVector(_Opened, VectorEnv[NDArray[np.float32], Any, Any]):
    """n dreams in step; one that ended restarts at the next step (Gymnasium's NEXT_STEP)."""

    metadata = _VECTOR_METADATA

    def __init__(
        self,
        agent: AgentLike,
        num_envs: int = 1,
        render_mode: str | None = None,
        cfg: DreamConfig | None = None,
        **changes: Any,
    ) -> None:
        """Open n dreams; the same arguments as `Dream`."""
        self._open(agent, num_envs, render_mode, cfg, changes)
        self.num_envs = num_envs
        self.single_observation_space = self.dreams.observation_space
        self.single_action_space = self.dreams.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._ended: NDArray[np.bool_] | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin all dreams, at drawn starts or at ``options={"start": (n,) indices}``.

        One generator serves all dreams, so there is one seed.
        """
        super().reset(seed=seed)
        index = self._begin(self.np_random, options)
        self._ended = np.zeros(self.num_envs, np.bool_)
        return self.dreams.observe(), {"start": index, "_start": np.ones(self.num_envs, np.bool_)}

    def step(
        self, actions: Any
    ) -> tuple[
        NDArray[np.float32],
        NDArray[np.float64],
        NDArray[np.bool_],
        NDArray[np.bool_],
        dict[str, Any],
    ]:
        """Dream one step; where a dream had ended, its action is ignored and it restarts."""
        if self._ended is None:
            raise gym.error.ResetNeeded("call reset() before the first step() of the dreams")
        begin = self._ended
        step = self.dreams.step(np.asarray(actions), self.np_random)
        info: dict[str, Any] = {}
        if step.disagreement is not None:
            info = {"disagreement": step.disagreement, "_disagreement": ~begin}
        obs = step.obs
        if begin.any():
            rows = np.flatnonzero(begin)
            start = np.zeros(self.num_envs, np.int64)
            start[rows] = self.dreams.restart(rows, self.np_random)
            info |= {"start": start, "_start": begin}
            obs = self.dreams.observe()
        reward = np.where(begin, 0.0, step.reward.astype(np.float64))
        terminated, truncated = step.terminated & ~begin, step.truncated & ~begin
        self._ended = terminated | truncated
        return obs, reward, terminated, truncated, info

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """V's picture of every z, each (384, 384, 3) uint8; None without a render mode."""
        pictures = self._pictures()
        return None if pictures is None else tuple(pictures)
