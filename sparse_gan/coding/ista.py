"""ISTA and FISTA (Beck & Teboulle 2009) for whole batches, each row with its own momentum and end.

`minimise` takes any `Problem`, a smooth part plus one with a proximal operator; `Lasso` is the one
that sparse coding is about.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from sparse_gan.checks import InputError, check_batch, check_dictionary, check_number
from sparse_gan.coding.prox import nonnegative_soft_threshold, soft_threshold
from worldmodels.config import Config, Count, CountOrZero, NotNegative


@dataclass(frozen=True)
class SolverConfig(Config):
    """How far and in which way to minimise."""

    steps: CountOrZero = 200
    """most iterations"""
    momentum: bool = True
    """FISTA; without it, ISTA"""
    restart: bool = True
    """drop a row's momentum when it points uphill (O'Donoghue & Candes 2015)"""
    line_search: bool = False
    """find each row's step by backtracking, in place of 1 / L throughout"""
    tolerance: NotNegative = 0.0
    """a row is done when its duality gap is below this fraction of ||x||^2; 0 makes all steps"""
    check_every: Count = 10
    """iterations between two looks at the duality gap"""


MARGIN = 1.001
"""Factor on largest eigenvalues, for rounding."""
ISTA = SolverConfig(momentum=False)
FISTA = SolverConfig(restart=False)


class Problem(Protocol):
    """f(z) + g(z), row by row: f smooth, g with a proximal operator."""

    @property
    def lipschitz(self) -> float:
        """A bound on the curvature of f."""

    def zeros(self) -> Tensor:
        """Where to start, (B, ...)."""

    def smooth(self, z: Tensor) -> Tensor:
        """The smooth part (B,)."""

    def gradient(self, z: Tensor) -> Tensor:
        """df/dz, of z's shape."""

    def penalty(self, z: Tensor) -> Tensor:
        """The other part (B,)."""

    def prox(self, v: Tensor, step: Tensor | float) -> Tensor:
        """Minimise ``1/2 ||u - v||^2 + step * g(u)`` over u."""

    def gap(self, z: Tensor) -> Tensor | None:
        """Bound (B,) on the distance to the least energy, in units of ||x||^2; None: unknown."""

    def rows(self, index: Tensor) -> Problem:
        """Return the problem of some of the rows."""


@dataclass(frozen=True)
class Solution:
    """What `minimise` found."""

    z: Tensor
    """(B, ...)"""
    steps: Tensor
    """(B,) iterations that each row took"""
    history: list[float]
    """mean of f + g before the first iteration and after each one; empty unless asked for"""
    converged: Tensor
    """(B,) whether the duality gap is within the tolerance; False throughout where the tolerance is
    0 or the problem has no such bound"""


class ConvergenceWarning(UserWarning):
    """Some rows stopped at the last iteration, with a duality gap above the tolerance."""


def unfinished(solutions: Sequence[Solution], cfg: SolverConfig) -> None:
    """Warn where rows did not come within the tolerance that was asked for.

    Args:
        solutions: of the parts of one batch, in a `Problem` whose gap is known.
        cfg: what they were minimised with; a tolerance of 0 asks for nothing.
    """
    unfinished = sum(int((~s.converged).sum()) for s in solutions)
    if cfg.tolerance > 0 and unfinished:
        rows = sum(len(s.converged) for s in solutions)
        warnings.warn(
            f"{unfinished} of {rows} codes stopped after {cfg.steps} iterations with a duality gap "
            f"above {cfg.tolerance:g} of ||x||^2; allow more iterations or a larger tolerance",
            ConvergenceWarning,
            stacklevel=3,
        )


