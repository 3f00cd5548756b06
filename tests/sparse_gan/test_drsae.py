"""DrSAE: ISTA at ISTA's parameters, the paper's start and bounds, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sparse_gan.coding.drsae import (
    UNLABELLED,
    DrSAE,
    DrSAEConfig,
    DrSAETrainConfig,
    drsae_loss,
    train_drsae,
)
from sparse_gan.coding.ista import Lasso, SolverConfig, minimise

B, M, N, K, T = 60, 8, 12, 3, 5
CFG = DrSAEConfig(units=N, classes=K, steps=T)


def samples() -> tuple[Tensor, Tensor]:
    """Three noisy directions, rows of length 1, and which one each row is of."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(B) % K
    centres = torch.eye(M, dtype=torch.float64)[labels]
    x = centres + 0.1 * torch.randn(B, M, generator=generator, dtype=torch.float64)
    return x / x.norm(dim=1, keepdim=True), labels


def test_at_istas_parameters_it_is_nonnegative_ista() -> None:
    x, _ = samples()
    generator = torch.Generator().manual_seed(1)
    d = torch.randn(M, N, generator=generator, dtype=torch.float64)
    model = DrSAE.from_dictionary(d, 0.1, CFG)
    lasso = Lasso(x, d, 0.1, nonnegative=True)
    for steps, z in enumerate(model.iterations(x), start=1):
        expected = minimise(lasso, SolverConfig(steps, momentum=False)).z
        torch.testing.assert_close(z, expected, rtol=1e-12, atol=1e-14)
    assert bool((model.infer(x) > 0).any())


def test_the_start_is_the_papers() -> None:
    x, _ = samples()
    model = DrSAE(x, DrSAEConfig(units=N), seed=0)
    d = model.decoder.detach()
    torch.testing.assert_close(d.norm(dim=0), torch.ones(N, dtype=x.dtype))
    torch.testing.assert_close(model.encoder.detach(), 1.25 / 11 * d.T)
    torch.testing.assert_close(
        model.lateral.detach(), torch.eye(N, dtype=x.dtype) - 1.25 / 11 * d.T @ d
    )
    assert bool((model.bias == 1e-5).all())
    assert float(model.angles().max()) < 1e-6


@pytest.mark.parametrize(("features", "units", "steps"), [(4, 100, 11), (4, 400, 2), (30, 40, 11)])
def test_the_first_step_is_not_above_istas(features: int, units: int, steps: int) -> None:
    x = torch.randn(50, features, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = DrSAE(x, DrSAEConfig(units, K, steps), seed=0)
    d = model.decoder.detach()
    rate = float(model.encoder.detach()[0] @ d[:, 0])
    largest = float(torch.linalg.matrix_norm(d, 2) ** 2)
    assert rate * largest <= 1
    assert rate == pytest.approx(min(1.25 / steps, 1 / largest), rel=2e-3)
    z = model.iterations(x, 200)[-1]
    assert float(z.detach().abs().max()) < 100


def test_projections_are_bounds_and_not_equalities() -> None:
    x, _ = samples()
    model = DrSAE(x, DrSAEConfig(units=N, classes=K), seed=0)
    with torch.no_grad():
        model.decoder[:, 0] *= 3
        model.decoder[:, 1] *= 0.5
        model.encoder[0] *= 3
        model.classifier[0] = 100.0
        model.classifier[1] = 0.1
    model.project()
    lengths = model.decoder.norm(dim=0)
    assert lengths[:2].tolist() == pytest.approx([1.0, 0.5])
    rows = model.encoder.norm(dim=1)
    assert rows[:2].tolist() == pytest.approx([1.25 / 10, 1.25 / 11])
    assert model.classifier.norm(dim=1).tolist() == pytest.approx([5.0, 0.1 * math.sqrt(N), 0.0])


def test_gradients_of_energy_and_classification() -> None:
    x, labels = samples()
    model = DrSAE(x, CFG, seed=0)
    with torch.no_grad():
        model.bias.fill_(-0.01)  # away from the corner of the rectifier
        model.classifier.normal_(generator=torch.Generator().manual_seed(2))
    names = [name for name, _ in model.named_parameters()]
    values = tuple(value.detach().requires_grad_(True) for value in model.parameters())

    class Loss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            return drsae_loss(self.model, x, labels, torch.arange(len(x)))[0]

    def loss(x: Tensor, *parameters: Tensor) -> Tensor:
        given = {f"model.{name}": p for name, p in zip(names, parameters, strict=True)}
        value: Tensor = torch.func.functional_call(Loss(), given, (x,))
        return value

    assert torch.autograd.gradcheck(loss, (x[:4].requires_grad_(True), *values))


def test_loss_is_the_papers() -> None:
    x, labels = samples()
    model = DrSAE(x, CFG, seed=0)
    with torch.no_grad():
        model.classifier.normal_(generator=torch.Generator().manual_seed(2))
    labels[::2] = UNLABELLED
    loss, _ = drsae_loss(model, x, labels, torch.arange(B))
    total = 0.0
    model.requires_grad_(False)
    for row, label in zip(x, labels.tolist(), strict=True):
        z = torch.zeros(N, dtype=x.dtype)
        for _ in range(T):
            z = (model.encoder @ row + model.lateral @ z - model.bias).clamp_min(0)
        total += float(0.5 * (row - model.decoder @ z).square().sum() + 0.018 * z.sum())
        if label != UNLABELLED:
            logits = model.classifier @ z / z.norm()
            total -= 0.2 * float(logits[label] - logits.exp().sum().log())
    assert float(loss.detach()) == pytest.approx(total / B, rel=1e-9)


def test_it_learns_with_few_labels_and_twice_the_same() -> None:
    x, labels = samples()
    few = torch.where(torch.arange(B) < 9, labels, torch.full_like(labels, UNLABELLED))
    cfg = DrSAETrainConfig(5, 30, learning_rate=0.05)
    rows: list[dict[str, object]] = []
    models = [
        train_drsae(DrSAE(x, CFG, 0), x, few, cfg, 0, lambda **row: rows.append(row))
        for _ in range(2)
    ]
    assert float((models[0](x).argmax(1) == labels).double().mean()) > 0.95
    assert torch.equal(models[0](x), models[1](x))
    assert [row["phase"] for row in rows[:35]] == ["unsupervised"] * 5 + ["supervised"] * 30
    assert float(models[0].decoder.detach().norm(dim=0).max()) <= 1 + 1e-9


@pytest.mark.parametrize("labels", [torch.zeros(B - 1), torch.full((B,), K), torch.full((B,), -2)])
def test_labels_that_do_not_fit(labels: Tensor) -> None:
    x, _ = samples()
    with pytest.raises(ValueError, match="labels"):
        train_drsae(DrSAE(x, CFG, 0), x, labels, DrSAETrainConfig(1, 1), 0)
