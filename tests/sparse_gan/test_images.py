"""Convolutional and local codes against their dense equivalents."""

from __future__ import annotations

import pytest
import torch

from sparse_gan.coding.convolutional import (
    ConvConfig,
    ConvLasso,
    ConvSparseCoding,
    analyse,
    convolution_bound,
    synthesise,
    train_convolutional,
)
from sparse_gan.coding.ista import Lasso, SolverConfig, minimise
from sparse_gan.coding.local import LocalAutoencoder, LocalConfig, train_local

B, C, H, W, K, S = 2, 1, 6, 7, 3, 3
GENERATOR = torch.Generator().manual_seed(0)
FILTERS = torch.randn(K, C, S, S, generator=GENERATOR, dtype=torch.float64)
X = torch.randn(B, C, H, W, generator=GENERATOR, dtype=torch.float64)
MAP = (K, H - S + 1, W - S + 1)


def dense() -> torch.Tensor:
    """The dictionary (H * W, codes) that the filters stand for."""
    units = torch.eye(K * MAP[1] * MAP[2], dtype=torch.float64).reshape(-1, *MAP)
    return synthesise(units, FILTERS).flatten(1).T


def test_it_is_sparse_coding_with_the_filters_at_every_place() -> None:
    conv, flat = ConvLasso(X, FILTERS, 0.5), Lasso(X.flatten(1), dense(), 0.5)
    assert conv.lipschitz == pytest.approx(flat.lipschitz, rel=2e-3)
    solver = SolverConfig(2000, tolerance=1e-12)
    z, expected = minimise(conv, solver).z, minimise(flat, solver).z
    energy = conv.smooth(z) + conv.penalty(z)
    torch.testing.assert_close(energy, flat.smooth(expected) + flat.penalty(expected))
    torch.testing.assert_close(conv.gap(z + 0.1), flat.gap(z.flatten(1) + 0.1))


@pytest.mark.parametrize("side", [12, 30, 96])
@pytest.mark.parametrize("line", [[1.0, -1, 0, 0, 0], [1.0, 1, 1, 1, 1], [0.2, -1, 3, -0.5, 1]])
def test_the_step_size_s_bound_is_above_the_truth(side: int, line: list[float]) -> None:
    column, row = torch.tensor(line, dtype=torch.float64), torch.ones(5, dtype=torch.float64)
    filters = torch.outer(column, row)[None, None]

    def exact(taps: torch.Tensor) -> float:
        """Squared norm of the convolution of lines, a band matrix."""
        places = range(side - len(taps) + 1)
        pad = torch.nn.functional.pad
        band = torch.stack([pad(taps, (n, side - len(taps) - n)) for n in places])
        return float(torch.linalg.matrix_norm(band, 2)) ** 2

    truth = exact(column) * exact(row)  # the filter is separable
    bound = convolution_bound(filters, (side, side))
    assert truth <= bound <= truth * (1.0011 if side == 12 else 1.06)


def test_the_bound_holds_for_many_filters_and_channels() -> None:
    for k, c, side in ((5, 2, 18), (2, 3, 15)):
        generator = torch.Generator().manual_seed(k)
        filters = torch.randn(k, c, S, S, generator=generator, dtype=torch.float64)
        units = torch.eye(c * side**2, dtype=torch.float64).reshape(-1, c, side, side)
        matrix = analyse(units, filters).flatten(1)
        truth = float(torch.linalg.matrix_norm(matrix, 2) ** 2)
        assert truth <= convolution_bound(filters, (side, side)) <= 1.1 * truth