@dataclass(frozen=True)
class Lasso:
    """1/2 ||x - D z||^2 + lam ||z||_1 for every row, optionally with z >= 0."""

    x: Tensor
    """(B, M)"""
    dictionary: Tensor
    """(M, N)"""
    lam: float
    """weight of the L1 norm"""
    nonnegative: bool = False
    """whether codes below 0 are forbidden"""
    known_lipschitz: float | None = None
    """largest eigenvalue of D^T D, if it was computed before"""

    def __post_init__(self) -> None:
        """Refuse what cannot be coded."""
        check_dictionary(self.dictionary)
        check_batch(self.x, self.dictionary.shape[0])
        check_number("lam", self.lam, 0)

    @cached_property
    def lipschitz(self) -> float:
        """Largest eigenvalue of D^T D."""
        if self.known_lipschitz is not None:
            return self.known_lipschitz
        return largest_eigenvalue(self.dictionary)

    @cached_property
    def gram(self) -> Tensor | None:
        """D^T D (N, N), where a product with it is cheaper than two with D."""
        m, n = self.dictionary.shape
        return self.dictionary.T @ self.dictionary if n <= 2 * m else None

    @cached_property
    def correlation(self) -> Tensor:
        """Products x D (B, N)."""
        return self.x @ self.dictionary

    def zeros(self) -> Tensor:
        """Codes (B, N) of 0."""
        return self.x.new_zeros(self.x.shape[0], self.dictionary.shape[1])

    def smooth(self, z: Tensor) -> Tensor:
        """Half the squared error (B,)."""
        return 0.5 * (self.x - z @ self.dictionary.T).square().sum(1)

    def gradient(self, z: Tensor) -> Tensor:
        """D^T (D z - x), (B, N)."""
        if self.gram is not None:
            return torch.addmm(self.correlation, z, self.gram, beta=-1)
        return (z @ self.dictionary.T - self.x) @ self.dictionary

    def penalty(self, z: Tensor) -> Tensor:
        """Weighted L1 norm (B,)."""
        return self.lam * z.abs().sum(1)

    def prox(self, v: Tensor, step: Tensor | float) -> Tensor:
        """Soft threshold at lam * step."""
        shrink = nonnegative_soft_threshold if self.nonnegative else soft_threshold
        return shrink(v, self.lam * step)

    def gap(self, z: Tensor) -> Tensor:
        """Duality gap (B,) over ||x||^2, with the scaled residual as the dual point."""
        residual = self.x - z @ self.dictionary.T
        slope = residual @ self.dictionary
        return self.gap_of(z, residual, (slope if self.nonnegative else slope.abs()).amax(1))

    def gap_of(self, z: Tensor, residual: Tensor, dual_norm: Tensor) -> Tensor:
        """Duality gap (B,), given x - D z (B, M) and the dual norm (B,) of D^T times it."""
        shrunk = self.lam / dual_norm
        dual = (
            torch.where(dual_norm > self.lam, shrunk, torch.ones_like(shrunk))[:, None] * residual
        )
        primal = 0.5 * residual.square().sum(1) + self.penalty(z)
        bound = (dual * self.x).sum(1) - 0.5 * dual.square().sum(1)
        return (primal - bound) / self.x.square().sum(1).clamp_min(torch.finfo(z.dtype).tiny)

    def rows(self, index: Tensor) -> Lasso:
        """Return the problem of some of the rows; what was computed of D is kept."""
        part = object.__new__(type(self))
        part.__dict__.update(self.__dict__)
        part.__dict__["x"] = self.x[index]
        part.__dict__["correlation"] = self.correlation[index]
        return part


def largest_eigenvalue(dictionary: Tensor) -> float:
    """Largest eigenvalue of D^T D, of the smaller of D^T D and D D^T in double precision.

    A thousandth is added for rounding in the iterations: a step must not be above 1 / L. A power
    iteration would not do, for its estimate comes from below.

    Raises:
        InputError: the dictionary (M, N) is all 0, or not finite.
    """
    d = dictionary.detach().double()
    gram = d.T @ d if d.shape[1] <= d.shape[0] else d @ d.T
    value = float(torch.linalg.eigvalsh(gram)[-1]) if bool(gram.isfinite().all()) else math.nan
    if not 0 < value < math.inf:
        raise InputError(f"the largest eigenvalue is {value}; the dictionary must not be all 0")
    return value * MARGIN


