"""Dreams that someone else acts in: n at once, each begun anew on its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from worldmodels.config import Count, require
from worldmodels.dream.backend import Backend
from worldmodels.dream.config import DreamConfig
from worldmodels.dream.noise import EXTRA_UNIFORMS
from worldmodels.dream.starts import DreamStarts
from worldmodels.dream.world import with_penalty
from worldmodels.envs.spaces import ActionSpec
from worldmodels.memory.interface import Memory
from worldmodels.memory.rewards import RewardModel
from worldmodels.protocols import UserError


class BatchStep(NamedTuple):
    """One step of n dreams."""

    obs: NDArray[np.float32]
    """(n, Z + H)"""
    reward: NDArray[np.float32]
    """(n,)"""
    terminated: NDArray[np.bool_]
    """(n,) ended by M"""
    truncated: NDArray[np.bool_]
    """(n,) at the horizon"""
    disagreement: NDArray[np.float32] | None
    """(n,) where several memories follow every dream"""


class DreamBatch:
    """n dreams in step; an observation is what the controller sees, [z, h]."""

    def __init__(
        self,
        memories: Sequence[Memory],
        reward_model: RewardModel,
        starts: DreamStarts,
        action_spec: ActionSpec,
        cfg: DreamConfig,
        num_dreams: int,
    ) -> None:
        """Prepare; no dream has begun.

        Raises:
            UserError: the parts do not fit each other.
        """
        require("the number of dreams", num_dreams, Count)
        backend = Backend(memories, reward_model, cfg)
        backend.check_starts(starts)
        if action_spec.size != backend.memory_cfg.action_size:
            raise UserError(
                f"the action space has {action_spec.size} inputs for M, but M was trained with "
                f"{backend.memory_cfg.action_size}"
            )
        self.starts, self.action_spec = starts, action_spec
        self.cfg, self.num_dreams = cfg, num_dreams
        self._members = [0] if cfg.ensemble == "first" else list(range(len(memories)))
        self._world = backend.world(self._members, 0 if len(self._members) == 1 else None)
        self._z_dim, self._hidden = backend.memory_cfg.z_dim, backend.memory_cfg.hidden_size
        self.elapsed = np.zeros(num_dreams, np.int64)
        """(n,) steps of each dream so far"""
        self._dreamer = np.zeros(num_dreams, np.float32)
        masks = (len(self._members), num_dreams, self._hidden)
        h = np.zeros(masks, np.float32)
        c = np.zeros((*masks[:2], memories[0].carry_size), np.float32)
        mask = np.ones(masks, np.float32) if cfg.dropout > 0 else None
        with torch.inference_mode():
            self._world.begin(np.zeros((num_dreams, self._z_dim), np.float32), h, c, mask)

    @property
    def observation_space(self) -> spaces.Space[NDArray[np.float32]]:
        """[z, h] of one dream: z is unbounded, h lies in [-1, 1]."""
        bound = np.repeat(np.array([np.inf, 1], np.float32), [self._z_dim, self._hidden])
        return spaces.Box(-bound, bound, dtype=np.float32)

    @property
    def action_space(self) -> spaces.Box | spaces.Discrete:
        """The real environment's action space."""
        return self.action_spec.to_space()

    def _bounds(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        spec = self.action_spec
        return np.array(spec.low, np.float32), np.array(spec.high, np.float32)

    @torch.inference_mode()
    def restart(
        self,
        rows: NDArray[np.int64],
        rng: np.random.Generator,
        start: NDArray[np.int64] | None = None,
    ) -> NDArray[np.int64]:
        """Begin some dreams anew.

        Args:
            rows: (k,) which of the n.
            rng: draws starts, masks and, for "per_rollout", the memory that dreams.
            start: (k,) indices of starts instead of drawn ones.

        Returns:
            (k,) indices of the starts.
        """
        drawn = rng.integers(len(self.starts), size=len(rows))
        index = drawn if start is None else start
        if len(index) and not (0 <= index.min() and index.max() < len(self.starts)):
            raise UserError(f"start {index.max()} of a dream; there are {len(self.starts)} starts")
        self._dreamer[rows] = rng.random(len(rows), dtype=np.float32)
        mask = None
        if self.cfg.dropout > 0:
            shape = (len(self._members), len(rows), self._hidden)
            kept = rng.random(shape, dtype=np.float32) >= self.cfg.dropout
            mask = (kept / np.float32(1 - self.cfg.dropout)).astype(np.float32)
        h, c = (
            np.stack([a[m][index] for m in self._members]) for a in (self.starts.h, self.starts.c)
        )
        self._world.put(rows, self.starts.z[index], h, c, mask)
        self.elapsed[rows] = 0
        return index

    @torch.inference_mode()
    def step(self, action: NDArray[np.generic], rng: np.random.Generator) -> BatchStep:
        """Dream one step.

        Args:
            action: (n, A) for a Box space, clipped to its bounds; (n,) indices for a Discrete one.
            rng: draws the noise.

        Raises:
            UserError: an action is not finite or not in the space.
        """
        encoded = self.action_spec.encode(action)
        if self.action_spec.kind == "box":
            if not np.isfinite(encoded).all():
                row = int(np.flatnonzero(~np.isfinite(encoded).all(-1))[0])
                raise UserError(f"action of dream {row} is {encoded[row]}; it must be finite")
            encoded = np.clip(encoded, *self._bounds())
        n = self.num_dreams
        if encoded.shape != (n, self.action_spec.size):
            raise UserError(
                f"actions have shape {action.shape}; one for each of {n} dreams is needed"
            )
        uniform = rng.random((n, self._z_dim + EXTRA_UNIFORMS), dtype=np.float32)
        if self.cfg.ensemble == "per_rollout":
            uniform[:, -1] = self._dreamer
        normal = rng.standard_normal((n, self._z_dim), dtype=np.float32)
        device = self._world.z.device
        action_input = torch.from_numpy(np.ascontiguousarray(encoded)).to(device)
        step = with_penalty(self._world.step(action_input, uniform, normal), self.cfg)
        self.elapsed += 1
        truncated = (self.elapsed >= self.cfg.horizon) & ~step.terminated
        return BatchStep(self.observe(), step.reward, step.terminated, truncated, step.disagreement)

    def observe(self) -> NDArray[np.float32]:
        """What the controller sees now: [z, h] (n, Z + H), a copy."""
        return np.concatenate((self.z, self._world.h.cpu().numpy()), axis=1)

    @property
    def z(self) -> NDArray[np.float32]:
        """(n, Z), a view where possible."""
        z: NDArray[np.float32] = self._world.z.cpu().numpy()
        return z
