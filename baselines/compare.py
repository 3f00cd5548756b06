"""The page and the JSON of a comparison: the same results always give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from baselines import charts, words
from baselines.comparison import LOST, SOLVED, Comparison, Method, compare, to_json
from baselines.results import Run, read_runs
from baselines.statistics import Estimate
from worldmodels.report import text
from worldmodels.report.tables import Table
from worldmodels.report.text import MISSING, count, duration, percent, score
from worldmodels.runs import atomic_write, make_folder, write_json

SCHEMA = 1
"""Layout of the JSON."""


def build_comparison(specs: Sequence[str], out: Path, pictures: bool = True) -> Path:
    """Write `comparison.html`, `comparison.json` and `pictures/`; return the page's path.

    Args:
        specs: see `baselines.results.read_runs`.
        out: folder, made if it is not there.
        pictures: write each chart as SVG and PNG, too.

    Raises:
        UserError: a run is missing or damaged, or there is none.
    """
    found = compare(read_runs(specs))
    make_folder(out)
    drawn = charts.pictures(found)
    said = {"warnings": words.warnings(found), "conclusions": words.conclusions(found)}
    write_json(out / "comparison.json", {"schema": SCHEMA, **to_json(found), **said})
    for picture in drawn if pictures else ():
        picture.save(out / "pictures")
    html = _template().render(
        found=found,
        charts={picture.name: picture.on_page() for picture in drawn},
        scores=_scores(found),
        pairs=_pairs(found),
        ledger=_ledger(found),
        costs=_costs(found),
        runs=_runs(found),
        **said,
    )
    atomic_write(out / "comparison.html", html)
    return out / "comparison.html"


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader("baselines"), jinja2.PackageLoader("worldmodels.report")]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text.install(environment)
    return environment.get_template("compare.html.j2")


def _range(found: Estimate, digits: int = 0) -> str:
    low, high = score(found.low, digits), score(found.high, digits)
    return f"{score(found.value, digits)} ({low} to {high})"


def _scores(found: Comparison) -> Table:
    """Statistics of each tested method."""
    head = [
        "method",
        "runs",
        "episodes",
        "mean",
        "IQM (without the lowest and the highest quarter)",
        "median",
        "p10",
        f"≥ {SOLVED:.0f}",
        f"< {LOST:.0f}",
        "last checkpoint",
    ]
    rows = []
    for method in found.tested:
        assert method.scores is not None
        figures = method.figures
        rows.append(
            [
                method.name,
                str(method.tested),
                count(method.scores.size),
                *(_range(figures[name]) for name in ("mean", "iqm", "median", "p10")),
                percent(figures["solved"].value),
                percent(figures["lost"].value),
                _last(method, found.tracks),
            ]
        )
    return Table(head, rows)


def _last(method: Method, tracks: Sequence[int]) -> str:
    """Mean return of the last checkpoints, where all tested runs have one on these tracks."""
    tested = [run for run in method.runs if run.returns]
    if not all(set(tracks) <= set(run.last_returns) for run in tested):
        return MISSING
    values = [run.last_returns[track] for run in tested for track in tracks]
    return score(sum(values) / len(values))


def _pairs(found: Comparison) -> Table:
    """Every pair of methods, on the same tracks."""
    head = ["better", "than", "probability of improvement", "difference per track", "tracks won"]
    rows = [
        [
            pair.ours,
            pair.theirs,
            _range(pair.improvement, 2),
            _range(pair.difference.mean),
            percent(pair.difference.wins),
        ]
        for pair in found.pairs
    ]
    return Table(head, rows)


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
        machine = [run.machine.get("cpu"), f"{run.machine.get('cores', '?')} cores"]
        rows.append([_named(run), duration(run.seconds), rate, ", ".join(filter(None, machine))])
    return Table(["run", "wall clock of the training", "real frames a second", "machine"], rows)


def _runs(found: Comparison) -> list[tuple[str, Run]]:
    return [(_named(run), run) for run in _all_runs(found)]


def describe(found: dict[str, Any]) -> list[str]:
    """The lines that the command prints: each method, best mean first, then the warnings."""
    tested = [method for method in found["methods"] if method["tested"]]
    lines = [
        f"{method['name']}: mean {method['mean']['value']:.0f} "
        f"({method['mean']['low']:.0f} to {method['mean']['high']:.0f}), "
        f"IQM {method['iqm']['value']:.0f}, "
        f"{method['tested']} runs, {len(found['tracks'])} tracks"
        for method in sorted(tested, key=lambda method: -method["mean"]["value"])
    ]
    return lines + [f"warning: {text}" for text in found["warnings"]]
