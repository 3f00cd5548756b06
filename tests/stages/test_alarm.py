"""The alarm rings where dreams promise more than reality gives, in whatever unit rewards come."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from worldmodels.agent import Agent
from worldmodels.controller.linear import ControllerConfig, num_parameters
from worldmodels.dream.config import DreamConfig
from worldmodels.envs.frames import FrameSpec
from worldmodels.envs.spaces import ActionSpec
from worldmodels.evaluation import evaluate
from worldmodels.memory.mdn_rnn import MDNRNN, MDNRNNConfig
from worldmodels.memory.rewards import RewardModel
from worldmodels.metrics import read_metrics
from worldmodels.runs import RunFolder
from worldmodels.stage_configs import SelectionConfig
from worldmodels.stages.alarm import DREAMS, Outcomes, WholeDreams, curves, disbelief
from worldmodels.stages.context import StageContext
from worldmodels.stages.controller import Candidates
from worldmodels.stages.selection import alarm_of, select
from worldmodels.vision.vae import ConvVAE, VAEConfig

REAL = 16
LIMIT = 2100
ENV = "worldmodels/CarRacing-v3"
SEEDS = (500_000, 500_001)


def lives(
    rng: np.random.Generator, mean: float, count: int, held: int = 4, endless: float = 0.0
) -> Outcomes:
    """Episodes that die at a constant rate and pay 1 a step; some never die."""
    lengths = np.minimum(held * rng.geometric(held / mean, count), LIMIT)
    lengths[: round(endless * count)] = LIMIT
    return Outcomes(lengths.astype(float), lengths, lengths < LIMIT)


def paid(returns: NDArray[np.float64], length: int = 200) -> Outcomes:
    """Episodes of one length."""
    lengths = np.full(len(returns), length)
    return Outcomes(returns, lengths, np.zeros(len(returns), np.bool_))


def test_it_rings_where_a_third_of_the_dreams_never_die() -> None:
    rng = np.random.default_rng(0)
    dreamt, real = lives(rng, 880, DREAMS, endless=0.35), lives(rng, 250, REAL)
    assert dreamt.returns.mean() == pytest.approx(1311, rel=0.15)
    said = disbelief(dreamt, real)
    assert said is not None
    assert "the dream promises 1," in said and "M misses their ends" in said
    two = Outcomes(*(part[:2] for part in vars(real).values()))
    assert disbelief(dreamt, two) is not None  # early iterations have two episodes


def test_it_rings_where_every_step_pays_one() -> None:
    rng = np.random.default_rng(1)
    assert disbelief(lives(rng, 989, DREAMS, held=1), lives(rng, 307, REAL, held=1))


@pytest.mark.parametrize("seed", range(20))
def test_it_is_silent_for_constant_rewards_and_true_lengths(seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert disbelief(lives(rng, 300, DREAMS), lives(rng, 300, REAL)) is None
    assert disbelief(paid(np.full(DREAMS, 500.0), 500), paid(np.full(REAL, 500.0), 500)) is None


@pytest.mark.parametrize("seed", range(20))
def test_it_is_silent_for_negative_rewards_that_come_true(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dreamt, real = (paid(rng.normal(-1200, 300, count)) for count in (DREAMS, REAL))
    assert disbelief(dreamt, real) is None
    assert disbelief(paid(0.9 * dreamt.returns), real) is None  # a little better is not material


def test_it_rings_for_negative_rewards_that_the_dream_leaves_out() -> None:
    rng = np.random.default_rng(0)
    said = disbelief(paid(rng.normal(-150, 50, DREAMS)), paid(rng.normal(-1200, 300, REAL)))
    assert said is not None and "promises -1" in said and "reality pays -1," in said


def test_it_knows_the_size_of_rewards_that_cancel() -> None:
    rng = np.random.default_rng(0)
    real = paid(rng.choice([-1.0, 1.0], REAL))
    assert disbelief(paid(rng.choice([-1.0, 1.0], DREAMS, p=[0.4, 0.6])), real) is None
    assert disbelief(paid(rng.choice([-1.0, 1.0], DREAMS, p=[0.02, 0.98])), real) is not None


def test_a_dream_that_promises_less_is_no_danger() -> None:
    rng = np.random.default_rng(0)
    assert disbelief(lives(rng, 100, DREAMS), lives(rng, 300, REAL)) is None


def test_one_episode_says_nothing_of_noise() -> None:
    assert disbelief(paid(np.full(DREAMS, 9.0)), paid(np.ones(1))) is None


def test_the_bound_of_a_step_still_holds() -> None:
    same = paid(np.ones(DREAMS)), paid(np.ones(REAL))
    cfg = SelectionConfig(reward_bound=1.8)
    assert alarm_of(cfg, 1.7, *same) is None
    said = alarm_of(cfg, 1.9, *same)
    assert said == "the dream pays 1.90 a step, reality at most 1.80: it is exploited"
    assert alarm_of(SelectionConfig(), 1.9, *same) is None


def test_curves_of_survival_are_drawn_where_episodes_end() -> None:
    dreamt, real = (lives(np.random.default_rng(0), 300, count) for count in (DREAMS, REAL))
    found = curves(dreamt, real)
    assert found is not None and len(found["step"]) == 41 == len(found["dream"])
    assert found["dream"][0] == found["real"][0] == 1
    assert found["step"][-1] == max(dreamt.lengths.max(), real.lengths.max())
    for one in (found["dream"], found["real"]):
        assert (np.diff(np.array(one, float)) <= 0).all()
    assert curves(paid(np.ones(DREAMS)), paid(np.ones(REAL))) is None


@pytest.fixture(scope="module")
def agent() -> Agent:
    """Its M knows only that a decision ends the episode with a chance of 0.2 and pays 2."""
    torch.manual_seed(0)
    spec = ActionSpec("box", 3, (-1.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    memory = MDNRNN(MDNRNNConfig(4, 3, 8, 2, reward="raw"))
    memory.terminated.weight.data.zero_()
    memory.terminated.bias.data.fill_(float(np.log(0.2 / 0.8)))
    return Agent(
        ConvVAE(VAEConfig(4, 4)),
        [memory],
        ControllerConfig(),
        np.zeros(num_parameters(ControllerConfig(), 4, 8)),
        env_id=ENV,
        frame_spec=FrameSpec(84),
        action_spec=spec,
        reward_model=RewardModel("raw", scale=0.0, shift=2.0),
        action_repeat=2,
    )


def test_dreams_begin_with_the_first_frames_and_last_as_long_as_episodes(agent: Agent) -> None:
    result = evaluate(agent, ENV, SEEDS, 1, max_steps=21)
    dream = DreamConfig(horizon=3, termination="sampled", no_event_penalty=1.0, discount=0.5)
    whole = WholeDreams(agent, dream, SEEDS, 21)
    assert whole.starts.z.shape == (2, 4) and not whole.starts.h.any()
    dreamt = whole(agent.parameters, result)
    assert dreamt.lengths.max() == 21 and not dreamt.ended[dreamt.lengths == 21].all()
    assert dreamt.lengths.mean() == pytest.approx(2 * (1 - 0.8**11) / 0.2, rel=0.25)
    assert dreamt.returns == pytest.approx(2.0 * np.ceil(dreamt.lengths / 2))
    again = whole(agent.parameters, result)
    np.testing.assert_array_equal(again.lengths, dreamt.lengths)


def test_dreams_stop_where_real_episodes_reach_their_goal(agent: Agent) -> None:
    result = evaluate(agent, ENV, SEEDS, 1, max_steps=9)
    laps = replace(
        result,
        episodes=tuple(replace(e, terminated=True, lap_finished=True) for e in result.episodes),
    )
    assert not Outcomes.of(laps).ended.any()
    whole = WholeDreams(agent, DreamConfig(termination="off"), SEEDS, 1000)
    assert set(whole(agent.parameters, laps).lengths) == {9}
    assert set(whole(agent.parameters, result).lengths) == {1000}


def test_a_selection_logs_whole_dreams_and_the_survival_of_its_choice(
    agent: Agent, tmp_path: Path
) -> None:
    folder = agent.save_pretrained(tmp_path / "agent", dtype="float32")
    run = RunFolder(tmp_path / "run")
    candidates = Candidates({1: agent.parameters, 2: agent.parameters + 1}, {1: 5.0, 2: 6.0})
    dream = DreamConfig(horizon=5, termination="sampled")
    cfg = SelectionConfig(episodes=2, max_steps=9)
    select(cfg, dream, folder, candidates, StageContext(run=run))
    rows = read_metrics(run.metrics_file)["selection"]
    assert [row["real_length"] for row in rows] == [9, 9]
    for row in rows:
        assert 2 <= row["whole_dream_length"] < 9
        assert (row["survival"] is not None) == row["selected"]
    (chosen,) = (row["survival"] for row in rows if row["selected"])
    assert chosen["real"] == [1.0] * 10 and chosen["dream"][-1] < 0.7
    counted = {kind: frames for kind, frames in run.ledger.read()["totals"].items() if frames}
    assert counted == {"selection": 36}  # whole dreams are a measurement
