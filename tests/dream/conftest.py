"""Tiny memories, starts and agents to dream with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from worldmodels.agent import Agent
from worldmodels.controller.linear import ControllerConfig, num_parameters
from worldmodels.dream.starts import DreamStarts
from worldmodels.envs.frames import FrameSpec
from worldmodels.envs.spaces import ActionSpec
from worldmodels.memory.mdn_rnn import MDNRNN, MDNRNNConfig
from worldmodels.memory.rewards import RewardModel
from worldmodels.tasks.car_racing import CAR_RACING
from worldmodels.vision.vae import ConvVAE, VAEConfig

Z, A, H, K, S = 8, 3, 32, 3, 12
REWARD = RewardModel("event", base=-0.1, event_value=3.0)
PEDALS = ActionSpec("box", 3, (-1.0, 0.0, 0.0), (1.0, 1.0, 1.0))

MakeAgent = Callable[..., Agent]


def make_memories(
    count: int = 1, seed: int = 0, action_size: int = A, residual: bool = False
) -> list[MDNRNN]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        cfg = MDNRNNConfig(
            z_dim=Z, action_size=action_size, hidden_size=H, mixtures=K, residual=residual
        )
        memories = [MDNRNN(cfg) for _ in range(count)]
        for memory in memories:
            torch.nn.init.normal_(memory.mixture.bias, std=0.7)
    return memories


def make_starts(members: int = 1, seed: int = 0) -> DreamStarts:
    rng = np.random.default_rng(seed)
    shape = (members, S, H)
    return DreamStarts(
        rng.standard_normal((S, Z), np.float32),
        np.tanh(rng.standard_normal(shape, np.float32)),
        rng.standard_normal(shape, np.float32),
    )


@pytest.fixture(scope="session")
def make_agent() -> MakeAgent:
    def make(members: int = 1, action_spec: ActionSpec = PEDALS, **options: Any) -> Agent:
        controller = ControllerConfig.for_action_space(action_spec, CAR_RACING.squash, **options)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            vision = ConvVAE(VAEConfig(z_dim=Z, width=2))
        return Agent(
            vision,
            make_memories(members, action_size=action_spec.size),
            controller,
            np.zeros(num_parameters(controller, Z, H), np.float32),
            env_id="CarRacing-v3",
            frame_spec=FrameSpec(),
            action_spec=action_spec,
            reward_model=REWARD,
            starts=make_starts(members),
        )

    return make
