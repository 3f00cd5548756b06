"""Metrics on cases whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sparse_gan import metrics


def test_decibels() -> None:
    truth = torch.ones(4, 5)
    assert metrics.nmse_db(torch.zeros(4, 5), truth) == pytest.approx(0)
    assert metrics.nmse_db(0.9 * truth, truth) == pytest.approx(-20, abs=1e-4)
    assert metrics.snr_db(truth, 0.99 * truth) == pytest.approx(40, abs=1e-3)
    assert math.isnan(metrics.snr_db(torch.zeros(4, 5), truth))


def test_counts() -> None:
    z = torch.tensor([[0.0, 1.0, 0.0, -2.0], [0.0, 0.0, 0.0, 1.0]])
    assert metrics.active_fraction(z) == 3 / 8
    assert metrics.dead_units(z) == 2
    assert metrics.objective_gap(torch.tensor([1.1, 2.0]), torch.ones(2)) == pytest.approx(0.55)


def test_invariance_is_scale_free() -> None:
    f = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    assert metrics.invariance(f, f, f.roll(1, 0)) == 0
    assert metrics.invariance(f, f.roll(1, 0), f.roll(1, 0)) == pytest.approx(1)
    moved = f + 0.1
    assert metrics.invariance(9 * f, 9 * moved, 9 * f.roll(1, 0)) == pytest.approx(
        metrics.invariance(f, moved, f.roll(1, 0)), rel=1e-5
    )


def gratings(angles: list[float], frequency: float, size: int = 12) -> NDArray[np.float64]:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    window = np.exp(-(x**2 + y**2) / (2 * 3.0**2))
    return np.array(
        [window * np.cos(2 * np.pi * frequency * (np.cos(a) * x + np.sin(a) * y)) for a in angles]
    )


def test_tuning_of_gratings() -> None:
    angles = [0.0, 0.4, 1.2, 2.0, 3.0]
    for frequency in (0.15, 0.25):
        angle, found = metrics.tuning(gratings(angles, frequency))
        error = np.abs(angle - angles) % np.pi
        assert np.minimum(error, np.pi - error).max() < 0.03
        np.testing.assert_allclose(found, frequency, rtol=0.1)


def test_an_ordered_map_is_told_from_a_shuffled_one() -> None:
    side = 8
    angles = [np.pi * column / side for _ in range(side) for column in range(side)]
    atoms = gratings(angles, 0.2)
    ordered = metrics.topography(atoms, side, shuffles=200)
    assert ordered["orientation"] < 0.4
    assert ordered["orientation_p"] < 0.01
    order = np.random.default_rng(1).permutation(side * side)
    shuffled = metrics.topography(atoms[order], side, shuffles=200)
    assert shuffled["orientation"] > 0.8
    assert shuffled["orientation_p"] > 0.01
