"""Which arithmetic dreams run in: chosen once, by config and machine."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from worldmodels.dream.config import DreamConfig
from worldmodels.dream.kernel_world import PACKED, KernelWorld
from worldmodels.dream.starts import DreamStarts
from worldmodels.dream.world import TorchWorld, World
from worldmodels.memory.interface import Memory
from worldmodels.memory.rewards import RewardModel
from worldmodels.protocols import UserError
from worldmodels.runs import has_fast_bfloat16


class Backend:
    """Makes worlds of some memories."""

    def __init__(
        self, memories: Sequence[Memory], reward_model: RewardModel, cfg: DreamConfig
    ) -> None:
        """Choose, and copy the memories' weights where kernels need them in another layout.

        Args:
            memories: M memories with the same config; the controller sees the first one's h.
            reward_model: meaning of the reward head.
            cfg: dtype and backend are read here, the rest by the worlds.

        Raises:
            UserError: the memories differ in shape, the reward model is of another kind, or
                kernels are asked for on another device than the CPU, or for a kind of M that has
                none.
        """
        if not memories:
            raise UserError("the dream needs at least one memory")
        self.memory_cfg = memories[0].cfg
        if any(memory.cfg != self.memory_cfg for memory in memories):
            raise UserError("the memories of an ensemble must have the same config")
        if reward_model.kind != self.memory_cfg.reward:
            raise UserError(
                f"the reward model is {reward_model.kind!r}, "
                f"but M's reward head says {self.memory_cfg.reward!r}"
            )
        self.memories, self.reward_model, self.cfg = list(memories), reward_model, cfg
        self.device = memories[0].device
        on_cpu = self.device.type == "cpu"
        if cfg.backend == "kernels" and not on_cpu:
            cfg.refuse("backend", f"torch or auto, since M is on {self.device}, not on the CPU")
        pack = PACKED.get(type(memories[0]))
        if cfg.backend == "kernels" and pack is None:
            kind = type(memories[0]).__name__
            cfg.refuse("backend", f"torch or auto, since M is a {kind}, which has no kernels")
        self.kernels = cfg.backend != "torch" and on_cpu and pack is not None
        fast = has_fast_bfloat16(self.device)
        self.bfloat16 = cfg.dtype == "bfloat16" or (cfg.dtype == "auto" and fast)
        dtype = torch.bfloat16 if self.bfloat16 else torch.float32
        self._packed = [pack(m, dtype) for m in memories] if pack and self.kernels else []

    def world(self, members: Sequence[int], dreamer: int | None) -> World:
        """A batch of dreams.

        Args:
            members: memories that run; the first of them gives h.
            dreamer: place in ``members`` of the one that dreams; None draws one per row and step.
        """
        if self.kernels:
            packed = [self._packed[m] for m in members]
            return KernelWorld(packed, dreamer, self.reward_model, self.memory_cfg, self.cfg)
        memories = [self.memories[m] for m in members]
        return TorchWorld(memories, dreamer, self.reward_model, self.cfg, self.bfloat16)

    def check_starts(self, starts: DreamStarts) -> None:
        """Refuse starts that other memories were warmed for.

        Raises:
            UserError: the shapes differ.
        """
        cfg = self.memory_cfg
        z_shape = (len(starts), cfg.z_dim)
        h_shape = (len(self.memories), len(starts), cfg.hidden_size)
        c_shape = (*h_shape[:2], self.memories[0].carry_size)
        found = (starts.z.shape, starts.h.shape, starts.c.shape)
        if found != (z_shape, h_shape, c_shape):
            raise UserError(
                "dream starts have z {}, h {} and c {}; ".format(*found)
                + f"these memories need {z_shape}, {h_shape} and {c_shape}: "
                "build the starts again with these memories"
            )
