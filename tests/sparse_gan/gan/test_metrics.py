"""Distances against closed forms, loops and sets whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from sparse_gan.gan.metrics import (
    Extractor,
    Features,
    compare,
    frechet_distance,
    kernel_distance,
    manifold_figures,
    random_extractor,
)
from worldmodels.protocols import UserError
from worldmodels.runs import derive_seed

B, N = 200, 3


def drawn(count: int = B, dims: int = N, seed: int = 0) -> Features:
    return np.random.default_rng(seed).normal(size=(count, dims))


def test_frechet_distance_equals_the_formula_with_a_matrix_root() -> None:
    a, b = drawn(), drawn(seed=1) @ np.array([[2.0, 0, 0], [1, 1, 0], [0, 0, 0.5]]) + 0.3
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    mean = a.mean(0) - b.mean(0)
    expected = mean @ mean + np.trace(first + second - 2 * np.real(sqrtm(first @ second)))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_of_a_shift_is_its_square_even_where_the_covariance_is_singular() -> None:
    few = drawn(5, 20)
    assert frechet_distance(few, few + 0.5) == pytest.approx(20 * 0.25, rel=1e-6)
    collapsed = np.zeros((5, 20))
    assert np.isfinite(frechet_distance(few, collapsed))


def test_kernel_distance_equals_a_loop() -> None:
    x, y = drawn(6), drawn(6, seed=1) + 1

    def kernel(u: Features, v: Features) -> float:
        return float((sum(a * b for a, b in zip(u, v, strict=True)) / N + 1) ** 3)

    within = (
        sum(kernel(s[i], s[j]) for s in (x, y) for i in range(6) for j in range(6) if i != j) / 30
    )
    across = sum(kernel(u, v) for u in x for v in y) * 2 / 36
    mean, deviation = kernel_distance(x, y)
    assert mean == pytest.approx(within - across, rel=1e-9)
    assert deviation is None  # each subset is the whole set, and too small


@pytest.mark.parametrize(("count", "shift"), [(60, 0.0), (60, 0.8), (150, 0.3), (700, 0.3)])
def test_kernel_distance_s_deviation_is_that_of_repeated_draws(count: int, shift: float) -> None:
    size = min(count, 500)
    pairs = [(drawn(count, seed=2 * s), drawn(count, seed=2 * s + 1) + shift) for s in range(40)]
    found = [kernel_distance(a, b, size, subsets=1) for a, b in pairs]
    claimed = [deviation for _, deviation in found if deviation is not None]
    assert len(claimed) == len(found)
    assert np.mean(claimed) == pytest.approx(np.std([mean for mean, _ in found]), rel=0.35)


def test_kernel_distance_of_many_samples_takes_its_deviation_from_the_subsets() -> None:
    a, b = drawn(400), drawn(400, seed=1) + 0.3
    mean, deviation = kernel_distance(a, b, size=100, subsets=8)
    rng = np.random.default_rng(derive_seed(0, "kid"))
    found = []
    for _ in range(8):
        x, y = (s[rng.choice(400, 100, replace=False)] for s in (a, b))
        found.append(kernel_distance(x, y, subsets=1)[0])
    assert (mean, deviation) == pytest.approx((np.mean(found), np.std(found)))


def test_kernel_distance_is_unbiased() -> None:
    found = [kernel_distance(drawn(seed=s), drawn(seed=100 + s), subsets=1)[0] for s in range(40)]
    assert abs(np.mean(found)) < 3 * np.std(found) / 40**0.5


def test_manifolds_of_known_sets() -> None:
    real = drawn(dims=2)
    same = manifold_figures(real, real)
    assert (same["precision"], same["recall"], same["coverage"]) == (1.0, 1.0, 1.0)
    assert manifold_figures(real, real + 100) == {
        "precision": 0.0,
        "recall": 0.0,
        "density": 0.0,
        "coverage": 0.0,
    }
    half = real[real[:, 0] > 0]
    found = manifold_figures(real, half)
    assert found["precision"] == 1.0
    assert 0.3 < found["recall"] < 0.8
    assert 0.3 < found["coverage"] < 0.8


def test_density_and_coverage_equal_loops() -> None:
    real, fake, k = drawn(12, 2), drawn(9, 2, seed=1), 3
    radius = [sorted(float(np.linalg.norm(r - s)) for s in real)[k] for r in real]
    near = [
        [float(np.linalg.norm(r - f)) <= edge for f in fake]
        for r, edge in zip(real, radius, strict=True)
    ]
    found = manifold_figures(real, fake, k)
    assert found["density"] == pytest.approx(sum(map(sum, near)) / (k * 9))
    assert found["coverage"] == pytest.approx(sum(any(row) for row in near) / 12)


def test_the_random_extractor_is_fixed_and_named() -> None:
    x = torch.rand(20, 1, 32, 32) * 2 - 1
    a, b = random_extractor(1), random_extractor(1)
    assert np.array_equal(a(x), b(x, chunk=7)) or np.allclose(a(x), b(x, chunk=7), atol=1e-5)
    assert not np.allclose(a(x), random_extractor(1, seed=1)(x))
    figures = compare(x, x.flip(3), a, k=3)
    assert "frechet_distance[random-conv-64-0]" in figures
    assert all(name.endswith("[random-conv-64-0]") for name in figures)
    blurred = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    worse = compare(x, blurred, a, k=3)
    name = "frechet_distance[random-conv-64-0]"
    assert worse[name] > figures[name]


def test_what_cannot_be_compared() -> None:
    with pytest.raises(UserError, match=r"features are \(200, 3\) and \(200, 2\)"):
        frechet_distance(drawn(), drawn(dims=2))
    with pytest.raises(UserError, match="at least 2 of each"):
        frechet_distance(drawn(1), drawn())
    with pytest.raises(UserError, match="k is 5; it must be at least 1 and below"):
        manifold_figures(drawn(5), drawn(5))
    broken = Extractor("broken", lambda x: x.flatten(1) * torch.nan)
    with pytest.raises(UserError, match="broken gives features that are not finite"):
        broken(torch.zeros(2, 1, 2, 2))
