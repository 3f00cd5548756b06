"""PPO in the dream: its driver is the agent's V and M, holds actions, and is counted in full."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from baselines import drivers
from baselines.ppo import train
from baselines.recipes import DREAM
from baselines.settings import TrainConfig
from tests.dream.conftest import H, Z, make_memories, make_starts
from tests.experience import fakes
from worldmodels import runs
from worldmodels.agent import Agent
from worldmodels.controller.linear import ControllerConfig, num_parameters
from worldmodels.dream.sb3 import LatentPredictor
from worldmodels.envs import ActionSpec, FrameSpec
from worldmodels.evaluation import evaluate
from worldmodels.memory.rewards import RewardModel
from worldmodels.protocols import UserError
from worldmodels.vision.vae import ConvVAE, VAEConfig

REPEAT = 3
TINY = dataclasses.replace(DREAM, n_envs=4, n_steps=8, batch_size=16, n_epochs=1, net_arch=(8,))


def make_agent(seed: int = 0) -> Agent:
    """A driver of the fake environment that holds actions, with random weights."""
    spec = ActionSpec("box", 2, (-1.0, 0.0), (1.0, 2.0))
    cfg = ControllerConfig.for_action_space(spec)
    torch.manual_seed(seed)
    return Agent(
        ConvVAE(VAEConfig(Z, 4)),
        make_memories(action_size=2),
        cfg,
        np.random.default_rng(seed).standard_normal(num_parameters(cfg, Z, H)),
        env_id=fakes.BOX,
        frame_spec=FrameSpec(),
        action_spec=spec,
        reward_model=RewardModel("event", base=-0.1, event_value=3.0),
        starts=make_starts(),
        action_repeat=REPEAT,
    )


class Echo:
    """Predicts the first two numbers of what it sees."""

    action_space: spaces.Space[Any] = spaces.Box(
        np.array([-1, 0], np.float32), np.array([1, 2], np.float32)
    )

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], Any]:
        assert deterministic
        return np.clip(observation[:, :2], [-1, 0], [1, 2]).astype(np.float32), state


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A run folder with an agent and a ledger."""
    make_agent().save_pretrained(tmp_path / "world/agent")
    run = runs.RunFolder(tmp_path / "world")
    for kind, frames in (("collection", 700), ("selection", 50), ("test", 9), ("dream", 4000)):
        run.ledger.add(kind, frames, kind)
    return run.path


def config(home: Path, **changes: Any) -> TrainConfig:
    base = TrainConfig(
        recipe="dream",
        out=home.parent / "ppo",
        agent=home / "agent",
        frames=64,
        horizon=5,
        checkpoint_frames=32,
        evaluate_episodes=2,
    )
    return dataclasses.replace(base, **changes)


def test_a_control_sees_what_c_sees_and_its_actions_are_held() -> None:
    agent = make_agent()
    driver, state = agent.with_policy(LatentPredictor(Echo())), None
    frames = np.random.default_rng(0).integers(0, 256, (8, 2, 12, 10, 3), dtype=np.uint8)
    actions = []
    for t, obs in enumerate(frames):
        action, state = driver.predict(obs, state, np.full(2, t == 0), deterministic=True)
        actions.append(action)
        if t % REPEAT == 0:
            z = agent.encode(obs)[0].numpy()
            np.testing.assert_allclose(action, np.clip(z[:, :2], [-1, 0], [1, 2]), atol=1e-5)
        else:
            np.testing.assert_array_equal(action, actions[-2])
    np.testing.assert_allclose(agent.predict(frames[0])[0].shape, (2, 2))
    with pytest.raises(UserError, match="cannot be saved"):
        driver.save_pretrained("unused")
    assert isinstance(pickle.loads(pickle.dumps(driver)), Agent)


def test_train_in_the_dream_and_drive_in_reality(home: Path) -> None:
    folder = train(config(home), TINY)
    totals = runs.read_json(folder / "frames.json")["totals"]
    assert totals["collection"] == 700
    assert totals["dream"] == 4000 + 64
    assert totals["model_free"] == totals["test"] == 0
    driven = sum(fakes.steps_of(seed) for seed in (500_000, 500_001))
    assert totals["selection"] == 50 + 2 * driven
    points = runs.read_json(folder / "curve.json")["points"]
    assert [point["frames"] for point in points] == [32, 64]
    assert points[-1]["real_frames"] == 750 + 2 * driven
    driver = drivers.load_driver(folder / "last")
    assert isinstance(driver, Agent)
    assert driver.action_repeat == REPEAT
    kept = home.parent / "resume.json"
    result = evaluate(driver, fakes.BOX, [500_000, 500_001], workers=1, resume=kept)
    np.testing.assert_allclose(result.returns, points[-1]["returns"], rtol=1e-6)


def test_it_resumes_from_its_checkpoint(home: Path) -> None:
    whole = train(config(home), TINY)
    moved = home.parent / "again"
    session_config = config(home, out=moved)
    from baselines import ppo

    session = ppo.Session(session_config, TINY)
    session.learn()
    session.checkpoint()
    session.env.close()
    again = train(session_config, TINY)
    weights = [(run / "last" / drivers.WEIGHTS).read_bytes() for run in (whole, again)]
    assert weights[0] == weights[1]


def test_an_agent_without_a_ledger_is_refused(home: Path) -> None:
    shutil.copytree(home / "agent", home.parent / "lone/agent")
    with pytest.raises(UserError, match="does not lie in a run folder with a ledger"):
        train(config(home, agent=home.parent / "lone/agent"), TINY)


def test_another_agent_in_the_same_run_is_refused(home: Path) -> None:
    train(config(home), TINY)
    make_agent(seed=5).save_pretrained(home / "agent")
    with pytest.raises(UserError, match="holds another agent"):
        train(config(home), TINY)
