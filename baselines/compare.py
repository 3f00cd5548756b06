"""The page and the JSON of a comparison: the same results always give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from baselines import charts, words
from baselines.comparison import compare, to_json
from baselines.page import comparison_page
from baselines.results import read_runs
from worldmodels.runs import make_folder, write_json

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
    page = comparison_page(found, {picture.name: picture.on_page() for picture in drawn}, **said)
    return page.write(out / "comparison.html")


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
