"""M that learns from its own predictions: which these are, and that it goes on by them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

import worldmodels.memory.train as training
from tests.memory.test_memory_train import CFG, SHAPE, system
from worldmodels.memory.kinds import build
from worldmodels.memory.mdn_rnn import MDNRNNConfig
from worldmodels.memory.mixture import component_posterior, mixture_from_noise, mixture_noise
from worldmodels.memory.rewards import RewardModel
from worldmodels.memory.sequences import SequenceStreams
from worldmodels.memory.train import train_memory
from worldmodels.vision.latents import Latents


@pytest.mark.parametrize("drawn_from", ["prior", "posterior"])
@pytest.mark.parametrize("fraction", [0.0, 0.4, 1.0])
def test_some_inputs_are_what_m_predicts_from_recorded_ones(
    fraction: float, drawn_from: Any
) -> None:
    cfg = dataclasses.replace(CFG, own_inputs=fraction, own_inputs_from=drawn_from)
    memory, streams = build(SHAPE), SequenceStreams(system(), 8, 4, 0)
    batch, noise = next(streams.batches(0)), torch.Generator().manual_seed(5)
    state = memory.initial_state(4)
    recorded = training.draw_window(memory, batch, state, noise, cfg)
    given = training._with_own_inputs(memory, recorded, cfg)
    validation = training.draw_window(memory, batch, state, noise, cfg, training=False)
    assert validation.own is None
    if not fraction:
        assert given is recorded and recorded.own is None
        return
    own, z = recorded.own, given.z
    assert own is not None and recorded.uniform is not None and recorded.normal is not None
    assert own.float().mean() == pytest.approx(fraction, abs=0.25)
    assert recorded.dropped is not None
    features, _ = memory.recurrence(recorded.z, recorded.action, state, recorded.dropped)
    out = memory.predict(recorded.z, features, recorded.dropped.unsqueeze(1))
    log_pi = out.log_pi
    if drawn_from == "posterior":
        log_pi = component_posterior(*out[:3], recorded.target)
    guess = mixture_from_noise(log_pi, *out[1:3], recorded.uniform, recorded.normal)
    wanted = torch.where(own[:, 1:], guess[:, :-1], recorded.z[:, 1:])
    torch.testing.assert_close(z[:, 1:], wanted)
    assert torch.equal(z[:, 0], recorded.z[:, 0]), "an episode begins at a recorded frame"
    assert not z.requires_grad


def test_m_reads_recorded_inputs_alone_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, own = training.draw_window, []

    def draw(*args: Any, **options: Any) -> training.Window:
        own.append((window := plain(*args, **options)).own is not None)
        return window

    monkeypatch.setattr(training, "draw_window", draw)
    cfg = dataclasses.replace(CFG, steps=8, own_inputs=0.5, own_inputs_after=0.75)
    train_memory(cfg, SHAPE, RewardModel("event"), system(), seed=0)
    assert own == 6 * [False] + 2 * [True]


def coins(episodes: int = 256, steps: int = 4) -> Latents:
    """A coin is seen in the second frame alone; the last step pays if it is a head, and ends."""
    head = np.arange(episodes) % 2 == 0
    mu = np.zeros((episodes, steps + 1, 1), np.float32)
    mu[:, 1, 0] = np.where(head, 1, -1)
    reward = np.zeros((episodes, steps + 1), np.float32)
    reward[:, -2] = head
    return Latents(
        mu=mu.reshape(-1, 1),
        logvar=np.full((mu.size, 1), -8, np.float32),
        action=np.zeros((mu.size, 1), np.float32),
        reward=reward.reshape(-1),
        terminated=np.ones(episodes, np.bool_),
        offsets=np.arange(episodes + 1) * (steps + 1),
        seeds=np.arange(episodes),
    )


@pytest.mark.parametrize("drawn_from", ["prior", "posterior"])
def test_a_dream_pays_for_what_was_dreamt_if_it_is_of_what_happened(drawn_from: Any) -> None:
    cfg = dataclasses.replace(
        CFG,
        steps=600,
        batch_size=32,
        learning_rate=1e-2,
        own_inputs=1.0,
        own_inputs_from=drawn_from,
        reward_weight=20.0,
        exact=True,
    )
    shape = MDNRNNConfig(z_dim=1, action_size=1, hidden_size=16, mixtures=5)
    memory = train_memory(cfg, shape, RewardModel("event"), coins(), seed=0)
    z, action, state = torch.zeros(200, 1), torch.zeros(200, 1), memory.initial_state(200)
    noise, dreamt = torch.Generator().manual_seed(1), []
    with torch.inference_mode():
        for _ in range(4):
            out, state = memory.step(z, action, state)
            dreamt.append(z := mixture_from_noise(*out[:3], *mixture_noise(z, noise)))
    head = dreamt[0][:, 0] > 0
    assert 60 < int(head.sum()) < 140
    paid = out.reward.sigmoid().flatten()
    if drawn_from == "posterior":
        assert paid[head].mean() > 0.8 and paid[~head].mean() < 0.2
    else:
        assert 0.3 < paid[head].mean() < 0.7 and 0.3 < paid[~head].mean() < 0.7
