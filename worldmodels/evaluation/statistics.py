"""Statistics of returns, as scores are reported: no single figure stands alone."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from worldmodels.protocols import UserError

RESAMPLES = 9999
"""Bootstrap samples behind an interval."""


@dataclass(frozen=True)
class Summary:
    """A sample of returns in figures."""

    mean: float
    """arithmetic mean"""
    std: float
    """standard deviation over episodes, ddof 0, as published tables and SB3 have it"""
    median: float
    """middle value"""
    iqm: float
    """mean of the middle half (the interquartile mean): a quarter is cut off at each end"""
    p10: float
    """tenth percentile: one episode in ten is worse"""
    ci95: tuple[float, float] | None
    """95% bootstrap interval of the mean; None for a single episode"""
    fraction_solved: float | None
    """share of episodes at or above the threshold; None where there is no threshold"""


def summarize(returns: ArrayLike, threshold: float | None = None) -> Summary:
    """Sum up returns (E,); from `threshold` on they count as solved.

    Raises:
        UserError: there are none, or one is not finite.
    """
    from scipy.stats import trim_mean  # a second to import, and workers do without

    values = np.asarray(returns, np.float64)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise UserError(f"statistics need at least one finite return, got shape {values.shape}")
    return Summary(
        mean=float(values.mean()),
        std=float(values.std()),
        median=float(np.median(values)),
        iqm=float(trim_mean(values, 0.25)),
        p10=float(np.percentile(values, 10)),
        ci95=bootstrap_interval(values),
        fraction_solved=None if threshold is None else float((values >= threshold).mean()),
    )


def bootstrap_interval(values: ArrayLike, seed: int = 0) -> tuple[float, float] | None:
    """95% bootstrap interval of the mean: bias-corrected and accelerated (Efron 1987).

    Where BCa has no answer (nearly equal values, say) the percentile interval stands in. The same
    values (E,) and seed give the same (low, high); fewer than two values give None.
    """
    from scipy.stats import bootstrap

    sample = np.asarray(values, np.float64)
    if sample.size < 2:
        return None
    if sample.min() == sample.max():
        return float(sample[0]), float(sample[0])
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scipy warns of degenerate data; they are handled here
            interval = bootstrap(
                (sample,),
                np.mean,
                n_resamples=RESAMPLES,
                confidence_level=0.95,
                method=method,
                rng=np.random.default_rng(seed),
            ).confidence_interval
        low, high = float(interval.low), float(interval.high)
        if math.isfinite(low) and math.isfinite(high):
            return low, high
    raise UserError(f"no bootstrap interval for {sample.size} values with mean {sample.mean()}")
