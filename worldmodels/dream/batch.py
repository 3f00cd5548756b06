"""Dreams that someone else acts in: n at once, each restarted on its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from worldmodels.dream.config import DreamConfig
from worldmodels.dream.engine import DreamEngine
from worldmodels.dream.starts import DreamStarts
from worldmodels.dream.world import EXTRA_UNIFORMS, Array, draw_mask
from worldmodels.envs.spaces import ActionSpec
from worldmodels.memory.interface import Memory
from worldmodels.memory.rewards import RewardModel
from worldmodels.protocols import UserError


class BatchStep(NamedTuple):
    """One step of n dreams."""

    obs: Array
    """(n, Z + H)"""
    reward: Array
    """(n,)"""
    terminated: NDArray[np.bool_]
    """(n,) ended by M"""
    truncated: NDArray[np.bool_]
    """(n,) at the horizon"""
    disagreement: Array | None
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
        """Check that the parts fit each other; no dream has begun.

        Raises:
            UserError: they do not.
        """
        if num_dreams < 1:
            raise UserError(f"the number of dreams is {num_dreams}; it must be at least 1")
        engine = DreamEngine(memories, reward_model, starts, cfg)
        z_dim, hidden = engine.memory_cfg.z_dim, engine.memory_cfg.hidden_size
        if action_spec.size != engine.memory_cfg.action_size:
            raise UserError(
                f"the action space has {action_spec.size} inputs for M, but M was trained with "
                f"{engine.memory_cfg.action_size}"
            )
        self.starts, self.action_spec, self.cfg = starts, action_spec, cfg
        self.num_dreams, self._z_dim = num_dreams, z_dim
        bound = np.repeat(np.array([np.inf, 1], np.float32), [z_dim, hidden])
        self.observation_space = spaces.Box(-bound, bound, dtype=np.float32)
        self.action_space = action_spec.to_space()
        self.elapsed = np.zeros(num_dreams, np.int64)
        """(n,) steps of each dream so far"""
        self._dreamer = np.zeros(num_dreams, np.float32)
        self._members = [0] if cfg.ensemble == "first" else list(range(len(memories)))
        self._masks = (len(self._members), num_dreams, hidden)
        mask = np.ones(self._masks, np.float32) if cfg.dropout > 0 else None
        rows = starts.rows(self._members, np.zeros(num_dreams, np.int64), mask)
        dreamer = 0 if len(self._members) == 1 else None
        with torch.inference_mode():
            self._world = engine.world(self._members, dreamer, rows)

    @torch.inference_mode()
    def restart(
        self,
        rows: NDArray[np.int64],
        rng: np.random.Generator,
        start: NDArray[np.int64] | None = None,
    ) -> NDArray[np.int64]:
        """Restart some dreams.

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
        members, _, hidden = self._masks
        mask = draw_mask(rng, (members, len(rows), hidden), self.cfg.dropout)
        self._world.put(rows, self.starts.rows(self._members, index, mask))
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
        spec, n = self.action_spec, self.num_dreams
        encoded = spec.encode(action)
        if spec.kind == "box":
            if not np.isfinite(encoded).all():
                row = int(np.flatnonzero(~np.isfinite(encoded).all(-1))[0])
                raise UserError(f"action of dream {row} is {encoded[row]}; it must be finite")
            encoded = np.clip(encoded, *np.array([spec.low, spec.high], np.float32))
        if encoded.shape != (n, spec.size):
            raise UserError(
                f"actions have shape {action.shape}; one for each of {n} dreams is needed"
            )
        uniform = rng.random((n, self._z_dim + EXTRA_UNIFORMS), dtype=np.float32)
        if self.cfg.ensemble == "per_rollout":
            uniform[:, -1] = self._dreamer
        normal = rng.standard_normal((n, self._z_dim), dtype=np.float32)
        known = torch.from_numpy(np.ascontiguousarray(encoded)).to(self._world.seen()[0].device)
        step = self._world.step(known, uniform, normal)
        self.elapsed += 1
        truncated = (self.elapsed >= self.cfg.horizon) & ~step.terminated
        return BatchStep(self.observe(), step.reward, step.terminated, truncated, step.disagreement)

    def observe(self) -> Array:
        """What the controller sees now: [z, h] (n, Z + H), a copy."""
        return np.concatenate([part.cpu().numpy() for part in self._world.seen()], axis=1)

    @property
    def z(self) -> Array:
        """(n, Z), a copy."""
        return self.observe()[:, : self._z_dim]
