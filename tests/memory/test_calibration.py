"""Calibration: a memory that knows the system is sharp and reliable, an untrained one is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from worldmodels.memory.calibration import calibrate, event_reliability
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
    bins = event_reliability(
        make_memory(event_fraction=0.25), REWARD, make_latents(event_fraction=0.4)
    )
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
    bins = event_reliability(memory, reward, latents)
    rate = torch.nn.functional.softplus(torch.logit(torch.tensor(0.25))).item()
    assert bins["predicted"] == pytest.approx([rate], abs=1e-4)
    assert bins["observed"] == pytest.approx([0.8], abs=0.12)
