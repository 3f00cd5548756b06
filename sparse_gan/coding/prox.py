"""Proximal operators and projections in closed form.

The prox of t g is argmin_u 1/2 ||u - v||^2 + t g(u). All are
differentiable almost everywhere and never change their arguments.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sparse_gan.checks import InputError


def soft_threshold(v: Tensor, threshold: Tensor | float) -> Tensor:
    """Prox of ``threshold * ||u||_1``: ``sign(v) max(|v| - threshold, 0)``.

    Args:
        v: (B, ...) any values.
        threshold: at least 0; a number or a tensor that broadcasts to v.
    """
    if isinstance(threshold, Tensor):
        return v - torch.maximum(torch.minimum(v, threshold), -threshold)
    return functional.softshrink(v, float(threshold))


def nonnegative_soft_threshold(v: Tensor, threshold: Tensor | float) -> Tensor:
    """Prox of ``threshold * ||u||_1`` subject to u >= 0: max(v - threshold, 0)."""
    return functional.relu(v - threshold)


def group_norms(v: Tensor, group: Tensor, count: int) -> Tensor:
    """Euclidean norms (B, G) of the groups of v (B, N), group (N,) saying which one each is in."""
    zeros = v.new_zeros(v.shape[0], count)
    return zeros.index_add(1, group, v.square()).clamp_min(0).sqrt()


def block_soft_threshold(v: Tensor, threshold: Tensor | float, group: Tensor) -> Tensor:
    """Prox of ``threshold * sum_g ||u_g||_2`` for disjoint groups (Yuan & Lin 2006).

    Each group is shortened by ``threshold`` in its own direction, or is 0 if it was shorter.

    Args:
        v: (B, N).
        threshold: a number, a column (B, 1), or (G,) or (B, G), one for each group.
        group: (N,) int64, the group of each component, 0 to G - 1.
    """
    count = int(group.max()) + 1
    square = v.new_zeros(v.shape[0], count).index_add(1, group, v.square())
    # The square root has no derivative at 0, where the result is 0 whatever the threshold.
    norm = torch.where(square > 0, square, torch.ones_like(square)).sqrt()
    scale = torch.where(square > 0, functional.relu(1 - threshold / norm), torch.zeros_like(norm))
    return v * scale[:, group]


def bound_columns(matrix: Tensor, length: float) -> Tensor:
    """Projection on matrices whose columns are no longer than ``length``; shorter ones stay."""
    norm = torch.linalg.vector_norm(matrix, dim=0, keepdim=True)
    return matrix * torch.where(norm > length, length / norm, torch.ones_like(norm))


def bound_rows(matrix: Tensor, length: float) -> Tensor:
    """Projection on matrices whose rows are no longer than ``length``; shorter ones stay."""
    return bound_columns(matrix.T, length).T


def unit_columns(matrix: Tensor) -> Tensor:
    """Scale every column to length 1.

    Raises:
        InputError: a column is all 0.
    """
    norm = torch.linalg.vector_norm(matrix, dim=0, keepdim=True)
    if bool((norm == 0).any()):
        column = int((norm[0] == 0).nonzero()[0])
        raise InputError(f"column {column} is all 0; it cannot be scaled to length 1")
    unit: Tensor = matrix / norm
    return unit
