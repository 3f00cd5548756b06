"""Groups that must cover, pools on a torus, and three penalties by their optimality."""

from __future__ import annotations

import pytest
import torch

from sparse_gan.coding.groups import (
    GroupLasso,
    LateralProblem,
    PooledProblem,
    check_groups,
    check_pools,
    pooled,
    torus_pools,
)
from sparse_gan.coding.ista import Lasso, SolverConfig, minimise
from sparse_gan.coding.topographic import TopographicConfig, train_topographic

B, M, N = 4, 8, 12
GENERATOR = torch.Generator().manual_seed(0)
D = torch.randn(M, N, generator=GENERATOR, dtype=torch.float64)
D = D / D.norm(dim=0)
X = torch.randn(B, M, generator=GENERATOR, dtype=torch.float64)
EXACT = SolverConfig(4000, tolerance=1e-12)


def test_groups_of_one_are_the_lasso() -> None:
    group = check_groups([[unit] for unit in range(N)], N)
    ours = minimise(GroupLasso(X, D, 0.2, group=group), EXACT).z
    torch.testing.assert_close(ours, minimise(Lasso(X, D, 0.2), EXACT).z, rtol=0, atol=1e-5)


def test_group_codes_are_optimal_and_the_gap_is_a_bound() -> None:
    group = check_groups([[0, 5, 7], [1, 2], [3, 4, 6, 8], [9, 10, 11]], N)
    problem = GroupLasso(X, D, 0.3, group=group)
    z = minimise(problem, EXACT).z
    slope = problem.gradient(z)
    for g in range(4):
        part, push = z[:, group == g], slope[:, group == g]
        length = part.norm(dim=1)
        on = length > 0
        torch.testing.assert_close(push[on], -0.3 * part[on] / length[on, None], rtol=0, atol=1e-5)
        assert bool((push[~on].norm(dim=1) <= 0.3 + 1e-6).all())
    early = minimise(problem, SolverConfig(5)).z
    least = problem.smooth(z) + problem.penalty(z)
    reached = problem.smooth(early) + problem.penalty(early)
    assert bool((problem.gap(early) * X.square().sum(1) >= reached - least - 1e-9).all())


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([[0, 1]], "no group covers unit 2; 1 of 3 are left"),
        ([[0, 1], [1, 2]], "unit 1 is in groups 0 and 1"),
        ([[0, 1, 2, 3]], "group 0 names unit 3; there are 0 to 2"),
        ([[0, 1, 2], []], "group 1 is empty"),
    ],
)
def test_groups_that_do_not_fit(groups: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_groups(groups, 3)


def test_pools_wrap_around_and_overlap() -> None:
    pools = torus_pools(16, 6, 3)
    assert pools.shape == (36, 256)
    torch.testing.assert_close(pools.sum(1), torch.ones(36))
    grid = pools.reshape(6, 6, 16, 16)
    assert torch.equal(grid[0, 1] != 0, (grid[0, 0] != 0).roll(3, 1))
    assert int((grid[5, 5] != 0).sum()) == 36  # its right and lower half are at the other side
    assert bool((grid[5, 5][[0, 0, 15, 15], [0, 15, 0, 15]] > 0).all())
    assert float(grid[0, 0, 2, 2]) == float(grid[0, 0].max())
    check_pools(pools, 256)


@pytest.mark.parametrize("arguments", [(4, 5, 1), (4, 2, 3), (4, 2, 1, 0.0)])
def test_pools_that_do_not_fit(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="it must be"):
        torus_pools(*arguments)
    with pytest.raises(ValueError, match="no pool covers unit 1"):
        check_pools(torch.tensor([[1.0, 0.0]]), 2)


def test_pooled_features_do_not_know_the_sign() -> None:
    pools = torus_pools(4, 2, 1).double()
    z = torch.randn(3, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(pooled(z, pools), pooled(-z, pools))
    expected = sum(pools[5, k] * z[0, k] ** 2 for k in range(16)) ** 0.5
    assert float(pooled(z, pools)[0, 5]) == pytest.approx(float(expected))


@pytest.mark.parametrize("anchored", [False, True])
def test_the_pools_slope(anchored: bool) -> None:
    pools = torus_pools(4, 2, 1).double()
    d = torch.randn(M, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    anchor = torch.ones(B, 16, dtype=torch.float64) if anchored else None
    problem = PooledProblem(X, d, pools, 0.3, anchor=anchor, beta=0.7 * anchored)
    z = torch.randn(B, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    z.requires_grad_(True)
    (slope,) = torch.autograd.grad(problem.smooth(z).sum(), z)
    torch.testing.assert_close(problem.gradient(z.detach()), slope)
    assert torch.autograd.gradcheck(problem.smooth, (z,))
    found = minimise(problem, SolverConfig(3000, line_search=True)).z
    assert float(problem.gradient(found).abs().max()) < 1e-4


def test_lateral_inhibition_falls_and_silences_the_weaker() -> None:
    s = torch.zeros(N, N, dtype=torch.float64)
    free = minimise(LateralProblem(X, D, s), SolverConfig(3000)).z
    problem = LateralProblem(X, D, s)
    torch.testing.assert_close(problem.code(free) @ D.T, X, atol=1e-3, rtol=0)

    d = torch.eye(2, dtype=torch.float64)
    x = torch.tensor([[1.0, 0.6], [-0.5, 2.0]], dtype=torch.float64)
    pair = LateralProblem(x, d, torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64))
    found = minimise(pair, SolverConfig(500, momentum=False), record=True)
    assert all(a >= b - 1e-12 for a, b in zip(found.history, found.history[1:], strict=False))
    z = pair.code(found.z)
    torch.testing.assert_close(
        z, torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64), atol=1e-6, rtol=0
    )
    with pytest.raises(ValueError, match="symmetric"):
        LateralProblem(x, d, torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=torch.float64))


def test_a_map_learns_lowers_its_energy_in_inference_and_repeats() -> None:
    x = X.repeat(10, 1).float()
    cfg = TopographicConfig(side=4, pool=2, stride=1, epochs=15, batch_size=20)
    rows: list[dict[str, float]] = []
    model = train_topographic(x, cfg, 0, lambda **row: rows.append(row))
    assert rows[-1]["energy"] < rows[0]["energy"]
    torch.testing.assert_close(model.dictionary.norm(dim=0), torch.ones(16))
    with torch.no_grad():
        encoded = model.joint_energy(x, model.encode(x))
        inferred = model.joint_energy(x, model.infer(x, 50))
        assert bool((inferred <= encoded + 1e-5).all())
        assert model(x).shape == (40, 16)
    assert torch.equal(model.dictionary, train_topographic(x, cfg, 0).dictionary)
