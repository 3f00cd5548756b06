"""All numbers of a comparison, from runs to a record that the page and the JSON show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baselines import statistics
from baselines.results import Run
from baselines.statistics import Estimate, Paired, Scores
from worldmodels.protocols import UserError

SOLVED = 900.0
"""Return that counts as solved in CarRacing."""

LOST = 600.0
"""Below this return an episode counts as lost: the car left the road for good."""


@dataclass(frozen=True)
class Method:
    """Everything about one method."""

    name: str
    runs: tuple[Run, ...]
    """all of its runs, untested ones too"""
    scores: Scores | None
    """(R, T) returns of the tested runs on the common tracks; None if none was tested there"""
    figures: Mapping[str, Estimate]
    """mean, median, iqm, p10, solved and lost, with intervals; empty without scores"""

    @property
    def tested(self) -> int:
        """Runs behind the scores."""
        return 0 if self.scores is None else len(self.scores)


@dataclass(frozen=True)
class Pair:
    """Two methods on the same tracks: how far `ours` is above `theirs`."""

    ours: str
    theirs: str
    """the one with the lower mean"""
    improvement: Estimate
    """chance that a run of ours beats a run of theirs on a track"""
    difference: Paired
    """of the returns, track by track"""


@dataclass(frozen=True)
class Comparison:
    """The whole."""

    methods: tuple[Method, ...]
    tracks: tuple[int, ...]
    """those of every tested run"""
    pairs: tuple[Pair, ...]
    thresholds: NDArray[np.float64]
    """(K,) returns at which the performance profiles are taken"""
    profiles: Mapping[str, NDArray[np.float64]]
    """method -> (3, K): fraction above, and its interval"""

    @property
    def tested(self) -> tuple[Method, ...]:
        """Methods with scores, best mean first: it counts lost episodes, which the IQM discards."""
        found = [method for method in self.methods if method.scores is not None]
        return tuple(sorted(found, key=lambda method: -method.figures["mean"].value))

    @property
    def reversals(self) -> tuple[tuple[Method, Method], ...]:
        """Pairs of which the first has the higher mean and the second the higher IQM."""
        ranked = self.tested
        return tuple(
            (first, second)
            for i, first in enumerate(ranked)
            for second in ranked[i + 1 :]
            if first.figures["mean"].value > second.figures["mean"].value
            and first.figures["iqm"].value < second.figures["iqm"].value
        )


def compare(runs: Sequence[Run]) -> Comparison:
    """Group runs by method, in the order given, and compare every pair of methods.

    Raises:
        UserError: there are no runs.
    """
    if not runs:
        raise UserError("there is nothing to compare; give at least one run")
    tracks = common_tracks(runs)
    names = list(dict.fromkeys(run.method for run in runs))
    methods = tuple(_method(name, [r for r in runs if r.method == name], tracks) for name in names)
    thresholds = _thresholds(methods)
    tested = [method for method in methods if method.scores is not None]
    return Comparison(
        methods,
        tracks,
        tuple(_pair(a, b) for i, a in enumerate(tested) for b in tested[i + 1 :]),
        thresholds,
        {m.name: statistics.profile(_scores(m), thresholds) for m in tested},
    )


def common_tracks(runs: Sequence[Run]) -> tuple[int, ...]:
    """Tracks of every tested run, in order."""
    seen = [set(run.returns) for run in runs if run.returns]
    return tuple(sorted(set.intersection(*seen))) if seen else ()


def _method(name: str, runs: Sequence[Run], tracks: Sequence[int]) -> Method:
    tested = [run for run in runs if run.returns]
    if not tested or not tracks:
        return Method(name, tuple(runs), None, {})
    scores = np.array([[run.returns[track] for track in tracks] for run in tested])
    wanted = {
        "iqm": statistics.iqm,
        "mean": statistics.mean,
        "median": statistics.median,
        "p10": lambda values: np.percentile(values, 10, axis=-1),
        "solved": lambda values: (values >= SOLVED).mean(axis=-1),
        "lost": lambda values: (values < LOST).mean(axis=-1),
    }
    figures = {what: statistics.estimate(scores, how) for what, how in wanted.items()}
    return Method(name, tuple(runs), scores, figures)


def _scores(method: Method) -> Scores:
    assert method.scores is not None
    return method.scores


def _pair(ours: Method, theirs: Method) -> Pair:
    if ours.figures["mean"].value < theirs.figures["mean"].value:
        ours, theirs = theirs, ours
    a, b = _scores(ours), _scores(theirs)
    return Pair(
        ours.name,
        theirs.name,
        statistics.probability_of_improvement(a, b),
        statistics.paired(a, b),
    )


def _thresholds(methods: Sequence[Method], number: int = 121) -> NDArray[np.float64]:
    """Returns from the lowest to the highest of all."""
    values = [m.scores.ravel() for m in methods if m.scores is not None]
    if not values:
        return np.zeros(0)
    every = np.concatenate(values)
    return np.linspace(np.floor(every.min()) - 1, np.ceil(every.max()), number)


def to_json(found: Comparison) -> dict[str, Any]:
    """All figures, and for each run the files that they come from."""
    return {
        "tracks": found.tracks,
        "runs": [_run(run) for method in found.methods for run in method.runs],
        "methods": [
            {"name": m.name, "runs": len(m.runs), "tested": m.tested, **m.figures}
            for m in found.methods
        ],
        "pairs": [
            {
                "ours": pair.ours,
                "theirs": pair.theirs,
                "probability_of_improvement": pair.improvement,
                "mean_difference": pair.difference.mean,
                "share_of_tracks_won": pair.difference.wins,
                "differences": pair.difference.differences,
            }
            for pair in found.pairs
        ],
        "profiles": {"thresholds": found.thresholds, **found.profiles},
    }


def _run(run: Run) -> dict[str, Any]:
    returns = np.array(list(run.returns.values()))
    last = np.array(list(run.last_returns.values()))
    return {
        "method": run.method,
        "path": run.path,
        "seed": run.seed,
        "env": run.env,
        "episodes": len(returns),
        "mean": float(returns.mean()) if len(returns) else None,
        "last_mean": float(last.mean()) if len(last) else None,
        "frames": run.frames,
        "cost": run.cost,
        "budget": run.budget,
        "seconds": run.seconds,
        "curve": run.curve,
        "machine": run.machine,
        "versions": run.versions,
        "sha256": run.files,
    }
