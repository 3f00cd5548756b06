"""The latent: recovered where it is known, priced by its prior, exact for mixtures."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worldmodels.memory.interface import MemoryOutput
from worldmodels.planning.latent import InferenceConfig, infer_latent, infer_mixture_latent
from worldmodels.planning.objective import decompose
from worldmodels.protocols import UserError

B, Z, K, L, Y = 5, 4, 3, 3, 6


def mixture(seed: int = 0) -> MemoryOutput:
    g = torch.Generator().manual_seed(seed)
    log_pi = torch.log_softmax(torch.randn(B, Z, K, generator=g), -1)
    mu = 3 * torch.randn(B, Z, K, generator=g)
    log_sigma = 0.3 * torch.randn(B, Z, K, generator=g) - 1
    zeros = torch.zeros(B)
    return MemoryOutput(log_pi, mu, log_sigma, zeros, zeros)


def world(seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(L, Y, generator=g), 2 * torch.rand(B, L, generator=g) - 1


def test_a_known_latent_is_recovered_through_a_nonlinear_model() -> None:
    weight, truth = world()

    def model(z: Tensor) -> Tensor:
        return torch.tanh(0.5 * z @ weight) + z @ weight

    found = infer_latent(model, model(truth), L, InferenceConfig(deviation=0.05, prior=0.01))
    torch.testing.assert_close(found.latent, truth, atol=0.02, rtol=0)
    assert (found.energy < 0.05 * found.energy_without).all()


def test_for_a_linear_model_it_is_the_posterior_mean() -> None:
    weight, truth = world(1)
    observed = truth @ weight + 0.3 * torch.randn(B, Y, generator=torch.Generator().manual_seed(5))
    cfg = InferenceConfig(deviation=0.5, prior=2.0, iterations=600)
    found = infer_latent(lambda z: z @ weight, observed, L, cfg)
    precision = weight @ weight.T / 0.25 + 2.0 * torch.eye(L)
    exact = torch.linalg.solve(precision, weight @ observed.T / 0.25).T
    torch.testing.assert_close(found.latent, exact, atol=2e-3, rtol=0)


def test_the_prior_s_weight_is_what_an_explanation_costs() -> None:
    weight, truth = world(2)
    energies = [
        infer_latent(
            lambda z: z @ weight, truth @ weight, L, InferenceConfig(prior=prior)
        ).energy.sum()
        for prior in (0.0, 0.1, 1.0, 10.0)
    ]
    assert energies == sorted(energies)
    assert energies[0] == pytest.approx(0, abs=1e-2)


def ellipse(z: Tensor) -> Tensor:
    return torch.cat([z.cos(), 2 * z.sin()], dim=1)


@pytest.mark.parametrize("deviation", [0.1, 0.3, 1.0])
def test_where_the_energy_has_several_minima_the_least_is_found(deviation: float) -> None:
    points = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 1.5])
    points[0] = torch.tensor([-1.0, 0.0])  # from z = 0 it keeps an energy of 2 / d^2
    cfg = InferenceConfig(deviation)
    found = infer_latent(ellipse, points, 1, cfg)
    grid = torch.linspace(-7, 7, 20_001)[:, None]
    distance = (points[:, None] - ellipse(grid)).square().sum(2) / (2 * deviation**2)
    least = (distance + grid[:, 0].square() / 2).amin(1)
    torch.testing.assert_close(found.energy, least, atol=1e-2, rtol=1e-3)
    assert found.converged.all()
    torch.testing.assert_close(found.energy_without, distance[:, 10_000])


def test_it_says_when_the_descent_was_too_short_and_keeps_no_graph() -> None:
    weight, truth = world()
    weight.requires_grad_(True)
    observed = (truth @ weight).requires_grad_(True)
    for iterations, converged in ((1, False), (300, True)):
        cfg = InferenceConfig(iterations=iterations, starts=1)
        found = infer_latent(lambda z: z @ weight, observed, L, cfg)
        assert found.converged.tolist() == [converged] * B
        values = (found.latent, found.explained, found.energy, found.energy_without)
        assert not any(value.requires_grad for value in values)
    assert infer_mixture_latent(mixture(), torch.zeros(B, Z), cfg).converged.all()
    with pytest.raises(UserError, match=r"InferenceConfig\.starts is 0"):
        InferenceConfig(starts=0)


def test_the_mixture_s_noise_is_recovered() -> None:
    out = mixture()
    component = torch.randint(K, (B, Z), generator=torch.Generator().manual_seed(3))
    noise = 0.5 * torch.randn(B, Z, generator=torch.Generator().manual_seed(4))
    at = component.unsqueeze(-1)
    mu, sigma = out.mu.gather(-1, at).squeeze(-1), out.log_sigma.exp().gather(-1, at).squeeze(-1)
    found = infer_mixture_latent(out, mu + sigma * noise, InferenceConfig(deviation=1e-3))
    assert found.component is not None
    same = found.component == component
    assert same.float().mean() > 0.8  # another component may explain it more cheaply
    torch.testing.assert_close(found.latent[same], noise[same], atol=1e-3, rtol=0)
    torch.testing.assert_close(found.explained, mu + sigma * noise, atol=1e-3, rtol=0)


def test_the_mixture_s_solution_is_the_least_over_a_grid() -> None:
    out, cfg = mixture(1), InferenceConfig(deviation=0.3, prior=0.7)
    observed = torch.randn(B, Z, generator=torch.Generator().manual_seed(6))
    found = infer_mixture_latent(out, observed, cfg)
    grid = torch.linspace(-12, 12, 4801)
    said = out.mu.unsqueeze(-1) + out.log_sigma.exp().unsqueeze(-1) * grid
    distance = (observed[..., None, None] - said).square() / (2 * cfg.deviation**2)
    price = cfg.prior * (grid.square() / 2 - out.log_pi.unsqueeze(-1))
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
