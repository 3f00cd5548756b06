"""Pages of two agents, and a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.browser import CHROMIUM, Page, browser
from worldmodels.agent import Agent
from worldmodels.controller.linear import ControllerConfig, num_parameters
from worldmodels.dream.starts import DreamStarts
from worldmodels.envs.frames import FrameSpec
from worldmodels.envs.spaces import ActionSpec
from worldmodels.memory.mdn_rnn import MDNRNN, MDNRNNConfig
from worldmodels.memory.rewards import RewardModel
from worldmodels.vision.vae import ConvVAE, VAEConfig
from worldmodels.web import page, reality

Z, A, H, K, S, MEMBERS = 8, 3, 32, 3, 12, 2


@pytest.fixture(scope="session")
def tab() -> Iterator[Page]:
    """The tab of one browser for all tests."""
    if not CHROMIUM:
        pytest.skip("there is no Chromium here to look at the page")
    with browser() as page:
        yield page


@pytest.fixture(scope="session")
def car_racing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the package's agent, with a short real episode."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reality, "MOST_DECISIONS", 30)
        return page.export("car-racing", tmp_path_factory.mktemp("web") / "car.html", seed=3)


@pytest.fixture(scope="session")
def discrete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an agent with Discrete actions, two memories and a V of the newer kind."""
    rng = np.random.default_rng(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        cfg = MDNRNNConfig(z_dim=Z, action_size=A, hidden_size=H, mixtures=K, reward="two_hot")
        memories = [MDNRNN(cfg) for _ in range(MEMBERS)]
        for memory in memories:
            torch.nn.init.normal_(memory.mixture.bias, std=0.7)
            torch.nn.init.constant_(memory.terminated.bias, -30.0)  # its dreams do not end
        vision = ConvVAE(VAEConfig(z_dim=Z, width=3, standardized=True))
        vision.mean.copy_(torch.rand(3, 64, 64))
    spec = ActionSpec("discrete", A, start=1)
    controller = ControllerConfig.for_action_space(spec, inputs="zhc", hidden=5)
    width = num_parameters(controller, Z, H)
    starts = DreamStarts(
        rng.standard_normal((S, Z), np.float32),
        *(np.tanh(rng.standard_normal((MEMBERS, S, H), np.float32)) for _ in "hc"),
    )
    agent = Agent(
        vision,
        memories,
        controller,
        rng.standard_normal(width, np.float32),
        env_id="unknown/Choices-v0",
        frame_spec=FrameSpec(),
        action_spec=spec,
        reward_model=RewardModel("two_hot", scale=2.0, shift=1.0, low=-1.0, high=2.0),
        starts=starts,
    )
    folder = tmp_path_factory.mktemp("agents") / "<img src=x onerror=alert(1)>"
    return agent.save_pretrained(folder)


@pytest.fixture(scope="session")
def choices(discrete: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its page."""
    return page.export(discrete, tmp_path_factory.mktemp("web") / "choices.html")
