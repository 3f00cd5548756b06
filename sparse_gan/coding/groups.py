"""Group sparsity: disjoint groups by their exact prox, overlapping pools, lateral inhibition.

The penalty of pools is sum_p sqrt(sum_k w_pk z_k^2), as in Kavukcuoglu et al. 2009, "Learning
invariant features through topographic filter maps"; on a torus its neighbours become alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from sparse_gan.checks import InputError, check_batch, check_number
from sparse_gan.coding.ista import Lasso, largest_eigenvalue
from sparse_gan.coding.prox import block_soft_threshold, group_norms


def check_groups(groups: Sequence[Sequence[int]], units: int) -> Tensor:
    """Return (N,) int64, the group of each unit, from lists of units.

    Raises:
        InputError: the groups overlap, leave a unit out, or name one that is not there.
    """
    group = torch.full((units,), -1)
    for number, members in enumerate(groups):
        for unit in members:
            if not 0 <= unit < units:
                raise InputError(f"group {number} names unit {unit}; there are 0 to {units - 1}")
            if group[unit] >= 0:
                raise InputError(
                    f"unit {unit} is in groups {int(group[unit])} and {number}; groups must be "
                    "disjoint (for overlapping ones see `torus_pools`)"
                )
            group[unit] = number
        if not members:
            raise InputError(f"group {number} is empty; leave it out")
    missing = (group < 0).nonzero()[:, 0].tolist()
    if missing:
        raise InputError(f"no group covers unit {missing[0]}; {len(missing)} of {units} are left")
    return group


def check_pools(pools: Tensor, units: int) -> Tensor:
    """Return weights (P, N) of pools that cover all units; else `InputError`."""
    if pools.ndim != 2 or pools.shape[1] != units:
        raise InputError(f"pools have shape {tuple(pools.shape)}; they must be (pools, {units})")
    if not bool((pools >= 0).all()):
        raise InputError("pools have a weight that is below 0 or not a number")
    missing = (pools.sum(0) == 0).nonzero()[:, 0].tolist()
    if missing:
        raise InputError(f"no pool covers unit {missing[0]}; {len(missing)} of {units} are left")
    return pools


def torus_pools(side: int, size: int = 6, stride: int = 3, spread: float | None = None) -> Tensor:
    """Gaussian weights (P, side^2) of square pools on a torus of side x side units.

    Args:
        side: length of the torus; unit (row, column) has the number row * side + column.
        size: side of a pool.
        stride: distance of two pools; where it does not divide the side, the last two are closer.
        spread: standard deviation of the Gaussian, in units; None takes size / 4.

    Raises:
        InputError: sizes that leave units uncovered or do not fit.
    """
    check_number("size", size, 1, side)
    check_number("stride", stride, 1, size)
    deviation = size / 4 if spread is None else spread
    check_number("spread", deviation, 0, above=True)
    starts = torch.arange(0, side, stride)
    centre = starts + (size - 1) / 2
    away = (torch.arange(side)[None] - centre[:, None] + side / 2) % side - side / 2
    along = torch.exp(-0.5 * (away / deviation) ** 2) * (away.abs() <= size / 2)
    pools = torch.einsum("ar,bc->abrc", along, along).reshape(-1, side * side)
    return pools / pools.sum(1, keepdim=True).clamp_min(1e-12)


def pooled(z: Tensor, pools: Tensor, floor: float = 0.0) -> Tensor:
    """Features sqrt(floor + sum_k w_pk z_k^2), (B, P), of codes (B, N)."""
    return (z.square() @ pools.T + floor).sqrt()


@dataclass(frozen=True)
class GroupLasso(Lasso):
    """1/2 ||x - D z||^2 + lam sum_g ||z_g||_2 for disjoint groups."""

    group: Tensor | None = None
    """(N,) int64 from `check_groups`"""

    def __post_init__(self) -> None:
        """Refuse what cannot be coded."""
        super().__post_init__()
        if self.group is None or self.group.shape != self.dictionary.shape[1:]:
            raise InputError(f"group must name the group of each of {self.dictionary.shape[1]}")
        if self.nonnegative:
            raise InputError("nonnegative is True; groups have codes of both signs")

    @property
    def _group(self) -> Tensor:
        assert self.group is not None
        return self.group

    def _norms(self, z: Tensor) -> Tensor:
        return group_norms(z, self._group, int(self._group.max()) + 1)

    def penalty(self, z: Tensor) -> Tensor:
        """Weighted sum of the groups' lengths (B,)."""
        return self.lam * self._norms(z).sum(1)

    def prox(self, v: Tensor, step: Tensor | float) -> Tensor:
        """Block soft threshold at lam * step."""
        return block_soft_threshold(v, self.lam * step, self._group)

    def gap(self, z: Tensor) -> Tensor:
        """Duality gap (B,) over ||x||^2; the dual norm is the largest length of a group."""
        residual = self.x - z @ self.dictionary.T
        return self.gap_of(z, residual, self._norms(residual @ self.dictionary).amax(1))


