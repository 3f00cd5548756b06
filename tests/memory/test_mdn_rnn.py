"""M: the paper's parameter counts, sequence equals repeated step, dropout, heads, rewards."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from worldmodels.memory.interface import MemoryState
from worldmodels.memory.mdn_rnn import MDNRNN, MDNRNNConfig
from worldmodels.memory.mixture import mixture_log_prob
from worldmodels.memory.rewards import RewardModel, event_loss, masked_mean
from worldmodels.protocols import UserError

B, T, Z, A, H, K = 3, 7, 4, 2, 16, 3
SMALL = MDNRNNConfig(z_dim=Z, action_size=A, hidden_size=H, mixtures=K, dropout=0.3)


@pytest.fixture
def memory() -> MDNRNN:
    torch.manual_seed(0)
    return MDNRNN(SMALL)


def make_inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn((B, T, Z), generator=generator),
        torch.rand((B, T, A), generator=generator),
    )


def test_parameter_count_equals_the_papers() -> None:
    memory = MDNRNN(MDNRNNConfig())
    trainable = {n: p.numel() for n, p in memory.named_parameters() if p.requires_grad}
    lstm = sum(n for name, n in trainable.items() if name.startswith("lstm"))
    mixture = sum(n for name, n in trainable.items() if name.startswith("mixture"))
    assert (lstm, mixture, lstm + mixture) == (299_008, 123_360, 422_368)
    assert sum(trainable.values()) - lstm - mixture == 2 * 257


def test_forget_bias_is_one_and_the_second_bias_stays_zero(memory: MDNRNN) -> None:
    _, _, bias, frozen = memory.lstm.all_weights[0]
    assert (bias[H : 2 * H] == 1).all() and bias.sum() == H
    z, action = make_inputs()
    optimiser = torch.optim.SGD([p for p in memory.parameters() if p.requires_grad], lr=1.0)
    _, output, _ = memory(z, action)
    output.reward.sum().backward()
    optimiser.step()
    assert (frozen == 0).all() and bias.sum() != H


@pytest.mark.parametrize("masked", [False, True])
def test_forward_equals_repeated_step(memory: MDNRNN, masked: bool) -> None:
    z, action = make_inputs()
    mask = memory.sample_mask(B, torch.Generator().manual_seed(2)) if masked else None
    start = MemoryState(0.3 * torch.randn(B, H), torch.randn(B, H))
    h_seq, output, last = memory(z, action, start, mask)
    state = start
    for t in range(T):
        step, state = memory.step(z[:, t], action[:, t], state, mask)
        torch.testing.assert_close(state.h, h_seq[:, t])
        for one, sequence in zip(step, output, strict=True):
            torch.testing.assert_close(one, sequence[:, t])
    torch.testing.assert_close(state.c, last.c)


def test_forward_continues_from_a_state(memory: MDNRNN) -> None:
    z, action = make_inputs()
    whole, _, _ = memory(z, action)
    _, _, state = memory(z[:, :3], action[:, :3])
    rest, _, _ = memory(z[:, 3:], action[:, 3:], state)
    torch.testing.assert_close(rest, whole[:, 3:])


def test_a_mask_of_ones_is_no_dropout(memory: MDNRNN) -> None:
    z, action = make_inputs()
    plain, masked = memory(z, action), memory(z, action, None, torch.ones(B, H))
    torch.testing.assert_close(masked[0], plain[0])
    torch.testing.assert_close(masked[1], plain[1])


def test_mask_keeps_its_share_and_its_mean(memory: MDNRNN) -> None:
    mask = memory.sample_mask(5000, torch.Generator().manual_seed(0))
    assert mask is not None
    assert (mask == 0).float().mean().item() == pytest.approx(SMALL.dropout, abs=0.01)
    assert mask.mean().item() == pytest.approx(1, abs=0.01)
    without = MDNRNN(dataclasses.replace(SMALL, dropout=0.0))
    assert without.sample_mask(5, torch.Generator()) is None


def test_sigma_never_falls_below_the_floor(memory: MDNRNN) -> None:
    with torch.no_grad():
        memory.mixture.bias.fill_(-50)
    output = memory.predict(torch.zeros(B, Z), torch.zeros(B, H), None)
    torch.testing.assert_close(output.log_sigma.exp(), torch.full((B, Z, K), SMALL.sigma_floor))
    torch.testing.assert_close(output.log_pi.exp().sum(-1), torch.ones(B, Z))


def test_losses_ignore_what_comes_after_the_end(memory: MDNRNN) -> None:
    z, action = make_inputs()
    _, output, _ = memory(z, action)
    target = torch.randn(B, T, Z)
    event = torch.randint(0, 2, (B, T)).float()
    valid = (torch.arange(T) < torch.tensor([[2], [5], [7]])).float()
    rubbish = valid.logical_not()

    def losses(target: Tensor, event: Tensor) -> Tensor:
        log_prob = mixture_log_prob(output.log_pi, output.mu, output.log_sigma, target)
        return torch.stack(
            (
                masked_mean(-log_prob.mean(-1), valid),
                RewardModel("event").loss(output.reward, event, valid),
                RewardModel("raw").loss(output.reward, event, valid),
                event_loss(output.terminated_logit, event, valid),
            )
        )

    dirty_target = target.masked_fill(rubbish.unsqueeze(-1), 1e6)
    assert torch.equal(losses(target, event), losses(dirty_target, event.masked_fill(rubbish, 7)))
    steps = [(b, t) for b in range(B) for t in range(T) if valid[b, t]]
    squared = torch.stack([(output.reward[s] - event[s]) ** 2 for s in steps]).mean()
    torch.testing.assert_close(RewardModel("raw").loss(output.reward, event, valid), squared)


def test_masked_mean_survives_nan_and_an_empty_mask() -> None:
    value = torch.tensor([[1.0, 3.0, float("nan")]], requires_grad=True)
    mean = masked_mean(value, torch.tensor([[1.0, 1.0, 0.0]]))
    mean.backward()
    assert mean.item() == 2 and value.grad is not None and value.grad[0, 2] == 0
    assert masked_mean(value, torch.zeros(1, 3)).item() == 0


def test_event_reward_round_trip() -> None:
    model = RewardModel("event", base=-0.1, event_value=3.4)
    reward = torch.tensor([-0.1, 3.3, -0.1, 6.7])
    assert model.target(reward).tolist() == [0, 1, 0, 1]
    torch.testing.assert_close(
        model.expected(torch.tensor([-1e3, 0.0, 1e3])), torch.tensor([-0.1, 1.6, 3.3])
    )
    uniform = torch.linspace(0, 1, 10_001)[:-1]
    sampled = model.sampled(torch.zeros(10_000), uniform)
    assert sampled.mean().item() == pytest.approx(1.6, abs=1e-3)
    assert sampled.unique().tolist() == pytest.approx([-0.1, 3.3])


def test_raw_reward_round_trip() -> None:
    model = RewardModel("raw", scale=2.0, shift=-0.5)
    reward = torch.tensor([-0.1, 3.3])
    torch.testing.assert_close(model.expected(model.target(reward)), reward)


@pytest.mark.parametrize(
    ("field", "value"),
    [("z_dim", 0), ("mixtures", -1), ("sigma_floor", 0.0), ("dropout", 1.0), ("reward", "both")],
)
def test_config_names_the_bad_field(field: str, value: object) -> None:
    with pytest.raises(UserError, match=f"MDNRNNConfig.{field} is"):
        MDNRNNConfig(**{field: value})  # type: ignore[arg-type]  # a user's mistake is the point


def test_residual_mixtures_are_counted_from_z() -> None:
    torch.manual_seed(0)
    plain = MDNRNN(MDNRNNConfig(z_dim=3, action_size=2, hidden_size=8, mixtures=2))
    moved = MDNRNN(MDNRNNConfig(z_dim=3, action_size=2, hidden_size=8, mixtures=2, residual=True))
    moved.load_state_dict(plain.state_dict())
    z, action = torch.randn(4, 5, 3), torch.randn(4, 5, 2)
    _, one, _ = plain(z, action)
    _, other, _ = moved(z, action)
    torch.testing.assert_close(other.mu, one.mu + z.unsqueeze(-1))
    torch.testing.assert_close(other.log_sigma, one.log_sigma)
    stepped, _ = moved.step(z[:, 0], action[:, 0], moved.initial_state(4))
    torch.testing.assert_close(stepped.mu, other.mu[:, 0])


def test_autocast_runs_the_lstm_in_bfloat16() -> None:
    torch.manual_seed(0)
    memory = MDNRNN(MDNRNNConfig(z_dim=3, action_size=2, hidden_size=8, mixtures=2))
    z, action = torch.randn(4, 5, 3), torch.randn(4, 5, 2)
    full, _, _ = memory(z, action)
    with torch.autocast("cpu", torch.bfloat16):
        low, _, state = memory(z, action)
    assert low.dtype == torch.bfloat16
    assert state.h.dtype == torch.float32
    torch.testing.assert_close(low.float(), full, atol=0.02, rtol=0.05)
    low.float().sum().backward()
    gradient = memory.lstm.weight_hh_l0.grad
    assert gradient is not None
    assert gradient.dtype == torch.float32


def test_count_reward_round_trip() -> None:
    model = RewardModel("count", base=-0.4, event_value=3.5)
    reward = torch.tensor([-0.4, 3.1, 6.6, -100.0])
    torch.testing.assert_close(model.target(reward), torch.tensor([0.0, 1.0, 2.0, 0.0]))
    output = torch.tensor([-20.0, 0.5, 2.0])
    rate = torch.nn.functional.softplus(output)
    torch.testing.assert_close(model.expected(output), -0.4 + 3.5 * rate)
    uniform = torch.linspace(0, 1, 10_001)[:-1]
    for value, mean in zip(output.unbind(), rate.unbind(), strict=True):
        counts = (model.sampled(value.expand(10_000), uniform) + 0.4) / 3.5
        poisson = torch.distributions.Poisson(mean)
        fraction = (counts.round() == 1).float().mean()
        assert fraction.item() == pytest.approx(
            float(poisson.log_prob(torch.tensor(1.0)).exp()), abs=2e-3
        )
        assert counts.mean().item() == pytest.approx(mean.item(), abs=5e-3)


def test_count_loss_is_poissons_and_least_at_the_mean() -> None:
    count = torch.tensor([[0.0, 1.0, 3.0, 2.0]])
    valid = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    output = torch.tensor([[-1.0, 0.3, 2.0, 1e6]])
    rate = torch.nn.functional.softplus(output)
    poisson = -torch.distributions.Poisson(rate).log_prob(count) - torch.lgamma(count + 1)
    want = (poisson * valid)[:, :3].sum() / 3
    torch.testing.assert_close(RewardModel("count").loss(output, count, valid), want)
    free = torch.full((1,), math.log(math.e - 1), requires_grad=True)  # a rate of 1
    half_and_more = torch.tensor([[0.5, 1.5]])
    RewardModel("count").loss(free.expand(1, 2), half_and_more, torch.ones(1, 2)).backward()
    assert free.grad is not None and free.grad.item() == pytest.approx(0, abs=1e-6)