@torch.no_grad()
def minimise(
    problem: Problem, cfg: SolverConfig, start: Tensor | None = None, record: bool = False
) -> Solution:
    """Minimise every row of a problem by (F)ISTA; rows that are done cost nothing from then on.

    Args:
        problem: the energy.
        cfg: how to minimise it.
        start: (B, ...) a warm start, in place of 0.
        record: keep the history of the energy; every row is then iterated to the last step.
    """
    z = problem.zeros() if start is None else start.detach().clone()
    count, wide = z.shape[0], (-1, *[1] * (z.ndim - 1))
    result, taken = z.clone(), torch.full((count,), cfg.steps, device=z.device)
    converged = torch.zeros(count, dtype=torch.bool, device=z.device)
    active = torch.arange(count, device=z.device)
    history = [_mean_energy(problem, z)] if record else []
    y, t = z, torch.ones(count, dtype=z.dtype, device=z.device)
    curvature: Tensor | float = problem.lipschitz
    if cfg.line_search:
        curvature = torch.full((count,), problem.lipschitz / 16, dtype=z.dtype, device=z.device)

    for step in range(1, cfg.steps + 1):
        new, curvature = _proximal_step(problem, y, curvature, wide)
        if cfg.momentum:
            move = new - z
            if cfg.restart:
                uphill = torch.linalg.vecdot((y - new).flatten(1), move.flatten(1)) > 0
                t = torch.where(uphill, torch.ones_like(t), t)
            following = (1 + (1 + 4 * t.square()).sqrt()) / 2
            y = torch.addcmul(new, ((t - 1) / following).view(wide), move)
            t = following
        else:
            y = new
        z = new
        if record:
            history.append(_mean_energy(problem, z))
            continue
        if cfg.tolerance > 0 and step % cfg.check_every == 0:
            done = _within(problem, z, cfg)
            if bool(done.any()):
                going = ~done
                result[active[done]], taken[active[done]] = z[done], step
                converged[active[done]] = True
                active = active[going]
                if not len(active):
                    return Solution(result, taken, history, converged)
                problem = problem.rows(going)
                z, y, t = z[going], y[going], t[going]
                curvature = curvature[going] if isinstance(curvature, Tensor) else curvature
    result[active] = z
    if cfg.tolerance > 0:
        converged[active] = _within(problem, z, cfg)
    return Solution(result, taken, history, converged)


def _within(problem: Problem, z: Tensor, cfg: SolverConfig) -> Tensor:
    """Whether each row's duality gap is within the tolerance (B,); one that is unknown is not."""
    gap = problem.gap(z)
    if gap is None:
        return torch.zeros(len(z), dtype=torch.bool, device=z.device)
    return gap <= cfg.tolerance


def _proximal_step(
    problem: Problem, y: Tensor, curvature: Tensor | float, wide: tuple[int, ...]
) -> tuple[Tensor, Tensor | float]:
    """One step from y; a curvature (B,) that turns out too small is doubled until it bounds f."""
    slope = problem.gradient(y)
    if not isinstance(curvature, Tensor):
        return problem.prox(torch.add(y, slope, alpha=-1 / curvature), 1 / curvature), curvature
    value = problem.smooth(y)
    rounding = 1e-6 if y.dtype == torch.float32 else 1e-12
    for _ in range(100):
        step = (1 / curvature).view(wide)
        new = problem.prox(y - step * slope, step)
        move = new - y
        bound = value + (slope * move).flatten(1).sum(1)
        bound = bound + 0.5 * curvature * move.square().flatten(1).sum(1)
        short = problem.smooth(new) > bound + rounding * value.abs()
        if not bool(short.any()):
            break
        curvature = torch.where(short, 2 * curvature, curvature)
    return new, curvature


def _mean_energy(problem: Problem, z: Tensor) -> float:
    return float((problem.smooth(z) + problem.penalty(z)).mean())