@dataclass(frozen=True)
class PooledProblem:
    """1/2 ||x - D z||^2 + lam sum_p sqrt(floor + sum_k w_pk z_k^2): smooth, the pools overlapping.

    With ``anchor``, beta/2 ||z - anchor||^2 is added: the encoder's guess.
    """

    x: Tensor
    """(B, M)"""
    dictionary: Tensor
    """(M, N)"""
    pools: Tensor
    """(P, N)"""
    lam: float
    """weight of the pools"""
    floor: float = 1e-4
    """keeps the square root smooth at 0"""
    anchor: Tensor | None = None
    """(B, N)"""
    beta: float = 0.0
    """weight of the distance to the anchor"""

    @cached_property
    def lipschitz(self) -> float:
        """Bound on the curvature, that of the pools at 0 included; the line search finds better."""
        curved: float = self.lam * float(self.pools.sum(0).max()) / math.sqrt(self.floor)
        return largest_eigenvalue(self.dictionary) + curved + self.beta

    def zeros(self) -> Tensor:
        """Codes (B, N) of 0."""
        return self.x.new_zeros(self.x.shape[0], self.dictionary.shape[1])

    def smooth(self, z: Tensor) -> Tensor:
        """The whole energy (B,)."""
        error = 0.5 * (self.x - z @ self.dictionary.T).square().sum(1)
        energy = error + self.lam * pooled(z, self.pools, self.floor).sum(1)
        if self.anchor is not None:
            energy = energy + 0.5 * self.beta * (z - self.anchor).square().sum(1)
        return energy

    def gradient(self, z: Tensor) -> Tensor:
        """Slope of the energy (B, N)."""
        slope = (z @ self.dictionary.T - self.x) @ self.dictionary
        slope = slope + self.lam * z * (1 / pooled(z, self.pools, self.floor) @ self.pools)
        return slope if self.anchor is None else slope + self.beta * (z - self.anchor)

    def penalty(self, z: Tensor) -> Tensor:
        """Nothing is left that is not smooth."""
        return z.new_zeros(z.shape[0])

    def prox(self, v: Tensor, step: Tensor | float) -> Tensor:
        """Return v."""
        return v

    def gap(self, z: Tensor) -> None:
        """No bound is known."""

    def rows(self, index: Tensor) -> PooledProblem:
        """Return the problem of some of the rows."""
        anchor = None if self.anchor is None else self.anchor[index]
        return replace(self, x=self.x[index], anchor=anchor)


@dataclass(frozen=True)
class LateralProblem:
    """`1/2 ||x - D z||^2 + |z|^T S |z|` (Gregor, Szlam & LeCun 2011), for z = u[:, :N] - u[:, N:].

    Splitting z into its two signs makes the energy smooth on u >= 0, so that projected gradients
    never raise it; for z it is the same, since a shared part of both signs only costs.
    """

    x: Tensor
    """(B, M)"""
    dictionary: Tensor
    """(M, N)"""
    inhibition: Tensor
    """S (N, N), symmetric, at least 0"""

    def __post_init__(self) -> None:
        """Refuse what is not an inhibition."""
        check_batch(self.x, self.dictionary.shape[0])
        s, n = self.inhibition, self.dictionary.shape[1]
        if s.shape != (n, n) or not bool((s >= 0).all()) or not torch.equal(s, s.T):
            raise InputError(
                f"inhibition (shape {tuple(s.shape)}) must be a symmetric ({n}, {n}) matrix "
                "without an entry below 0"
            )

    @cached_property
    def lipschitz(self) -> float:
        """Curvature on the pairs: twice that of D, four times that of S."""
        top = float(torch.linalg.matrix_norm(self.inhibition, 2))
        return 2 * largest_eigenvalue(self.dictionary) + 4 * top

    def zeros(self) -> Tensor:
        """Pairs (B, 2 N) of 0."""
        return self.x.new_zeros(self.x.shape[0], 2 * self.dictionary.shape[1])

    def code(self, u: Tensor) -> Tensor:
        """Codes z (B, N) of pairs u (B, 2 N)."""
        plus, minus = u.chunk(2, dim=1)
        return plus - minus

    def smooth(self, z: Tensor) -> Tensor:
        """The whole energy (B,) of pairs (B, 2 N)."""
        plus, minus = z.chunk(2, dim=1)
        size = plus + minus
        error = 0.5 * (self.x - (plus - minus) @ self.dictionary.T).square().sum(1)
        return error + ((size @ self.inhibition) * size).sum(1)

    def gradient(self, z: Tensor) -> Tensor:
        """Slope of the energy with respect to the pairs."""
        plus, minus = z.chunk(2, dim=1)
        slope = ((plus - minus) @ self.dictionary.T - self.x) @ self.dictionary
        push = 2 * (plus + minus) @ self.inhibition
        return torch.cat([slope + push, push - slope], dim=1)

    def penalty(self, z: Tensor) -> Tensor:
        """Nothing is left that is not smooth."""
        return z.new_zeros(z.shape[0])

    def prox(self, v: Tensor, step: Tensor | float) -> Tensor:
        """Projection on u >= 0."""
        return v.clamp_min(0)

    def gap(self, z: Tensor) -> None:
        """No bound is known: the energy need not be convex."""

    def rows(self, index: Tensor) -> LateralProblem:
        """Return the problem of some of the rows."""
        return replace(self, x=self.x[index])
