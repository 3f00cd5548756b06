"""LISTA: ISTA exactly before training, better than it afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparse_gan.coding.ista import Lasso, SolverConfig, largest_eigenvalue, minimise
from sparse_gan.coding.lista import LISTA, Kind, LISTAConfig, LISTATrainConfig, train_lista

B, M, N, T = 5, 8, 12, 6
KINDS: list[Kind] = ["full", "coupled", "step"]


def data(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    d = torch.randn(M, N, generator=generator, dtype=torch.float64)
    x = torch.randn(B, M, generator=generator, dtype=torch.float64)
    return x.to(dtype), (d / d.norm(dim=0)).to(dtype)


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_untrained_it_is_ista(kind: Kind, tied: bool, nonnegative: bool) -> None:
    x, d = data()
    model = LISTA(d, LISTAConfig(T, kind, tied, lam=0.2, nonnegative=nonnegative))
    lasso = Lasso(x, d, 0.2, nonnegative)
    for depth, z in enumerate(model.layers(x), start=1):
        expected = minimise(lasso, SolverConfig(depth, momentum=False)).z
        torch.testing.assert_close(z, expected, rtol=1e-12, atol=1e-14)
    assert int((z != 0).sum()) > 0


def test_untrained_it_is_ista_in_single_precision_too() -> None:
    x, d = data(torch.float32)
    z = LISTA(d, LISTAConfig(T, lam=0.2)).infer(x)
    expected = minimise(Lasso(x, d, 0.2), SolverConfig(T, momentum=False)).z
    torch.testing.assert_close(z, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: Kind, tied: bool) -> None:
    x, d = data()
    model = LISTA(d, LISTAConfig(3, kind, tied, lam=0.2))
    names = [name for name, _ in model.named_parameters()]
    values = tuple(value.detach().requires_grad_(True) for value in model.parameters())

    def codes(x: Tensor, *parameters: Tensor) -> Tensor:
        z: Tensor = torch.func.functional_call(
            model, dict(zip(names, parameters, strict=True)), (x,)
        )
        return z

    assert torch.autograd.gradcheck(codes, (x[:2].requires_grad_(True), *values))


@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_parameters_is_the_papers(kind: Kind) -> None:
    _, d = data()
    count = {"full": N * M + N * N + N, "coupled": M * N + N, "step": 1}[kind]
    for tied, blocks in ((True, 1), (False, T)):
        model = LISTA(d, LISTAConfig(T, kind, tied))
        assert sum(p.numel() for p in model.parameters()) == blocks * count


@pytest.mark.parametrize("kind", KINDS)
def test_training_on_the_objective_lowers_it(kind: Kind) -> None:
    x, d = data()
    cfg = LISTATrainConfig("objective", layer_steps=10, joint_steps=30, learning_rate=5e-3)
    model = LISTA(d, LISTAConfig(3, kind, lam=0.2))
    before = float(model.energy(x).mean())
    rows: list[dict[str, float]] = []
    train_lista(model, lambda step: (x, None), cfg, lambda **row: rows.append(row))
    best = minimise(Lasso(x, d, 0.2), SolverConfig(2000, tolerance=1e-12)).z
    least = float(model.joint_energy(x, best).mean())
    assert least < float(model.energy(x).mean()) < before - 0.1 * (before - least)
    assert [row["depth"] for row in rows] == [1, 2, 3, 3]


def test_training_on_codes_comes_closer_and_needs_them() -> None:
    x, d = data()
    z = minimise(Lasso(x, d, 0.05), SolverConfig(2000, tolerance=1e-12)).z
    model = LISTA(d, LISTAConfig(3, tied=True, lam=0.05))
    before = float((model.infer(x) - z).square().sum())
    cfg = LISTATrainConfig(layerwise=False, joint_steps=60, learning_rate=5e-3)
    train_lista(model, lambda step: (x, z), cfg)
    assert float((model.infer(x) - z).square().sum()) < 0.5 * before
    with pytest.raises(ValueError, match="needs codes"):
        train_lista(model, lambda step: (x, None), cfg)


def test_training_twice_is_the_same() -> None:
    x, d = data()
    cfg = LISTATrainConfig("objective", layer_steps=3, joint_steps=3)
    first, second = (
        train_lista(LISTA(d, LISTAConfig(3)), lambda step: (x, None), cfg).infer(x)
        for _ in range(2)
    )
    assert torch.equal(first, second)


def test_lateral_weights_are_added() -> None:
    """The sign that the lecture's notes have wrong."""
    x, d = data()
    model = LISTA(d, LISTAConfig(1, lam=0.0))
    rate = 1 / largest_eigenvalue(d)
    lateral = model.get_parameter("blocks.0.lateral").detach()
    torch.testing.assert_close(lateral, torch.eye(N, dtype=x.dtype) - rate * d.T @ d)


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="kind is 'deep'; it must be one of full, coupled, step"):
        LISTAConfig(kind="deep")  # type: ignore[arg-type]
