"""An agent's dream as a Gymnasium environment, single and vectorised.

``gymnasium.make("worldmodels/Dream-v0", agent="path/to/agent")`` and the same with
``make_vec(..., num_envs=64, vectorization_mode="vector_entry_point")``. Any agent folder will do:
observation is [z, h], or [z, h, c] where its C sees c; the action space is that of the environment
the agent learnt from.
"""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from worldmodels.agent import Agent
from worldmodels.dream.config import DreamConfig
from worldmodels.dream.engine import DreamEngine
from worldmodels.dream.starts import Array, DreamStarts
from worldmodels.dream.world import EXTRA_UNIFORMS, WorldStep, draw_mask
from worldmodels.protocols import UserError

RENDER_SCALE = 6
"""Rendered pixels per pixel of V's frame, each way."""

AgentLike: TypeAlias = Agent | str | Path
Flags: TypeAlias = NDArray[np.bool_]

_METADATA: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 50}
_VECTOR_METADATA: dict[str, Any] = {**_METADATA, "autoreset_mode": AutoresetMode.NEXT_STEP}


class DreamVector(VectorEnv[Array, Any, Any]):
    """n dreams in step; one that ended restarts at the next step (Gymnasium's NEXT_STEP).

    Observations are [z, h] (n, Z + H) float32, or [z, h, c] where the agent's C sees c. A step of
    the dream is a step of M: `Agent.action_repeat` steps of the real environment.
    """

    metadata = _VECTOR_METADATA

    def __init__(
        self,
        agent: AgentLike,
        num_envs: int = 1,
        render_mode: str | None = None,
        cfg: DreamConfig | None = None,
        **changes: Any,
    ) -> None:
        """Open n dreams.

        Args:
            agent: an agent, its folder, or the name of a bundled one.
            num_envs: n.
            render_mode: "rgb_array" for what V decodes from z.
            cfg: how to dream; None takes the defaults with a horizon of 1000 steps, and ends as in
                the agent's training (`Agent.ends`).
            changes: fields of `DreamConfig` that differ from ``cfg``, such as ``temperature=1.15``.

        Raises:
            UserError: an unknown option, a value out of range, or an agent that cannot dream.
        """
        if render_mode not in (None, "rgb_array"):
            raise UserError(f"render_mode is {render_mode!r}; the dream knows 'rgb_array' and None")
        if num_envs < 1:
            raise UserError(f"the number of dreams is {num_envs}; it must be at least 1")
        known = {field.name for field in dataclasses.fields(DreamConfig)}
        unknown = sorted(changes.keys() - known)
        if unknown:
            options = ", ".join(sorted(known))
            raise UserError(f"the dream has no option {unknown[0]!r}; it has {options}")
        agent = agent if isinstance(agent, Agent) else Agent.from_pretrained(agent)
        reward, recorded = agent.to_dream()
        self.agent, self.render_mode, self.num_envs = agent, render_mode, num_envs
        own = DreamConfig(horizon=1000, **vars(agent.ends)) if cfg is None else cfg
        self.cfg = dataclasses.replace(own, **changes)
        sizes = [agent.z_dim, agent.h_dim, agent.seen_dim - agent.h_dim]
        bound = np.repeat(np.array([np.inf, 1, np.inf], np.float32), sizes)
        self.single_observation_space = spaces.Box(-bound, bound, dtype=np.float32)
        self.single_action_space = agent.action_spec.to_space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._starts = DreamStarts(recorded.z, recorded.h, recorded.c)
        parts = (agent.memories, reward, self._starts, self.cfg)
        engine = DreamEngine(*parts, agent.controller.carry)
        count = 1 if self.cfg.ensemble == "first" else len(agent.memories)
        self._members, self._dreamer = range(count), np.zeros(num_envs, np.float32)
        self._elapsed = np.zeros(num_envs, np.int64)
        dreamer, shape = 0 if count == 1 else None, (count, num_envs, agent.h_dim)
        mask = np.ones(shape, np.float32) if self.cfg.dropout > 0 else None
        with torch.inference_mode():
            self._world = engine.world(self._members, dreamer, self._elapsed, mask)
        self._ended, self._begun = np.zeros(num_envs, np.bool_), False

    __copy__ = copy.deepcopy  # two environments cannot share a dream

    @torch.inference_mode()
    def restart(
        self,
        rows: NDArray[np.int64],
        rng: np.random.Generator,
        start: NDArray[np.int64] | None = None,
    ) -> NDArray[np.int64]:
        """Restart the dreams ``rows`` (k,); ``rng`` draws masks, and starts (k,) unless given.

        Returns the (k,) indices of the starts.
        """
        drawn = rng.integers(len(self._starts), size=len(rows))
        index = drawn if start is None else start
        if len(index) and not (0 <= index.min() and index.max() < len(self._starts)):
            raise UserError(f"start {index.max()} of a dream; there are {len(self._starts)} starts")
        self._dreamer[rows] = rng.random(len(rows), dtype=np.float32)
        shape = (len(self._members), len(rows), self.agent.h_dim)
        mask = draw_mask(rng, shape, self.cfg.dropout)
        self._world.put(rows, self._starts.at(self._members, index), mask)
        self._elapsed[rows], self._begun = 0, True
        return index

    @torch.inference_mode()
    def dream(
        self, action: NDArray[np.generic], rng: np.random.Generator
    ) -> tuple[WorldStep, Flags]:
        """Dream one step without restarts.

        Args:
            action: (n, A) for a Box space, clipped to its bounds; (n,) indices for a Discrete one.
            rng: draws the noise.

        Returns:
            The step, and (n,) which dreams are truncated at the horizon.

        Raises:
            ResetNeeded: no dream has begun.
            UserError: an action is not finite or not in the space.
        """
        if not self._begun:
            raise gym.error.ResetNeeded("call reset() before the first step() of a dream")
        spec, n, z_dim = self.agent.action_spec, self.num_envs, self.agent.z_dim
        encoded = spec.encode(action)
        if spec.kind == "box":
            if not np.isfinite(encoded).all():
                row = int(np.flatnonzero(~np.isfinite(encoded).all(-1))[0])
                raise UserError(f"action of dream {row} is {encoded[row]}; it must be finite")
            encoded = np.clip(encoded, *np.array([spec.low, spec.high], np.float32))
        if encoded.shape != (n, spec.size):
            raise UserError(f"actions have shape {action.shape}; expected one for each of {n}")
        uniform = rng.random((n, z_dim + EXTRA_UNIFORMS), dtype=np.float32)
        if self.cfg.ensemble == "per_rollout":
            uniform[:, -1] = self._dreamer
        normal = rng.standard_normal((n, z_dim), dtype=np.float32)
        known = torch.from_numpy(np.ascontiguousarray(encoded)).to(self._world.seen()[0].device)
        step = self._world.step(known, uniform, normal)
        self._elapsed += 1
        return step, (self._elapsed >= self.cfg.horizon) & ~step.terminated

    def observe(self) -> Array:
        """What policies see now: [z, h] (n, Z + H) or [z, h, c], a copy."""
        return np.concatenate([part.cpu().numpy() for part in self._world.seen()], axis=1)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin all dreams at drawn starts, or at the (n,) or single index ``options["start"]``."""
        super().reset(seed=seed)
        rows, given = np.arange(self.num_envs), None
        if options and "start" in options:
            given = np.asarray(options["start"])
            if not np.issubdtype(given.dtype, np.integer) or given.shape not in ((), rows.shape):
                found = options["start"]
                raise UserError(f'options["start"] is {found!r}; one index for each dream')
            given = np.broadcast_to(given, rows.shape).astype(np.int64)
        index = self.restart(rows, self.np_random, given)
        self._ended = np.zeros(self.num_envs, np.bool_)
        return self.observe(), {"start": index, "_start": ~self._ended}

    def step(self, actions: Any) -> tuple[Array, NDArray[np.float64], Flags, Flags, dict[str, Any]]:
        """Dream one step; a dream that had ended ignores its action and restarts."""
        step, truncated = self.dream(np.asarray(actions), self.np_random)
        begin = self._ended
        info: dict[str, Any] = {}
        if step.disagreement is not None:
            info = {"disagreement": step.disagreement, "_disagreement": ~begin}
        if begin.any():
            rows = np.flatnonzero(begin)
            start = np.zeros(self.num_envs, np.int64)
            start[rows] = self.restart(rows, self.np_random)
            info |= {"start": start, "_start": begin}
        reward = np.where(begin, 0.0, step.reward.astype(np.float64))
        terminated, truncated = step.terminated & ~begin, truncated & ~begin
        self._ended = terminated | truncated
        return self.observe(), reward, terminated, truncated, info

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """V's picture of every z, each (384, 384, 3) uint8; None without a render mode."""
        if self.render_mode is None:
            return None
        frames = self.agent.decode(self.observe()[:, : self.agent.z_dim])
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
        large = torch.nn.functional.interpolate(pixels, scale_factor=RENDER_SCALE, mode="bilinear")
        return tuple(large.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy())


