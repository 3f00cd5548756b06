"""Calibration: a memory that knows the system is sharp and reliable, an untrained one is not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from worldmodels.memory.calibration import calibrate, end_reliability, survival
from worldmodels.memory.mdn_rnn import MDNRNN, MDNRNNConfig
from worldmodels.memory.rewards import RewardModel
from worldmodels.vision.latents import Latents

E, T, Z, A = 6, 60, 2, 1
REWARD = RewardModel("event", base=-0.1, event_value=3.5)


def make_latents(event_fraction: float = 0.3, length: int = T) -> Latents:
    rng = np.random.default_rng(0)
    frames = E * (length + 1)
    return Latents(
        mu=rng.standard_normal((frames, Z)).astype(np.float32),
        logvar=np.full((frames, Z), -8, np.float32),
        action=rng.uniform(-1, 1, (frames, A)).astype(np.float32),
        reward=np.where(rng.random(frames) < event_fraction, 3.4, -0.1).astype(np.float32),
        terminated=np.zeros(E, np.bool_),
        offsets=np.arange(E + 1) * (length + 1),
        seeds=np.arange(E),
    )


def make_memory(event_fraction: float = 0.5) -> MDNRNN:
    """White noise in every direction, and always the same probability of an event."""
    torch.manual_seed(0)
    memory = MDNRNN(MDNRNNConfig(z_dim=Z, action_size=A, hidden_size=8, mixtures=1)).eval()
    for parameter in memory.parameters():
        parameter.data.zero_()
    memory.reward.bias.data.fill_(float(np.log(event_fraction / (1 - event_fraction))))
    return memory


def test_a_memory_that_knows_nothing_but_the_noise() -> None:
    report = calibrate(
        make_memory(), REWARD, make_latents(), seed=0, horizons=(1, 5, 500), warmup=10
    )
    assert report["horizon"] == [1, 5]
    assert report["sigma"] == pytest.approx([1, 1], rel=0.1)
    assert report["error"] == pytest.approx([1, 1], rel=0.25)
    assert report["persistence"] == pytest.approx([2**0.5] * 2, rel=0.25)


def test_reliability_counts_events() -> None:
    memory, latents = make_memory(event_fraction=0.25), make_latents(event_fraction=0.4)
    bins = calibrate(memory, REWARD, latents, seed=0)["event_reliability"]
    assert bins["predicted"] == pytest.approx([0.25])
    assert bins["observed"] == pytest.approx([0.4], abs=0.06)
    assert bins["count"] == [E * T]


def test_episodes_too_short_give_no_open_loop() -> None:
    report = calibrate(make_memory(), REWARD, make_latents(length=8), seed=0, warmup=40)
    assert report["horizon"] == []
    assert sum(report["event_reliability"]["count"]) == E * 8


def test_several_events_in_a_step_are_counted() -> None:
    latents, memory = make_latents(event_fraction=0.4), make_memory(event_fraction=0.25)
    reward = RewardModel(
        "count", base=-0.1, event_value=1.75
    )  # an event of the data is two of these
    bins = calibrate(memory, reward, latents, seed=0)["event_reliability"]
    rate = torch.nn.functional.softplus(torch.logit(torch.tensor(0.25))).item()
    assert bins["predicted"] == pytest.approx([rate], abs=1e-4)
    assert bins["observed"] == pytest.approx([0.8], abs=0.12)


def test_a_reward_without_events_is_compared_in_its_own_units() -> None:
    latents, memory = make_latents(event_fraction=0.4), make_memory(event_fraction=0.25)
    reward = RewardModel("raw", scale=-2.0, shift=-7.0)
    report = calibrate(memory, reward, latents, seed=0)
    bins = report["reward_reliability"]
    assert bins["predicted"] == pytest.approx([-2 * np.log(1 / 3) - 7])
    assert bins["observed"] == pytest.approx([latents.reward[: E * (T + 1)].mean()], abs=0.1)
    assert bins["count"] == [E * T] and "event_reliability" not in report
    same = dataclasses.replace(latents, reward=np.full_like(latents.reward, -1.0))
    assert "reward_reliability" not in calibrate(memory, reward, same, seed=0)


def test_ends_are_measured_where_episodes_end_by_themselves() -> None:
    latents, memory = make_latents(), make_memory()
    assert "ends" not in calibrate(memory, REWARD, latents, seed=0)
    memory.terminated.bias.data.fill_(float(np.log(0.02 / 0.98)))
    some = dataclasses.replace(latents, terminated=np.arange(E) < 4)
    ends = calibrate(memory, REWARD, some, seed=0)["ends"]
    assert ends["ends"] == 4 and ends["auc"] == pytest.approx(0.5)  # always the same chance
    assert ends["expected"] == pytest.approx(0.02 * E * T)
    assert ends["recognised"] == pytest.approx(0.02 * 4)
    assert (ends["predicted"], ends["count"]) == (pytest.approx([0.02]), [E * T])
    assert ends["observed"] == pytest.approx([4 / (E * T)])


def test_rare_ends_have_bins_of_their_own() -> None:
    rng = np.random.default_rng(0)
    chance = np.concatenate([np.full(100_000, 2e-5), np.full(20_000, 2e-3), np.full(1000, 0.05)])
    ended = rng.random(len(chance)) < chance
    found = end_reliability(chance, ended)
    assert found["count"] == [100_000, 20_000, 1000]
    assert found["predicted"] == pytest.approx([2e-5, 2e-3, 0.05])
    assert found["observed"] == pytest.approx(found["predicted"], rel=0.4, abs=3e-5)
    assert found["expected"] == pytest.approx(92.0)
    assert 0.9 < found["auc"] < 1


def test_auc_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(1)
    chance, ended = rng.integers(0, 5, 60) / 7, rng.random(60) < 0.3
    pairs = chance[ended][:, None] - chance[~ended]
    expected = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
    assert end_reliability(chance, ended)["auc"] == pytest.approx(expected)
    assert end_reliability(np.array([0.5]), np.array([True]))["auc"] is None


def test_survival_counts_those_cut_off_as_long_as_they_were_seen() -> None:
    lengths, ended = np.array([2, 3, 3, 5, 6]), np.array([True, True, False, True, False])
    left = survival(lengths, ended, np.array([0, 1, 2, 3, 4, 5, 6]))
    # 4 of 5 survive step 2, 3 of 4 step 3 (one is cut off there), 1 of 2 step 5
    assert left == pytest.approx([1, 1, 0.8, 0.6, 0.6, 0.3, 0.3])
    assert survival(lengths, np.zeros(5, np.bool_), np.array([0, 9])) == pytest.approx([1, 1])