def test_analysis_is_the_transpose_of_synthesis() -> None:
    z = torch.randn(B, *MAP, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    left = (synthesise(z, FILTERS) * X).sum()
    torch.testing.assert_close(left, (z * analyse(X, FILTERS)).sum())


def test_the_untrained_encoder_is_ista() -> None:
    model = ConvSparseCoding(FILTERS, ConvConfig(K, S, lam=0.3, layers=4), (H, W))
    problem = ConvLasso(X, model.filters.detach(), 0.3)
    expected = minimise(problem, SolverConfig(4, momentum=False)).z
    torch.testing.assert_close(model.encode(X).detach(), expected)
    assert torch.autograd.gradcheck(model.encode, (X[:1].clone().requires_grad_(True),))


def test_filters_and_encoder_learn() -> None:
    rows: list[dict[str, float]] = []
    x = X.float().repeat(4, 1, 1, 1)
    cfg = ConvConfig(K, S, lam=0.05, epochs=12, batch_size=4, learning_rate=1e-2)
    model = train_convolutional(x, cfg, 0, lambda **row: rows.append(row))
    assert rows[-1]["energy"] < rows[0]["energy"]
    assert rows[-1]["encoder_error"] < rows[0]["encoder_error"]
    torch.testing.assert_close(model.filters.flatten(1).norm(dim=1), torch.ones(K))
    assert torch.equal(train_convolutional(x, cfg, 0).filters, model.filters)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 1, 2, 9), "with height and width of at least 3"),
        (torch.zeros(0, 1, 9, 9), "x is empty"),
        (torch.full((1, 1, 9, 9), float("nan")), "x is nan"),
    ],
)
def test_images_that_do_not_fit(x: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_convolutional(x, ConvConfig(K, S), 0)


LOCAL = LocalConfig(8, 10, window=4, stride=2, units=2, pool=2, epochs=6, batch_size=5)


def test_each_place_sees_its_own_window_with_its_own_filters() -> None:
    model = LocalAutoencoder(LOCAL, 0).double()
    x = torch.randn(2, 1, 8, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = model.encode(x)
    assert z.shape == (2, 3 * 4, 2)
    place = 1 * 4 + 2  # second row, third column
    window = x[1, 0, 2:6, 4:8].flatten()
    torch.testing.assert_close(z[1, place], model.encoder[place] @ window)
    assert not torch.equal(model.encoder[0], model.encoder[1])


def test_local_decoding_is_the_transpose_of_encoding_at_the_start() -> None:
    model = LocalAutoencoder(LOCAL, 0).double()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 1, 8, 10, generator=generator, dtype=torch.float64)
    z = torch.randn(2, 12, 2, generator=generator, dtype=torch.float64)
    torch.testing.assert_close((model.decode(z) * x).sum(), (z * model.encode(x)).sum())
    assert torch.autograd.gradcheck(
        model.joint_energy, (x[:1].requires_grad_(True), z[:1].requires_grad_(True))
    )


def test_local_filters_learn_and_inference_lowers_the_energy() -> None:
    x = torch.randn(20, 1, 8, 10, generator=torch.Generator().manual_seed(0))
    rows: list[dict[str, float]] = []
    model = train_local(x, LOCAL, 0, lambda **row: rows.append(row))
    assert rows[-1]["energy"] < rows[0]["energy"]
    with torch.no_grad():
        before = model.joint_energy(x, model.encode(x))
        after = model.joint_energy(x, model.infer(x, 20))
        assert bool((after <= before + 1e-5).all())
        assert model(x).shape == (20, 2 * 3)


def test_the_local_curvature_is_a_bound_and_descent_is_stable() -> None:
    cfg = LocalConfig(8, 8, window=4, stride=1, units=16, pool=2, lam=0.5)
    model = LocalAutoencoder(cfg, 0).double()
    with torch.no_grad():
        model.decoder.fill_(0.25)  # all filters alike: the steepest that there is
        model.encoder.copy_(model.decoder)
    z = 0.01 * torch.randn(1, 25, 16, generator=torch.Generator().manual_seed(0)).double()
    x = torch.ones(1, 1, 8, 8, dtype=torch.float64)
    curved = torch.autograd.functional.hessian(lambda u: model.joint_energy(x, u).sum(), z)
    assert float(torch.linalg.eigvalsh(curved.reshape(400, 400))[-1]) <= model.curvature()
    with torch.no_grad():
        assert model.joint_energy(x, model.infer(x)) < model.joint_energy(x, model.encode(x))


def test_local_sizes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"LocalConfig\.height is 3"):
        LocalConfig(3, 10, window=4)
    with pytest.raises(ValueError, match=r"LocalConfig\.pool is 9"):
        LocalConfig(8, 10, window=4, pool=9)
