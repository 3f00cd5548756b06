"""What a dream pays."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from worldmodels.dream.engine import DreamEngine
from worldmodels.memory.mdn_rnn import MDNRNN
from worldmodels.memory.rewards import RewardModel

from .conftest import REWARD, make_memories, make_starts
from .engines import BASE, T, make_act, make_engine, make_population


def test_sampled_reward_pays_all_or_nothing() -> None:
    engine = make_engine(reward="sampled", backend="kernels", horizon=1, episodes=40)
    paid = np.unique(engine.rollout(make_act, make_population(), 1).returns.round(4))
    np.testing.assert_allclose(paid, [REWARD.base, REWARD.base + REWARD.event_value], atol=1e-3)


@pytest.mark.parametrize("backend", ["torch", "kernels"])
@pytest.mark.parametrize("reward", ["expected", "sampled"])
def test_a_step_without_an_event_costs_the_penalty(backend: str, reward: str) -> None:
    memory = make_memories()[0]
    count = MDNRNN(dataclasses.replace(memory.cfg, reward="count"))
    count.load_state_dict(memory.state_dict())
    model = RewardModel("count", base=-0.4, event_value=3.0)
    options: dict[str, Any] = {"backend": backend, "reward": reward}
    lost = []
    for events in (0.1, 0.4, 0.5, 2.0):
        with torch.no_grad():
            count.reward.weight.zero_()
            count.reward.bias.fill_(math.log(math.expm1(events)))
        free, paid = (
            DreamEngine(
                [count],
                model,
                make_starts(),
                dataclasses.replace(BASE, **options, no_event_penalty=penalty),
            ).rollout(make_act, make_population(), 2)
            for penalty in (0.0, 2.0)
        )
        lost.append((free.returns - paid.returns) / T)
    for found, lacking in zip(lost, (0.8, 0.2, 0.0, 0.0), strict=True):
        np.testing.assert_allclose(found, 2.0 * 3.0 * lacking, atol=0.05)


def test_raw_rewards_are_scaled_and_shifted() -> None:
    memory = make_memories()[0]
    raw = MDNRNN(dataclasses.replace(memory.cfg, reward="raw"))
    raw.load_state_dict(memory.state_dict())
    with torch.no_grad():
        raw.reward.weight.zero_()
        raw.reward.bias.fill_(0.5)
    for backend in ("torch", "kernels"):
        cfg = dataclasses.replace(BASE, backend=backend, no_event_penalty=1.0)  # raw: no events
        engine = DreamEngine([raw], RewardModel("raw", scale=4, shift=-1), make_starts(), cfg)
        returns = engine.rollout(make_act, make_population(), 0).returns
        np.testing.assert_allclose(returns, T * 1.0, atol=1e-4)


@pytest.mark.parametrize("reward", ["expected", "sampled"])
@pytest.mark.parametrize(("members", "ensemble"), [(1, "first"), (3, "per_step")])
def test_two_hot_rewards_are_the_same_in_kernels_and_torch(
    members: int, ensemble: str, reward: str
) -> None:
    model = RewardModel.spread(np.array([0, 0, 0, -1, 100, 2.5], np.float32))
    memories = []
    for memory in make_memories(members):
        two_hot = MDNRNN(dataclasses.replace(memory.cfg, reward="two_hot"))
        shared = {k: v for k, v in memory.state_dict().items() if not k.startswith("reward")}
        two_hot.load_state_dict(shared, strict=False)
        torch.nn.init.normal_(two_hot.reward.weight, std=0.03)
        memories.append(two_hot)
    options: dict[str, Any] = {"reward": reward, "ensemble": ensemble, "no_event_penalty": 1.0}
    torch_returns, kernel_returns = (
        DreamEngine(
            memories,
            model,
            make_starts(members),
            dataclasses.replace(BASE, backend=backend, **options),
        )
        .rollout(make_act, make_population(), 1)
        .returns
        for backend in ("torch", "kernels")
    )
    np.testing.assert_allclose(kernel_returns, torch_returns, rtol=1e-4, atol=1e-3)
    assert len(np.unique(torch_returns.round(3))) > 1


@pytest.mark.parametrize("backend", ["torch", "kernels"])
def test_two_hot_pays_the_mean_of_its_bins(backend: Any) -> None:
    memory = MDNRNN(dataclasses.replace(make_memories()[0].cfg, reward="two_hot"))
    model = RewardModel("two_hot", scale=2.0, shift=-5.0, low=-3.0, high=3.0)
    cfg = dataclasses.replace(BASE, backend=backend)
    engine = DreamEngine([memory], model, make_starts(), cfg)
    returns = engine.rollout(make_act, make_population(), 0).returns
    np.testing.assert_allclose(returns, T * -5.0, rtol=1e-5)  # a fresh head: every bin alike
