"""The latent of a mixture: recovered where it is known, priced by its prior."""

from __future__ import annotations

import pytest
import torch

from worldmodels.memory.interface import MemoryOutput
from worldmodels.planning.latent import infer_mixture_latent
from worldmodels.planning.objective import decompose
from worldmodels.protocols import UserError

B, Z, K = 5, 4, 3


def mixture(seed: int = 0) -> MemoryOutput:
    g = torch.Generator().manual_seed(seed)
    log_pi = torch.log_softmax(torch.randn(B, Z, K, generator=g), -1)
    mu = 3 * torch.randn(B, Z, K, generator=g)
    log_sigma = 0.3 * torch.randn(B, Z, K, generator=g) - 1
    zeros = torch.zeros(B)
    return MemoryOutput(log_pi, mu, log_sigma, zeros, zeros)


def test_the_mixture_s_noise_is_recovered() -> None:
    out = mixture()
    component = torch.randint(K, (B, Z), generator=torch.Generator().manual_seed(3))
    noise = 0.5 * torch.randn(B, Z, generator=torch.Generator().manual_seed(4))
    at = component.unsqueeze(-1)
    mu, sigma = out.mu.gather(-1, at).squeeze(-1), out.log_sigma.exp().gather(-1, at).squeeze(-1)
    found = infer_mixture_latent(out, mu + sigma * noise, std=1e-3)
    same = found.component == component
    assert same.float().mean() > 0.8  # another component may explain it more cheaply
    torch.testing.assert_close(found.latent[same], noise[same], atol=1e-3, rtol=0)


def test_the_mixture_s_solution_is_the_least_over_a_grid() -> None:
    out, std, prior = mixture(1), 0.3, 0.7
    observed = torch.randn(B, Z, generator=torch.Generator().manual_seed(6))
    found = infer_mixture_latent(out, observed, std, prior)
    grid = torch.linspace(-12, 12, 4801)
    said = out.mu.unsqueeze(-1) + out.log_sigma.exp().unsqueeze(-1) * grid
    distance = (observed[..., None, None] - said).square() / (2 * std**2)
    price = prior * (grid.square() / 2 - out.log_pi.unsqueeze(-1))
    least = (distance + price).flatten(-2).amin(-1).sum(-1)
    torch.testing.assert_close(found.energy, least, atol=2e-2, rtol=1e-3)
    assert (found.energy <= least + 1e-4).all()


def test_the_two_uncertainties_add_up_to_the_variance_of_all_samples() -> None:
    outputs = [mixture(seed) for seed in range(3)]
    parts = decompose(outputs)
    g = torch.Generator().manual_seed(0)
    samples = []
    for out in outputs:
        k = torch.distributions.Categorical(logits=out.log_pi)
        pick = torch.stack([k.sample() for _ in range(4000)]).unsqueeze(-1)
        mu = out.mu.expand(4000, -1, -1, -1).gather(-1, pick).squeeze(-1)
        sigma = out.log_sigma.exp().expand(4000, -1, -1, -1).gather(-1, pick).squeeze(-1)
        samples.append(mu + sigma * torch.randn(mu.shape, generator=g))
    total = torch.cat(samples).var(0)
    torch.testing.assert_close(parts.aleatoric + parts.epistemic, total, rtol=0.12, atol=0.05)
    assert (decompose(outputs[:1]).epistemic == 0).all()


def test_a_std_or_a_prior_out_of_range_is_refused() -> None:
    for settings, text in (((0.0, 1.0), "std is 0"), ((0.1, -1.0), "prior is -1")):
        with pytest.raises(UserError, match=text):
            infer_mixture_latent(mixture(), torch.zeros(B, Z), *settings)


def test_the_latent_lowers_the_energy_and_its_price_raises_it() -> None:
    observed = torch.randn(B, Z, generator=torch.Generator().manual_seed(6))
    free, priced = (infer_mixture_latent(mixture(), observed, 0.1, w) for w in (0.0, 1.0))
    assert (free.energy < 1e-3).all() and (free.energy <= priced.energy).all()
