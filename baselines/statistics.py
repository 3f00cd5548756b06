"""Statistics of several training runs on the same tracks, after Agarwal et al. (arXiv:2108.13264).

Scores are matrices (R, T): a row is a training run, a column a track. Chance enters twice, in the
training and in the tracks, so the bootstrap draws twice: runs first, then tracks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldmodels.protocols import UserError

Scores: TypeAlias = NDArray[np.float64]

RESAMPLES = 4000
"""Bootstrap samples behind an interval."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its bootstrap interval (percentiles)."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, samples: NDArray[np.float64], confidence: float = 0.95) -> Estimate:
        """The figure itself, and what resampling (S,) makes of it."""
        tail = 50 * (1 - confidence)
        low, high = np.percentile(samples, [tail, 100 - tail])
        return cls(float(value), float(low), float(high))


def iqm(values: NDArray[np.float64]) -> Any:
    """Interquartile mean along the last axis: a quarter is cut off at each end."""
    from scipy.stats import trim_mean

    return trim_mean(values, 0.25, axis=-1)


def check(scores: ArrayLike) -> Scores:
    """Scores as a matrix (R, T).

    Raises:
        UserError: there are no runs or no tracks, or a return is not finite.
    """
    matrix = np.asarray(scores, np.float64)
    if matrix.ndim != 2 or matrix.size == 0 or not np.isfinite(matrix).all():
        raise UserError(f"scores must be finite, runs x tracks; they have shape {matrix.shape}")
    return matrix


def resample(
    scores: Scores, rng: np.random.Generator, count: int = RESAMPLES
) -> NDArray[np.float64]:
    """Hierarchical bootstrap: R runs are resampled, and in each of them T tracks.

    Returns:
        (count, R, T).
    """
    runs, tracks = scores.shape
    row = rng.integers(runs, size=(count, runs, 1))
    column = rng.integers(tracks, size=(count, runs, tracks))
    drawn: NDArray[np.float64] = scores[row, column]
    return drawn


def estimate(
    scores: ArrayLike,
    statistic: Callable[[NDArray[np.float64]], Any],
    seed: int = 0,
    count: int = RESAMPLES,
) -> Estimate:
    """A statistic of all runs and tracks together, with its hierarchical interval.

    Args:
        scores: (R, T). One run gives an interval over tracks alone.
        statistic: reduces the last axis, such as `iqm` or `mean`.
        seed: of the resampling.
        count: bootstrap samples.
    """
    matrix = check(scores)
    drawn = resample(matrix, np.random.default_rng(seed), count)
    return Estimate.of(statistic(matrix.ravel()), statistic(drawn.reshape(count, -1)))


def mean(values: NDArray[np.float64]) -> Any:
    """Mean along the last axis."""
    return values.mean(axis=-1)


def median(values: NDArray[np.float64]) -> Any:
    """Median along the last axis."""
    return np.median(values, axis=-1)


def profile(
    scores: ArrayLike, thresholds: NDArray[np.float64], seed: int = 0, count: int = 1000
) -> NDArray[np.float64]:
    """Performance profile: fraction of episodes with a return above each threshold.

    Returns:
        (3, K): the fraction, and the ends of its 95% interval at each threshold on its own.
    """
    matrix = check(scores)
    drawn = np.sort(resample(matrix, np.random.default_rng(seed), count).reshape(count, -1))
    above = np.array(
        [1 - np.searchsorted(sample, thresholds, "right") / matrix.size for sample in drawn]
    )
    value = (matrix.ravel()[:, None] > thresholds).mean(axis=0)
    return np.stack([value, *np.percentile(above, [2.5, 97.5], axis=0)])


def probability_of_improvement(
    ours: ArrayLike, theirs: ArrayLike, seed: int = 0, count: int = RESAMPLES
) -> Estimate:
    """Chance that a run of one method beats a run of another on a track, averaged over tracks.

    On each track it is Mann and Whitney's U over the number of pairs of runs, ties counting half.

    Args:
        ours: (R1, T).
        theirs: (R2, T), the same tracks.
        seed: of the resampling: runs of each method, then tracks, the same for both.
        count: bootstrap samples.

    Raises:
        UserError: the tracks are not as many.
    """
    a, b = _same_tracks(ours, theirs)
    wins = (a[:, None] > b[None]) + 0.5 * (a[:, None] == b[None])  # (R1, R2, T)
    rng = np.random.default_rng(seed)
    rows, columns, tracks = (_draws(n, count, rng) for n in wins.shape)
    # whole and half numbers until the division, so that no rounding leaves [0, 1]
    won = np.einsum("si,sj,st,ijt->s", rows, columns, tracks, wins, optimize=True)
    return Estimate.of(float(wins.mean()), won / wins.size)


def _draws(number: int, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """How often bootstrap samples draw each of a number of things: (count, number)."""
    return rng.multinomial(number, np.full(number, 1 / number), size=count).astype(np.float64)


@dataclass(frozen=True)
class Paired:
    """One method less another, track by track, each track's returns averaged over runs."""

    differences: NDArray[np.float64]
    """(T,)"""
    mean: Estimate
    """of the differences: runs of each method are resampled, then tracks, the same for both"""
    wins: float
    """fraction of tracks on which it is above, ties counting half"""


def paired(ours: ArrayLike, theirs: ArrayLike, seed: int = 0, count: int = RESAMPLES) -> Paired:
    """Compare two methods on the same tracks: what a hard track takes from both cancels out.

    Args:
        ours: (R1, T).
        theirs: (R2, T).
        seed: of the resampling.
        count: bootstrap samples.

    Raises:
        UserError: the tracks are not as many.
    """
    a, b = _same_tracks(ours, theirs)
    differences = a.mean(axis=0) - b.mean(axis=0)
    rng = np.random.default_rng(seed)
    rows, columns, tracks = (_draws(n, count, rng) for n in (len(a), len(b), a.shape[1]))
    means = rows @ a / len(a) - columns @ b / len(b)
    samples = (means * tracks).mean(axis=1)
    wins = float((differences > 0).mean() + 0.5 * (differences == 0).mean())
    return Paired(differences, Estimate.of(float(differences.mean()), samples), wins)


def _same_tracks(ours: ArrayLike, theirs: ArrayLike) -> tuple[Scores, Scores]:
    a, b = check(ours), check(theirs)
    if a.shape[1] != b.shape[1]:
        raise UserError(
            f"{a.shape[1]} and {b.shape[1]} tracks cannot be paired; compare on common ones"
        )
    return a, b
