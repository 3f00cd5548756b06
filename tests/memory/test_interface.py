"""The interface is all that a dream needs of an M."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.dream.conftest import REWARD, A, H, Z
from tests.dream.engines import make_act, make_population
from tests.memory.test_memory_train import system
from worldmodels.dream.config import DreamConfig
from worldmodels.dream.engine import DreamEngine
from worldmodels.dream.starts import DreamStarts, build_starts
from worldmodels.memory.interface import Memory, MemoryConfig, MemoryState
from worldmodels.protocols import UserError
from worldmodels.vision.latents import Latents


class Average(Memory):
    """Remembers a running mean of its inputs, as wide as it likes."""

    def __init__(self, cfg: MemoryConfig) -> None:
        super().__init__(cfg)
        self.read = nn.Linear(self.carry_size, cfg.hidden_size)
        self._build_heads()

    @property
    def carry_size(self) -> int:
        return self.cfg.z_dim + self.cfg.action_size

    def recurrence(
        self, z: Tensor, action: Tensor, state: MemoryState, mask: Tensor | None
    ) -> tuple[Tensor, MemoryState]:
        seen = []
        for x in torch.cat((z, action), -1).unbind(1):
            c = 0.9 * state.c + 0.1 * x
            state = MemoryState(torch.tanh(self.read(c)), c)
            seen.append(state.h)
        return torch.stack(seen, 1), state


def recorded() -> Latents:
    rng, base = np.random.default_rng(0), system()
    mu = rng.standard_normal((base.num_frames, Z), np.float32)
    action = rng.standard_normal((base.num_frames, A), np.float32)
    return Latents(mu, mu - 8, action, base.reward, base.terminated, base.offsets, base.seeds)


def make(members: int = 2) -> tuple[list[Memory], DreamStarts]:
    torch.manual_seed(0)
    cfg = MemoryConfig(z_dim=Z, action_size=A, hidden_size=H, mixtures=2)
    memories: list[Memory] = [Average(cfg).eval() for _ in range(members)]
    return memories, build_starts(memories, recorded(), 8, 5, np.random.default_rng(0))


@pytest.mark.parametrize("ensemble", ["per_rollout", "per_step"])
def test_any_m_can_dream(ensemble: str) -> None:
    memories, starts = make()
    cfg = DreamConfig(horizon=6, episodes=3, ensemble=ensemble)  # type: ignore[arg-type]  # one of them
    result = DreamEngine(memories, REWARD, starts, cfg).rollout(make_act, make_population(), 1)
    assert np.isfinite(result.returns).all() and result.returns.std() > 0


def test_starts_that_another_kind_was_warmed_for_are_refused() -> None:
    memories, starts = make()
    others = DreamStarts(starts.z, starts.h, starts.h)
    with pytest.raises(UserError, match="build the starts again"):
        DreamEngine(memories, REWARD, others, DreamConfig())
