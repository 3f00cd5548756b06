"""Statistics against scipy, exact counts and simulations whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from baselines import statistics as own
from worldmodels.protocols import UserError

R, T = 3, 40

MATRICES = arrays(
    np.float64,
    st.tuples(st.integers(1, 4), st.integers(1, 12)),
    elements=st.integers(-5, 5).map(float),
)


def scores(seed: int = 0, runs: int = R, shift: float = 0.0) -> np.ndarray:
    """A difficulty for each track, a level for each run, and noise: what episodes are made of."""
    rng = np.random.default_rng(seed)
    difficulty = np.random.default_rng(99).normal(0, 30, T)
    level = rng.normal(shift, 10, (runs, 1))
    return np.asarray(500 + difficulty + level + rng.normal(0, 5, (runs, T)))


@given(MATRICES)
def test_iqm_is_scipys_trimmed_mean(matrix: np.ndarray) -> None:
    flat = matrix.ravel()
    assert own.iqm(flat) == pytest.approx(stats.trim_mean(flat, 0.25))
    cut = int(0.25 * flat.size)
    assert own.iqm(flat) == pytest.approx(np.sort(flat)[cut : flat.size - cut].mean())


@given(MATRICES, st.integers(1, 4), st.integers(0, 9))
def test_improvement_is_mann_whitneys_u(matrix: np.ndarray, runs: int, seed: int) -> None:
    other = np.random.default_rng(seed).integers(-5, 6, (runs, matrix.shape[1])).astype(float)
    got = own.probability_of_improvement(matrix, other, count=20)
    each = [
        stats.mannwhitneyu(a, b).statistic / (len(a) * len(b))
        for a, b in zip(matrix.T, other.T, strict=True)
    ]
    assert got.value == pytest.approx(np.mean(each))
    back = own.probability_of_improvement(other, matrix, count=20)
    assert got.value + back.value == pytest.approx(1)
    assert 0 <= got.low <= got.high <= 1


@given(MATRICES)
def test_a_profile_counts_episodes_above(matrix: np.ndarray) -> None:
    thresholds = np.arange(-6.0, 7.0)
    value, low, high = own.profile(matrix, thresholds, count=50)
    want = [np.mean([v > t for v in matrix.ravel()]) for t in thresholds]
    np.testing.assert_allclose(value, want)
    np.testing.assert_allclose(value, 1 - stats.ecdf(matrix.ravel()).cdf.evaluate(thresholds))
    assert (np.diff(value) <= 0).all()
    assert value[0] == 1
    assert value[-1] == 0
    assert (low <= high).all()


def test_one_run_gives_the_ordinary_bootstrap() -> None:
    one = scores(runs=1)
    got = own.estimate(one, own.mean, count=20_000)
    want = stats.bootstrap(
        (one[0],), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    assert got.value == pytest.approx(one.mean())
    np.testing.assert_allclose([got.low, got.high], want, rtol=0.003)


def test_runs_that_differ_widen_the_interval() -> None:
    alike = np.tile(scores(runs=1), (R, 1))
    apart = alike + np.array([[-100], [0], [100]])
    narrow, wide = (own.estimate(s, own.iqm) for s in (alike, apart))
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)


def test_the_hierarchical_deviation_is_the_two_level_one() -> None:
    """Var(mean) of the bootstrap is that between runs plus that within, each over its number."""
    matrix = scores()
    drawn = own.resample(matrix, np.random.default_rng(0), 20_000).mean(axis=(1, 2))
    between = matrix.mean(axis=1).var() / R
    within = matrix.var(axis=1).mean() / (R * T)
    assert drawn.mean() == pytest.approx(matrix.mean(), abs=0.3)
    assert drawn.var() == pytest.approx(between + within, rel=0.05)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """Ten runs of forty tracks, a hundred times: the true mean is 500."""
    covered = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        sample = 500 + rng.normal(0, 20, (10, 1)) + rng.normal(0, 30, (10, 40))
        got = own.estimate(sample, own.mean, seed, 400)
        covered += got.low <= 500 <= got.high
    assert 82 <= covered <= 99  # percentile intervals of ten are a little short


def test_pairing_takes_out_what_tracks_have_in_common() -> None:
    ours, theirs = scores(0, shift=10), scores(1)
    got = own.paired(ours, theirs)
    want = ours.mean(axis=0) - theirs.mean(axis=0)
    np.testing.assert_allclose(got.differences, want)
    assert got.mean.value == pytest.approx(want.mean())
    assert got.wins == pytest.approx((want > 0).mean())
    shuffled = theirs[:, np.random.default_rng(5).permutation(T)]
    assert got.differences.std() < own.paired(ours, shuffled).differences.std() / 3


def test_one_run_each_is_the_ordinary_paired_bootstrap() -> None:
    ours, theirs = scores(0, 1), scores(1, 1)
    got = own.paired(ours, theirs, count=8000).mean
    want = stats.bootstrap(
        (ours[0] - theirs[0],), np.mean, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    np.testing.assert_allclose([got.low, got.high], want, atol=0.25)


def test_equal_and_opposite_extremes() -> None:
    same, better = scores(), scores() + 1000
    assert own.probability_of_improvement(better, same).low == 1
    assert own.probability_of_improvement(same[:1], same[:1]).value == 0.5
    assert own.paired(same[:1], same[:1]).wins == 0.5


def test_the_same_seed_gives_the_same_interval() -> None:
    assert own.estimate(scores(), own.median) == own.estimate(scores(), own.median)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(UserError, match="40 and 39 tracks cannot be paired"):
        own.paired(scores(), scores()[:, 1:])
    with pytest.raises(UserError, match=r"shape \(0, 3\)"):
        own.estimate(np.empty((0, 3)), own.mean)
    with pytest.raises(UserError, match="must be finite"):
        own.estimate([[np.nan]], own.mean)
