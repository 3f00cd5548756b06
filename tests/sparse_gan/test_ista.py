"""FISTA against scikit-learn, against its own optimality conditions, and its bookkeeping."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sparse_gan.coding.ista import (
    FISTA,
    ISTA,
    ConvergenceWarning,
    Lasso,
    SolverConfig,
    largest_eigenvalue,
    minimise,
    unfinished,
)

B, M, N = 4, 12, 20


def problem(seed: int, lam: float = 0.2, nonnegative: bool = False) -> Lasso:
    generator = torch.Generator().manual_seed(seed)
    d = torch.randn(M, N, generator=generator, dtype=torch.float64)
    x = torch.randn(B, M, generator=generator, dtype=torch.float64)
    return Lasso(x, d / d.norm(dim=0), lam, nonnegative)


def energy(lasso: Lasso, z: Tensor) -> Tensor:
    return lasso.smooth(z) + lasso.penalty(z)


@pytest.mark.parametrize("seed", range(20))
def test_objective_equals_scikit_learns(seed: int) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    rng = np.random.default_rng(seed)
    lam, nonnegative = float(rng.uniform(0.02, 0.5)), bool(seed % 2)
    lasso = problem(seed, lam, nonnegative)
    ours = minimise(lasso, SolverConfig(steps=5000, tolerance=1e-10)).z
    theirs = decomposition.sparse_encode(
        lasso.x.numpy(),
        lasso.dictionary.T.numpy(),
        algorithm="lasso_cd",
        alpha=lam,
        max_iter=50_000,
        positive=nonnegative,
    )
    expected = energy(lasso, torch.from_numpy(theirs))
    torch.testing.assert_close(energy(lasso, ours), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("nonnegative", [False, True])
def test_codes_are_optimal(nonnegative: bool) -> None:
    lasso = problem(0, nonnegative=nonnegative)
    z = minimise(lasso, SolverConfig(steps=5000, tolerance=1e-14)).z
    slope = lasso.gradient(z)
    on = z != 0
    assert 0 < int(on.sum()) < on.numel()
    torch.testing.assert_close(slope[on], -lasso.lam * z[on].sign(), rtol=0, atol=1e-5)
    low = slope if nonnegative else -slope.abs()
    assert bool((low[~on] >= -lasso.lam - 1e-5).all())


def test_steps_are_those_of_the_equations() -> None:
    lasso = problem(1)
    rate = 1 / lasso.lipschitz
    for cfg in (ISTA, FISTA):
        z = y = lasso.zeros()
        t = 1.0
        for _ in range(7):
            v = y - rate * (y @ lasso.dictionary.T - lasso.x) @ lasso.dictionary
            new = v.sign() * (v.abs() - lasso.lam * rate).clamp_min(0)
            after = (1 + (1 + 4 * t * t) ** 0.5) / 2
            y = new + (t - 1) / after * (new - z) if cfg.momentum else new
            z, t = new, after
        steps = SolverConfig(7, momentum=cfg.momentum, restart=cfg.restart)
        torch.testing.assert_close(minimise(lasso, steps).z, z)


def test_the_wide_form_takes_the_same_steps() -> None:
    generator = torch.Generator().manual_seed(0)
    d = torch.randn(4, N, generator=generator, dtype=torch.float64)
    wide = Lasso(torch.randn(B, 4, generator=generator, dtype=torch.float64), d, 0.1)
    assert wide.gram is None
    z = torch.randn(B, N, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(wide.gradient(z), z @ d.T @ d - wide.x @ d)


def test_history_falls_for_ista_and_gap_bounds_the_energy() -> None:
    lasso = problem(2)
    found = minimise(lasso, SolverConfig(60, momentum=False), record=True)
    assert len(found.history) == 61
    assert all(a >= b - 1e-12 for a, b in zip(found.history, found.history[1:], strict=False))
    best = energy(lasso, minimise(lasso, SolverConfig(5000, tolerance=1e-14)).z)
    distance = (energy(lasso, found.z) - best) / lasso.x.square().sum(1)
    assert bool((lasso.gap(found.z) >= distance - 1e-12).all())


def test_rows_stop_on_their_own_and_change_nothing_for_the_others() -> None:
    lasso = problem(3)
    easy = Lasso(torch.cat([lasso.x, 1e-3 * lasso.x[:1]]), lasso.dictionary, lasso.lam)
    cfg = SolverConfig(steps=2000, tolerance=1e-8)
    found = minimise(easy, cfg)
    assert int(found.steps[-1]) == 10 < int(found.steps[:-1].max()) < 2000
    torch.testing.assert_close(found.z[:-1], minimise(lasso, cfg).z)
    assert bool((lasso.gap(found.z[:-1]) <= 1e-8).all())


def test_a_warm_start_is_not_slower_and_is_left_alone() -> None:
    lasso = problem(4)
    cfg = SolverConfig(steps=2000, tolerance=1e-8)
    cold = minimise(lasso, cfg)
    start = cold.z.clone()
    warm = minimise(lasso, cfg, start)
    assert int(warm.steps.max()) == 10 < int(cold.steps.max())
    assert torch.equal(start, cold.z)


def test_line_search_reaches_the_same_energy_without_the_constant() -> None:
    lasso = problem(5)
    blind = Lasso(lasso.x, lasso.dictionary, lasso.lam, known_lipschitz=1e-3)
    found = minimise(blind, SolverConfig(steps=3000, line_search=True, tolerance=1e-10))
    best = minimise(lasso, SolverConfig(steps=3000, tolerance=1e-10))
    torch.testing.assert_close(energy(lasso, found.z), energy(lasso, best.z), rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(M, N), (N, M), (1, N), (300, 301)])
def test_largest_eigenvalue_is_a_close_upper_bound(shape: tuple[int, int]) -> None:
    d = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = float(torch.linalg.matrix_norm(d, 2) ** 2)
    assert exact <= largest_eigenvalue(d) <= 1.0011 * exact
    assert exact <= largest_eigenvalue(d.float()) <= 1.0011 * exact


def test_rows_that_have_not_converged_are_flagged() -> None:
    lasso = problem(2)
    cfg = SolverConfig(25, tolerance=1e-3, check_every=10)
    found = minimise(lasso, cfg)
    assert torch.equal(found.converged, lasso.gap(found.z) <= 1e-3)
    assert not bool(minimise(lasso, SolverConfig(1, tolerance=1e-9)).converged.any())
    assert not bool(minimise(lasso, SolverConfig(500)).converged.any())  # nothing was asked for
    long = SolverConfig(2000, tolerance=1e-9)
    assert bool(minimise(lasso, long).converged.all())
    assert bool(minimise(lasso, long, record=True).converged.all())
    with pytest.warns(ConvergenceWarning, match=f"{2 * B} of {2 * B} codes stopped after 1 iterat"):
        cut = SolverConfig(1, tolerance=1e-9)
        unfinished([minimise(lasso, cut), minimise(lasso, cut)], cut)


def test_zero_signal_has_zero_codes() -> None:
    lasso = problem(6)
    silent = Lasso(torch.zeros(2, M, dtype=torch.float64), lasso.dictionary, 0.1)
    found = minimise(silent, SolverConfig(50, tolerance=1e-6))
    assert not bool(found.z.any())
    assert found.steps.tolist() == [10, 10]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.full((2, M), float("nan"))}, r"x is nan at \(0, 0\)"),
        ({"x": torch.zeros(0, M)}, "x is empty"),
        ({"x": torch.zeros(2, M + 1)}, f"x has {M + 1} features.*must have {M}"),
        ({"x": torch.zeros(M)}, "must be \\(samples, features\\)"),
        ({"x": torch.zeros(2, M, dtype=torch.int64)}, "dtype torch.int64"),
        ({"dictionary": torch.eye(M)[:, [0, 1, 1]] * torch.tensor([1.0, 1, 0])}, "column 2"),
        ({"lam": -0.1}, "lam is -0.1; it must be at least 0"),
        ({"lam": float("nan")}, "lam is nan"),
    ],
)
def test_what_cannot_be_coded_is_named(change: dict[str, object], message: str) -> None:
    arguments = {"x": torch.ones(2, M), "dictionary": torch.eye(M), "lam": 0.1, **change}
    with pytest.raises(ValueError, match=message):
        Lasso(**arguments)  # type: ignore[arg-type]  # some are wrong on purpose
