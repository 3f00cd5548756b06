"""Losses against formulas written another way, and against binary cross-entropy."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from sparse_gan.gan.losses import (
    LossConfig,
    annealed,
    energy_loss,
    generator_loss,
    gradient_penalty,
    pulling_away,
    slopes,
    zero_penalty,
)
from worldmodels.protocols import UserError

B, N = 6, 4
energies = st.lists(st.floats(-20, 20), min_size=1, max_size=8)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(energies, energies)
def test_log_is_cross_entropy_with_the_logit_minus_f(low: list[float], high: list[float]) -> None:
    real, fake = torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)
    bce = functional.binary_cross_entropy_with_logits
    of_energy = bce(-real, torch.ones_like(real)) + bce(-fake, torch.zeros_like(fake))
    for kind in ("log", "saturating"):
        torch.testing.assert_close(energy_loss(LossConfig(kind), real, fake), of_energy)
    torch.testing.assert_close(
        generator_loss(LossConfig("log"), fake), bce(-fake, torch.ones_like(fake))
    )
    minimax = -bce(-fake, torch.zeros_like(fake))
    torch.testing.assert_close(generator_loss(LossConfig("saturating"), fake), minimax)


@given(energies, energies, st.floats(0.1, 30))
def test_the_other_losses_are_their_formulas(
    low: list[float], high: list[float], edge: float
) -> None:
    real, fake = torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)
    mean_low, mean_high = math.fsum(low) / len(low), math.fsum(high) / len(high)
    hinge = math.fsum(max(0.0, edge - f) for f in high) / len(high)
    squares = math.fsum(f * f for f in low) / len(low)
    squares += math.fsum((f - edge) ** 2 for f in high) / len(high)
    expected = {
        "margin": mean_low + hinge,
        "ebgan": mean_low + hinge,
        "regression": squares / 2,
        "wasserstein": mean_low - mean_high,
        "wasserstein-gp": mean_low - mean_high,
    }
    for kind, value in expected.items():
        cfg = LossConfig(kind, margin=edge, target=edge)  # type: ignore[arg-type]  # keys are kinds
        assert float(energy_loss(cfg, real, fake)) == pytest.approx(value, abs=1e-9)
        assert float(generator_loss(cfg, fake)) == pytest.approx(mean_high, abs=1e-9)


def test_the_two_forms_differ_by_how_g_is_taught_when_f_is_sure() -> None:
    sure = torch.tensor([15.0], requires_grad=True)
    for kind, size in (("log", 1.0), ("saturating", 0.0)):
        (slope,) = torch.autograd.grad(generator_loss(LossConfig(kind), sure), sure)  # type: ignore[arg-type]  # keys are kinds
        assert float(slope) == pytest.approx(size, abs=1e-5)


def test_pulling_away_is_one_on_a_collapsed_batch() -> None:
    row = drawn(1, N)
    collapsed = row * torch.tensor([[1.0], [2.0], [-0.5], [7.0]], dtype=torch.float64)
    assert float(pulling_away(collapsed)) == pytest.approx(1.0, abs=1e-12)
    assert float(pulling_away(torch.eye(5))) == 0.0
    with pytest.raises(UserError, match="at least 2 samples; the batch has 1"):
        pulling_away(row)


@given(st.integers(2, 7), st.integers(1, 5), st.integers(0, 1000))
def test_pulling_away_equals_a_loop(count: int, dims: int, seed: int) -> None:
    features = drawn(count, dims, seed=seed)
    total = 0.0
    for i in range(count):
        for j in range(count):
            if i != j:
                a, b = features[i].tolist(), features[j].tolist()
                dot = sum(p * q for p, q in zip(a, b, strict=True))
                total += (dot / math.hypot(*a) / math.hypot(*b)) ** 2
    expected = total / (count * (count - 1))
    assert float(pulling_away(features)) == pytest.approx(expected, rel=1e-9)


def test_penalties_of_a_quadratic_energy_are_known() -> None:
    weight = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)

    def bowl(x: Tensor) -> Tensor:
        return 0.5 * weight * x.flatten(1).square().sum(1)

    x, other, share = drawn(B, 2, 2), drawn(B, 2, 2, seed=1), torch.linspace(0, 1, B)
    length = x.flatten(1).norm(dim=1)
    torch.testing.assert_close(slopes(bowl, x), 3 * length)
    r1 = zero_penalty(bowl, x)
    torch.testing.assert_close(r1, 4.5 * length.square().mean())
    (slope,) = torch.autograd.grad(r1, weight)
    torch.testing.assert_close(slope, 3 * length.square().mean())
    between = share.double()[:, None, None] * x + (1 - share.double()[:, None, None]) * other
    expected = (3 * between.flatten(1).norm(dim=1) - 1).square().mean()
    torch.testing.assert_close(gradient_penalty(bowl, x, other, share), expected)


def test_a_flat_energy_has_a_finite_penalty() -> None:
    weight = torch.zeros(2, requires_grad=True)
    loss = gradient_penalty(
        lambda x: x @ weight, torch.ones(B, 2), torch.zeros(B, 2), torch.ones(B)
    )
    (slope,) = torch.autograd.grad(loss, weight)
    assert loss.item() == pytest.approx(1.0)
    assert bool(torch.isfinite(slope).all())


def test_instance_noise_ends_with_the_training() -> None:
    assert [annealed(0.4, step, 4) for step in range(6)] == pytest.approx(
        [0.4, 0.3, 0.2, 0.1, 0, 0]
    )


@pytest.mark.parametrize(
    ("field", "value"), [("margin", 0.0), ("clip", -1.0), ("zero_penalty", -1.0), ("target", 0.0)]
)
def test_weights_out_of_range(field: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"LossConfig\.{field} is {value}; it must be"):
        LossConfig("log", **{field: value})
