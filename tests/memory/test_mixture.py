"""The mixture's density and samples against torch.distributions and analytic moments."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal

from worldmodels.memory.mixture import (
    component_posterior,
    mixture_from_noise,
    mixture_log_prob,
    mixture_mean,
    mixture_noise,
    mixture_variance,
    select_component,
)

B, T, Z, K = 2, 3, 4, 5


def make_mixture(seed: int, shape: tuple[int, ...] = (B, T, Z, K)) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits, mu, log_sigma = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    return logits.log_softmax(-1), 2 * mu, 0.5 * log_sigma - 0.5


def as_distribution(log_pi: Tensor, mu: Tensor, log_sigma: Tensor) -> MixtureSameFamily:
    return MixtureSameFamily(Categorical(logits=log_pi), Normal(mu, log_sigma.exp()))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 30))
def test_log_prob_equals_torch_distributions(seed: int, scale: float) -> None:
    mixture = make_mixture(seed)
    target = scale * torch.randn((B, T, Z), generator=torch.Generator().manual_seed(seed)).double()
    expected = as_distribution(*mixture).log_prob(target)
    torch.testing.assert_close(mixture_log_prob(*mixture, target), expected)


def test_log_prob_is_finite_far_from_every_component() -> None:
    log_pi, mu, log_sigma = (x.float() for x in make_mixture(0))
    log_prob = mixture_log_prob(log_pi, mu, log_sigma - 4, torch.full((B, T, Z), 1e4))
    assert torch.isfinite(log_prob).all()


def test_density_integrates_to_one() -> None:
    log_pi, mu, log_sigma = make_mixture(1, (1, K))
    x = torch.linspace(-40, 40, 200_001, dtype=torch.float64)
    shape = (len(x), K)
    density = mixture_log_prob(
        log_pi.expand(shape), mu.expand(shape), log_sigma.expand(shape), x
    ).exp()
    assert torch.trapezoid(density, x).item() == pytest.approx(1, abs=1e-6)


def test_moments_equal_torch_distributions() -> None:
    mixture = make_mixture(2)
    expected = as_distribution(*mixture)
    torch.testing.assert_close(mixture_mean(*mixture[:2]), expected.mean)
    torch.testing.assert_close(mixture_variance(*mixture), expected.variance)


@pytest.mark.parametrize("tau", [0.3, 1.0, 1.5])
def test_samples_have_the_tempered_moments(tau: float) -> None:
    count = 200_000
    log_pi, mu, log_sigma = make_mixture(3, (1, K))
    tempered = ((log_pi / tau).log_softmax(-1), mu, log_sigma + 0.5 * math.log(tau))
    expected = as_distribution(*tempered)
    generator = torch.Generator().manual_seed(0)
    shape = (count, K)
    wide = (log_pi.expand(shape), mu.expand(shape), log_sigma.expand(shape))
    noise = mixture_noise(mu.expand(shape)[..., 0], generator)
    sample = mixture_from_noise(*wide, *noise, tau)
    error = (sample.mean() - expected.mean).abs().item()
    assert error < 5 * (expected.variance / count).sqrt().item()
    assert sample.var().item() == pytest.approx(expected.variance.item(), rel=0.03)


def test_components_are_drawn_with_their_probability() -> None:
    count = 100_000
    log_pi, _, _ = make_mixture(4, (K,))
    uniform = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    component = select_component(log_pi.expand(count, K), uniform)
    fraction = torch.bincount(component, minlength=K) / count
    torch.testing.assert_close(fraction.double(), log_pi.exp(), atol=2 / count, rtol=0)


def test_the_posterior_is_bayes_rule() -> None:
    log_pi, mu, log_sigma = make_mixture(7)
    target = mu[..., 2] + 0.3
    likelihood = Normal(mu, log_sigma.exp()).log_prob(target.unsqueeze(-1)).exp()
    joint = log_pi.exp() * likelihood
    posterior = component_posterior(log_pi, mu, log_sigma, target).softmax(-1)
    torch.testing.assert_close(posterior, joint / joint.sum(-1, keepdim=True))


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_component_is_in_range_at_the_edges(uniform: float) -> None:
    log_pi = make_mixture(5)[0].float()
    component = select_component(log_pi, torch.full((B, T, Z), uniform))
    assert component.min() >= 0 and component.max() < K


def test_zero_temperature_gives_the_likeliest_mean() -> None:
    log_pi, mu, log_sigma = make_mixture(6)
    noise = torch.ones(B, T, Z, dtype=torch.float64)
    z = mixture_from_noise(log_pi, mu, log_sigma, 0.5 * noise, 3 * noise, tau=0.0)
    best = log_pi.argmax(-1)
    expected = torch.stack([m[b] for m, b in zip(mu.view(-1, K), best.flatten(), strict=True)])
    torch.testing.assert_close(z.flatten(), expected)


def test_samples_depend_on_the_generator_alone() -> None:
    mixture = make_mixture(7)
    first, again, other = (
        mixture_from_noise(
            *mixture, *mixture_noise(mixture[1][..., 0], torch.Generator().manual_seed(s))
        )
        for s in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_gradients_agree_with_finite_differences() -> None:
    generator = torch.Generator().manual_seed(3)
    shape = (2, 3, 4)
    parts = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3)]
    target = torch.randn(shape[:-1], generator=generator, dtype=torch.float64)
    inputs = [part.requires_grad_() for part in (*parts, target)]
    assert torch.autograd.gradcheck(mixture_log_prob, inputs)
