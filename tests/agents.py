"""Tiny agents, and frames for them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from worldmodels.agent import Agent
from worldmodels.controller.linear import ControllerConfig, num_parameters
from worldmodels.envs.frames import FrameSpec
from worldmodels.envs.spaces import ActionSpec
from worldmodels.memory.mdn_rnn import MDNRNN, MDNRNNConfig
from worldmodels.tasks.car_racing import CAR_RACING
from worldmodels.vision.vae import ConvVAE, VAEConfig

B, Z, H = 3, 4, 8
PEDALS = ActionSpec("box", 3, (-1.0, 0.0, 0.0), (1.0, 1.0, 1.0))
BUTTONS = ActionSpec("discrete", 4)


class Pixels(gym.Env[NDArray[np.uint8], Any]):
    """Noise to look at, and an episode of seven steps."""

    def __init__(self, space: gym.spaces.Space[Any]) -> None:
        self.observation_space = gym.spaces.Box(0, 255, (96, 96, 3), np.uint8)
        self.action_space = space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.t += 1
        return self.observation_space.sample(), 1.0, self.t == 7, False, {}


def make(spec: ActionSpec = PEDALS, memories: int = 1, seed: int = 0, **kwargs: Any) -> Agent:
    """A small agent with random weights."""
    torch.manual_seed(seed)
    options = {
        k: kwargs.pop(k) for k in ("inputs", "hidden", "normalize", "discrete") if k in kwargs
    }
    cfg = ControllerConfig.for_action_space(spec, CAR_RACING.squash, **options)
    params = np.random.default_rng(seed).standard_normal(num_parameters(cfg, Z, H))
    return Agent(
        ConvVAE(VAEConfig(Z, 4)),
        [MDNRNN(MDNRNNConfig(Z, spec.size, H, 2)) for _ in range(memories)],
        cfg,
        params,
        env_id="CarRacing-v3",
        frame_spec=FrameSpec(84),
        action_spec=spec,
        **kwargs,
    )


def frames(steps: int, batch: int = B, seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (steps, batch, 96, 96, 3), dtype=np.uint8)