class Dream(gym.Env[Array, Any]):
    """One dream, a `DreamVector` of one without restarts; observations are one row."""

    metadata = _METADATA

    def __init__(
        self,
        agent: AgentLike,
        render_mode: str | None = None,
        cfg: DreamConfig | None = None,
        **changes: Any,
    ) -> None:
        """Open a dream; the same arguments as `DreamVector`."""
        self.render_mode = render_mode
        self._vector = DreamVector(agent, 1, render_mode, cfg, **changes)
        self.observation_space = self._vector.single_observation_space
        self.action_space = self._vector.single_action_space

    __copy__ = copy.deepcopy  # see `DreamVector`

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin at a recorded state, drawn or given as ``options={"start": index}``."""
        super().reset(seed=seed)
        self._vector.np_random = self.np_random
        obs, info = self._vector.reset(options=options)
        return obs[0], {"start": int(info["start"][0])}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Dream one step; actions outside a Box are clipped to it."""
        step, truncated = self._vector.dream(np.asarray(action)[None], self.np_random)
        obs, reward, ended = self._vector.observe()[0], float(step.reward[0]), step.terminated[0]
        info: dict[str, Any] = {}
        if step.disagreement is not None:
            info["disagreement"] = float(step.disagreement[0])
        return obs, reward, bool(ended), bool(truncated[0]), info

    def render(self) -> NDArray[np.uint8] | None:
        """V's picture of z, (384, 384, 3) uint8; None without a render mode."""
        pictures = self._vector.render()
        return None if pictures is None else pictures[0]
