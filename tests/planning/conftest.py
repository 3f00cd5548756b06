"""Tiny agents that can dream."""

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

Z, H, K, S = 4, 16, 3, 6
PEDALS = ActionSpec("box", 3, (-1.0, 0.0, 0.0), (1.0, 1.0, 1.0))

RAW = RewardModel("raw")
MakeAgent = Callable[..., Agent]


@pytest.fixture(scope="session")
def make_agent() -> MakeAgent:
    def make(
        members: int = 1,
        spec: ActionSpec = PEDALS,
        action_repeat: int = 2,
        reward: RewardModel = RAW,
        **options: Any,
    ) -> Agent:
        own = CAR_RACING.squash if spec == PEDALS else None
        controller = ControllerConfig.for_action_space(spec, own, **options)
        rng = np.random.default_rng(0)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            vision = ConvVAE(VAEConfig(z_dim=Z, width=2))
            cfg = MDNRNNConfig(Z, spec.size, H, K, reward=reward.kind)
            memories = [MDNRNN(cfg) for _ in range(members)]
            for memory in memories:
                torch.nn.init.normal_(memory.mixture.bias, std=0.5)
                torch.nn.init.constant_(memory.terminated.bias, -6.0)
        shape = (members, S, H)
        starts = DreamStarts(
            rng.standard_normal((S, Z), np.float32),
            np.tanh(rng.standard_normal(shape, np.float32)),
            rng.standard_normal(shape, np.float32),
        )
        parameters = 0.3 * rng.standard_normal(num_parameters(controller, Z, H))
        return Agent(
            vision,
            memories,
            controller,
            parameters,
            env_id="CarRacing-v3",
            frame_spec=FrameSpec(),
            action_spec=spec,
            reward_model=reward,
            starts=starts,
            action_repeat=action_repeat,
        )

    return make
