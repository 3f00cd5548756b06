"""Proximal operators by their optimality conditions, on whatever hypothesis can think of."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from sparse_gan.coding import prox

B, N = 3, 6
GROUP = torch.tensor([0, 1, 0, 2, 1, 2])
values = hnp.arrays("float64", (B, N), elements=st.floats(-10, 10, width=32)).map(torch.from_numpy)
thresholds = st.floats(0, 5, width=32)
CLOSE = 1e-9
quick = settings(max_examples=60, deadline=None)


@quick
@given(values, thresholds)
def test_soft_threshold_is_optimal(v: Tensor, t: float) -> None:
    """0 is in u - v + t * subdifferential of |u|."""
    u = prox.soft_threshold(v, t)
    slope = v - u
    assert torch.allclose(slope[u != 0], t * u[u != 0].sign(), atol=CLOSE)
    assert bool((slope[u == 0].abs() <= t + CLOSE).all())
    assert torch.equal(u, prox.soft_threshold(v, torch.tensor(t, dtype=torch.float64)))


@quick
@given(values, thresholds)
def test_nonnegative_soft_threshold_is_optimal(v: Tensor, t: float) -> None:
    u = prox.nonnegative_soft_threshold(v, t)
    slope = u - v + t
    assert bool((u >= 0).all())
    assert bool((slope >= -CLOSE).all())
    assert torch.allclose(slope * u, torch.zeros_like(u), atol=1e-8)


@quick
@given(values, thresholds)
def test_block_soft_threshold_is_optimal(v: Tensor, t: float) -> None:
    u = prox.block_soft_threshold(v, t, GROUP)
    for g in range(3):
        part, slope = u[:, GROUP == g], (v - u)[:, GROUP == g]
        length = part.norm(dim=1, keepdim=True)
        on = length[:, 0] > 0
        assert torch.allclose(slope[on], t * part[on] / length[on], atol=1e-7)
        assert bool((slope[~on].norm(dim=1) <= t + 1e-6).all())


@quick
@given(values, values, thresholds)
def test_no_prox_widens_a_distance(v: Tensor, w: Tensor, t: float) -> None:
    operators: list[Callable[[Tensor], Tensor]] = [
        lambda a: prox.soft_threshold(a, t),
        lambda a: prox.nonnegative_soft_threshold(a, t),
        lambda a: prox.block_soft_threshold(a, t, GROUP),
    ]
    for operator in operators:
        assert float((operator(v) - operator(w)).norm()) <= float((v - w).norm()) + CLOSE


@quick
@given(values, st.floats(0.125, 4, width=32))
def test_projections_are_the_nearest_points(v: Tensor, length: float) -> None:
    u = prox.bound_columns(v, length)
    assert bool((u.norm(dim=0) <= length * (1 + CLOSE)).all())
    inside = v.norm(dim=0) <= length
    assert torch.equal(u[:, inside], v[:, inside])
    # For any other point w inside the ball, (v - u) . (w - u) <= 0.
    w = length * torch.nn.functional.normalize(torch.ones_like(v), dim=0)
    assert bool((((v - u) * (w - u)).sum(0) <= 1e-8).all())
    torch.testing.assert_close(prox.bound_rows(v.T, length), u.T)


@settings(max_examples=20, deadline=None)
@given(hnp.arrays("float64", (2, N), elements=st.floats(0.5, 3)), st.floats(0.1, 0.4))
def test_gradients(array: object, t: float) -> None:
    v = torch.as_tensor(array) * torch.tensor([1.0, -1, 1, -1, 1, 1], dtype=torch.float64)
    v.requires_grad_(True)
    threshold = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    for operator in (prox.soft_threshold, prox.nonnegative_soft_threshold):
        assert torch.autograd.gradcheck(operator, (v, threshold))
    assert torch.autograd.gradcheck(
        lambda a, b: prox.block_soft_threshold(a, b, GROUP), (v, threshold)
    )


def test_unit_columns() -> None:
    unit = prox.unit_columns(torch.tensor([[3.0, 0.0], [4.0, -2.0]]))
    torch.testing.assert_close(unit, torch.tensor([[0.6, 0.0], [0.8, -1.0]]))
    with pytest.raises(ValueError, match="column 1 is all 0"):
        prox.unit_columns(torch.tensor([[1.0, 0.0]]))


def test_the_gradient_of_a_group_of_zeros_is_zero() -> None:
    v = torch.zeros(1, N, requires_grad=True)
    prox.block_soft_threshold(v, 0.1, GROUP).sum().backward()
    assert v.grad is not None
    assert torch.equal(v.grad, torch.zeros_like(v))
