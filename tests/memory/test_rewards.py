"""Rewards of any scale, sign and sparsity: symlog bins and two-hot targets."""

from __future__ import annotations

import dataclasses
import math
import pickle

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from worldmodels.memory.mdn_rnn import MDNRNN, MDNRNNConfig
from worldmodels.memory.rewards import BINS, GAIN, RewardModel, symexp, symlog
from worldmodels.protocols import UserError
from worldmodels.runs import to_jsonable

RNG = np.random.default_rng(0)
REWARDS = {
    "normal": RNG.normal(size=500),
    "pendulum": -16 * RNG.random(500) ** 3,
    "rare": (np.arange(500) == 77) * 1.0,
    "mixture": RNG.choice([0.0, 100.0, -1.0], 500, p=[0.5, 0.02, 0.48]),
    "lognormal": np.exp(2 * RNG.normal(size=500)),
    "offset": 1000 + RNG.normal(size=500),
}


def rewards(name: str, scale: float = 1.0) -> NDArray[np.float32]:
    return np.asarray(scale * REWARDS[name], np.float32)


def two_hot(model: RewardModel, reward: NDArray[np.float32]) -> torch.Tensor:
    """Targets (S, K) as distributions."""
    place = model.target(torch.from_numpy(reward))
    return (1 - (place[:, None] - torch.arange(BINS)).abs()).clamp_min(0)


def test_symexp_is_the_inverse_of_symlog() -> None:
    x = np.array([-1e6, -1.0, -1e-6, 0.0, 0.5, 1e9])
    np.testing.assert_allclose(symexp(symlog(x)), x, rtol=1e-12)
    assert symlog(np.array([np.e - 1]))[0] == pytest.approx(1)


@pytest.mark.parametrize("name", REWARDS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, -1.0, 1e6])
def test_a_targets_mean_is_the_reward(name: str, scale: float) -> None:
    """Means of two-hot targets are exact, so M's best prediction has the mean reward."""
    reward = rewards(name, scale)
    model = RewardModel.spread(reward)
    target = two_hot(model, reward)
    torch.testing.assert_close(target.sum(-1), torch.ones(len(reward)))
    back = model.expected(target.clamp_min(1e-30).log() / GAIN).numpy()
    np.testing.assert_allclose(back, reward, atol=1e-5 * np.abs(reward).max())


@pytest.mark.parametrize("name", REWARDS)
def test_bins_do_not_depend_on_the_unit(name: str) -> None:
    model = RewardModel.spread(rewards(name))
    for scale in (1e-3, 1e6):
        other = RewardModel.spread(rewards(name, scale))
        np.testing.assert_allclose(other.bins, scale * model.bins, rtol=1e-3, atol=1e-5 * scale)


def test_the_most_common_of_sparse_rewards_is_a_bin() -> None:
    for name in ("rare", "mixture"):
        assert np.abs(RewardModel.spread(rewards(name)).bins).min() < 1e-12
    assert set(RewardModel.spread(np.full(9, 4.0, np.float32)).bins) == {4.0}


def test_the_prior_predicts_the_mean() -> None:
    for name in REWARDS:
        reward = rewards(name)
        model = RewardModel.spread(reward)
        mean = model.expected(model.prior(torch.from_numpy(reward))).item()
        assert mean == pytest.approx(reward.mean(), abs=2e-3 * float(reward.std()))


def test_draws_have_the_expected_mean() -> None:
    model = RewardModel.spread(rewards("mixture"))
    output = torch.randn(BINS, generator=torch.Generator().manual_seed(0)) / GAIN
    uniform = torch.linspace(0, 1, 20_001)[:-1]
    drawn = model.sampled(output.expand(20_000, -1), uniform)
    assert drawn.mean().item() == pytest.approx(model.expected(output).item(), abs=0.02)
    assert set(drawn.tolist()) <= set(model.bins.tolist())


def test_the_loss_is_cross_entropy_and_skips_what_does_not_exist() -> None:
    reward = rewards("lognormal")
    model = RewardModel.spread(reward)
    output = torch.randn(1, len(reward), BINS, generator=torch.Generator().manual_seed(0))
    valid = torch.from_numpy(np.arange(len(reward)) < 300).float()[None]
    found = model.loss(output, torch.from_numpy(reward)[None], valid)
    terms = -(two_hot(model, reward) * (GAIN * output[0]).log_softmax(-1)).sum(-1)
    torch.testing.assert_close(found, terms[:300].mean())


def test_a_fresh_head_favours_no_bin_and_others_keep_one_output() -> None:
    memory = MDNRNN(MDNRNNConfig(2, 1, 8, 2, reward="two_hot"))
    _, output, _ = memory(torch.randn(3, 5, 2), torch.randn(3, 5, 1))
    assert output.reward.shape == (3, 5, BINS)
    assert not output.reward.any()
    raw = MDNRNN(MDNRNNConfig(2, 1, 8, 2, reward="raw"))
    assert raw(torch.randn(3, 5, 2), torch.randn(3, 5, 1))[1].reward.shape == (3, 5)


def test_no_step_promises_more_events_than_were_seen() -> None:
    reward = torch.tensor([0.0, 2.0, 2.0, 3.0])
    model = RewardModel("count", base=-1.0, event_value=2.0, most=1.5)
    output = torch.tensor([-30.0, 1.0, 18.0])
    expected = model.expected(output)
    torch.testing.assert_close(expected, torch.tensor([-1.0, 2.0 * math.log1p(math.e) - 1, 2.0]))
    drawn = model.sampled(output.repeat(200, 1), torch.rand(200, 3))
    assert drawn[:, 2].max() == 2.0 and set(drawn[:, 1].tolist()) == {-1.0, 1.0, 2.0}
    free = dataclasses.replace(model, most=None)
    assert free.expected(output)[2] == pytest.approx(35.0, abs=1e-3)
    valid = torch.ones(1, 4)
    steep = torch.full((1, 4), 18.0)
    same = [each.loss(steep, reward[None], valid) for each in (model, free)]
    assert torch.equal(*same), "M still learns to promise less"
    assert "most" not in to_jsonable(free)


def test_a_goal_that_pays_less_the_later_is_one_event() -> None:
    model = RewardModel("event", base=0.0, event_value=0.6)
    target = model.target(torch.tensor([0.0, 0.02, 0.2, 0.98]))
    assert target.tolist() == [0.0, 0.0, 1.0, 1.0]


def test_it_is_a_record() -> None:
    model = RewardModel.spread(rewards("mixture"))
    assert model.bins is model.bins
    assert pickle.loads(pickle.dumps(model)) == model == dataclasses.replace(model)
    assert {"low", "high"} <= to_jsonable(model).keys()
    assert not {"low", "high"} & to_jsonable(RewardModel("raw", scale=2.0)).keys()


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("high", {"low": 1.0, "high": 0.5}),
        ("low", {"low": -100.0}),
        ("scale", {"scale": 1e30, "low": -70.0, "high": 70.0}),
    ],
)
def test_bins_that_make_no_sense_are_named(field: str, values: dict[str, float]) -> None:
    with pytest.raises(UserError, match=rf"RewardModel\.{field} is"):
        RewardModel("two_hot", **values)
