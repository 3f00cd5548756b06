"""Statistics of returns, as scores are reported."""

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
    """standard deviation over episodes, ddof 0 as in published tables and SB3"""
    median: float
    """middle value"""
    iqm: float
    """interquartile mean: the mean of the middle half"""
    p10: float
    """tenth percentile: one episode in ten is worse"""
    ci95: tuple[float, float] | None
    """95% bootstrap interval of the mean (None: a single episode)"""
    fraction_solved: float | None
    """fraction of episodes at or above the threshold; None without a threshold"""


def summarize(returns: ArrayLike, threshold: float | None = None) -> Summary:
    """Sum up finite returns (E,); those of at least `threshold` count as solved."""
    from scipy.stats import trim_mean  # a second to import, which workers do not need

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
    """95% bootstrap interval (low, high) of the mean of values (E,); None for fewer than two.

    It is bias-corrected and accelerated (BCa; Efron 1987), or the percentile interval where BCa
    fails, as for nearly equal values.
    """
    from scipy.stats import bootstrap

    sample = np.asarray(values, np.float64)
    if sample.size < 2:
        return None
    if sample.min() == sample.max():
        return float(sample[0]), float(sample[0])
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scipy warns of degenerate data, handled here
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


def told(value: float) -> str:
    """A return for a line of text: whole from 100 on, else three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
