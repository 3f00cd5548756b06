"""Enter a finished run into the results: its files, and a page whose figures are theirs.

    python scripts/enter_result.py runs/full --name 2026-11-23-misses --commit 0dfe522 \
        --title "A missed tile has its price" --notes notes.md

The page is docs/results/entries/NAME.md. Into benchmarks/results/NAME go the config, the ledger and
the evaluation, unedited, and of the metrics the lines on stages, collection, selection and
calibration. The notes say what the figures mean.
"""

import sys
from pathlib import Path

import tyro

from worldmodels.cli import guarded
from worldmodels.pages.entry import enter

ROOT = Path(__file__).resolve().parents[1]


def main(
    run: tyro.conf.Positional[Path], name: str, title: str, commit: str, notes: Path | None = None
) -> None:
    """Make the entry and say where it is."""
    page, folder = ROOT / f"docs/results/entries/{name}.md", ROOT / "benchmarks/results" / name
    print(enter(run, page, folder, title, commit, notes.read_text("utf-8") if notes else ""))


if __name__ == "__main__":
    sys.exit(guarded(lambda: tyro.cli(main, description=__doc__)))
