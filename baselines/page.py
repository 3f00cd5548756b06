"""The page of a comparison: its texts, tables and sections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from baselines.comparison import LOST, SOLVED, Comparison, Method
from baselines.comparison import Pair as Against
from baselines.results import Run
from baselines.statistics import Estimate
from baselines.words import machine
from worldmodels.pages.document import (
    Block,
    Document,
    Figures,
    Guide,
    Missing,
    Pair,
    Plot,
    Points,
    Section,
    Settings,
    Table,
    Text,
    Warnings,
    table,
)
from worldmodels.pages.svg import Chart
from worldmodels.pages.text import MISSING, count, duration, interval, percent, score

CAPTIONS = {
    "means": (
        "Mean return",
        "Point: the mean over all runs and tracks, every episode counted. Bar: its 95% interval. "
        "Diamond: the IQM, the mean without the lowest and the highest quarter of the episodes.",
    ),
    "profiles": (
        "Performance profiles",
        "Higher is better; where two lines cross, neither method is better everywhere. Bands: "
        "pointwise 95% intervals.",
    ),
    "curves-frames": ("Against real frames", ""),
    "curves-seconds": (
        "Against wall-clock time",
        "Training only. If a baseline uses V and M of an agent, their cost is in its frames, "
        "not in its time.",
    ),
    "improvement": (
        "Probability of improvement",
        "Probability that a run of one beats a run of the other on a track. 0.5 is a draw.",
    ),
    "differences": (
        "Track by track",
        "Return of the best method minus that of the other, per track, sorted. It separates a few "
        "large losses from many small ones.",
    ),
}
"""Chart -> its title and caption."""

MOST_PAIRS = 10
"""Pairs in a table that is shown at once."""
SCORES = (
    "The selected policies on the test tracks, best mean first. Below each figure: its 95% "
    "interval, of the hierarchical bootstrap over training runs, then tracks."
)
LEARNING = (
    "Mean return on selection tracks. Frames are all steps of the real environment, for training "
    "and selection. Thin: one run. Thick: the mean of a method's runs, up to the shortest."
)
COST = (
    "The cost of a run is the real frames of its training and selection, without the final test. "
    "Dreamt frames are free."
)
RUNS = (
    "Sources of the numbers: the files with their SHA-256, and the versions of the test. All "
    "figures are in comparison.json."
)
GUIDE = (
    (
        "Two sources of variation",
        "Returns vary between training runs and between tracks. With one run, only the second can "
        "be measured.",
    ),
    (
        "Mean and IQM",
        "Methods are ranked by the mean, which counts every episode. The IQM is the mean of the "
        "middle half. It describes a typical episode and ignores how often the car leaves the "
        "road.",
    ),
    (
        "Probability of improvement",
        "It says how often, not how much: a policy slightly better on every track scores 1.",
    ),
    (
        "Real frames",
        "On a robot, real experience is the cost. Repeated actions and evaluations for selection "
        "count.",
    ),
)


def comparison_page(
    found: Comparison,
    drawn: Mapping[str, Chart],
    warnings: Sequence[str],
    conclusions: Sequence[str],
) -> Document:
    """The page of a comparison."""
    calm = (
        "No warning: the same environment, tracks, versions and budgets, and at least five "
        "training runs of each method."
    )
    first = len(found.reversals)
    pairs = list(zip(found.pairs, conclusions[first:], strict=False))
    ahead = [method.name for method in found.tested[:2]]  # the best, and the next
    said = [text for pair, text in pairs if [pair.ours, pair.theirs] == ahead]
    others = [text for _, text in pairs if text not in said]
    result = Text(said[0]) if said else Points(conclusions)
    sections = [
        Section("Result", [*_plots(drawn, "means", "profiles"), result]),
        Section("Warnings", [Warnings(warnings, calm)]),
        _scores_section(found, conclusions[:first]),
        _learning(drawn),
        _pairs_section(found, drawn, others),
        Section("Cost", _costs_blocks(found), COST),
        Section("Runs", [Settings(_runs(found))], RUNS),
        Section("How to read this", [Guide(GUIDE)]),
    ]
    return Document(
        "Model-based against model-free",
        "comparison",
        [_headline(found)],
        sections,
        "worldmodels compare",
    )


def _headline(found: Comparison) -> str:
    """The best mean, and how much was compared."""
    size = f"{len(found.methods)} methods, {len(_all_runs(found))} runs"
    if not found.tested:
        return f"{size}, and no common test tracks: there is no score to compare."
    best = found.tested[0]
    tracks = f"{count(len(found.tracks))} common test tracks"
    return (
        f"{best.name} has the highest mean return on {tracks} (seeds {found.tracks[0]} to "
        f"{found.tracks[-1]}): {_range(best.figures['mean'])}. {size}; returns are the "
        "environment's own, undiscounted and unshaped."
    )


def _plots(drawn: Mapping[str, Chart], *names: str) -> list[Block]:
    """Those of the charts that could be drawn, side by side."""
    plots = [Plot(drawn[name], *CAPTIONS[name]) for name in names if name in drawn]
    return [Pair(plots)] if plots else []


def _scores_section(found: Comparison, reversals: Sequence[str]) -> Section:
    if not found.tested:
        command = "worldmodels evaluate --agent RUN/agent --episodes 100 --json RUN/evaluation.json"
        return Section("Scores", [Missing("scores on test tracks of all runs", command)])
    more = [Points(reversals, "Where mean and IQM disagree")] if reversals else []
    return Section("Scores", [Figures(_scores(found), "Scores of each method"), *more], SCORES)


def _learning(drawn: Mapping[str, Chart]) -> Section:
    curves = [n for n in ("curves-frames", "curves-seconds") if n in drawn]
    plots = [Plot(drawn[name], *CAPTIONS[name]) for name in curves]
    return Section("Learning", plots, LEARNING if plots else "No run recorded a learning curve.")


def _pairs_section(found: Comparison, drawn: Mapping[str, Chart], others: Sequence[str]) -> Section:
    """Every pair; its conclusion is folded, and so is a long table."""
    if not found.pairs:
        return Section("Pairs", lead="There are not two methods with common test tracks.")
    folded = "Every pair" if len(found.pairs) > MOST_PAIRS else ""
    every = Figures(_pairs(found), "Every pair of methods", folded=folded)
    more = [Points(others, "Conclusions on the other pairs")] if others else []
    return Section("Pairs", [*_plots(drawn, "improvement", "differences"), every, *more])


def _costs_blocks(found: Comparison) -> list[Block]:
    ledger, costs = _ledger(found), _costs(found)
    if not ledger.rows:
        return []
    return [Figures(ledger, "Frames of each run"), Figures(costs, "Time of each run")]


def _range(found: Estimate) -> str:
    return interval(found.value, found.low, found.high)


def _below(found: Estimate) -> str:
    """A figure, and its interval in a second line."""
    value, _, ends = _range(found).partition(" (")
    return f"{value}\n{ends.rstrip(')')}"


def _scores(found: Comparison) -> Table:
    """Statistics of each tested method."""
    columns: dict[str, Callable[[Method], str]] = {
        "method": lambda one: one.name,
        "runs": lambda one: str(one.tested),
        "mean": lambda one: _below(one.figures["mean"]),
        "IQM": lambda one: _below(one.figures["iqm"]),
        "median": lambda one: _below(one.figures["median"]),
        "p10": lambda one: _below(one.figures["p10"]),
        f"≥ {SOLVED:.0f}": lambda one: percent(one.figures["solved"].value),
        f"< {LOST:.0f}": lambda one: percent(one.figures["lost"].value),
    }
    if any(_last(one, found.tracks) != MISSING for one in found.tested):
        columns["last checkpoint"] = lambda one: _last(one, found.tracks)
    return table(found.tested, columns)


def _last(method: Method, tracks: Sequence[int]) -> str:
    """Mean return of the last checkpoints, where all tested runs have one on these tracks."""
    tested = [run for run in method.runs if run.returns]
    if not all(set(tracks) <= set(run.last_returns) for run in tested):
        return MISSING
    values = [run.last_returns[track] for run in tested for track in tracks]
    return score(sum(values) / len(values))


def _pairs(found: Comparison) -> Table:
    """Every pair of methods, on the same tracks."""
    columns: dict[str, Callable[[Against], str]] = {
        "better": lambda pair: pair.ours,
        "than": lambda pair: pair.theirs,
        "probability of improvement": lambda pair: _below(pair.improvement),
        "difference per track": lambda pair: _below(pair.difference.mean),
        "tracks won": lambda pair: percent(pair.difference.wins),
    }
    return table(found.pairs, columns)


def _all_runs(found: Comparison) -> list[Run]:
    return [run for method in found.methods for run in method.runs]


def _named(run: Run) -> str:
    return run.method if run.seed is None else f"{run.method}, seed {run.seed}"


def _ledger(found: Comparison) -> Table:
    """Frames by kind, run by run."""
    kinds = ("collection", "model_free", "selection", "test", "dream")
    words_of = ("collection", "training in reality", "selection", "final test", "dreamt")
    rows = [
        [_named(run), count(run.cost), *(count(run.frames.get(kind, 0)) for kind in kinds)]
        for run in _all_runs(found)
        if run.frames
    ]
    return Table(["run", "real frames that it cost", *words_of], rows)


def _costs(found: Comparison) -> Table:
    """Time and machine, run by run."""
    rows = []
    for run in _all_runs(found):
        if not run.frames:
            continue
        trained = run.frames.get("model_free") or run.frames.get("collection") or 0
        rate = count(trained / run.seconds) if run.seconds and trained else MISSING
        rows.append([_named(run), duration(run.seconds), rate, machine(run)])
    return Table(["run", "wall clock of the training", "real frames a second", "machine"], rows)


def _runs(found: Comparison) -> list[tuple[str, Table]]:
    """What was read of each run, with hashes and versions."""
    return [(_named(run), Table(["", "value"], _source(run))) for run in _all_runs(found)]


def _source(run: Run) -> list[list[str]]:
    tested = f"{run.env or 'not tested'}, {len(run.returns)} episodes"
    rows = {"read from": run.path, "environment of the test": tested, **run.files, **run.versions}
    return [[name, str(value)] for name, value in rows.items()]
