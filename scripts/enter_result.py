"""Enter a finished run into docs/results: its files, and a README whose figures are theirs.

    python scripts/enter_result.py runs/full --out docs/results/2026-11-23-misses --commit 0dfe522 \
        --title "A missed tile has its price" --notes notes.md

Copied are config, ledger and evaluation unedited, and of the metrics the lines on stages,
collection, selection and calibration. What the figures mean is for the notes to say.
"""

import sys
from pathlib import Path

import tyro

from worldmodels.cli import guarded
from worldmodels.pages.entry import enter


def main(
    run: tyro.conf.Positional[Path], out: Path, title: str, commit: str, notes: Path | None = None
) -> None:
    """Make the entry and say where it is."""
    print(enter(run, out, title, commit, notes.read_text("utf-8") if notes else ""))


if __name__ == "__main__":
    sys.exit(guarded(lambda: tyro.cli(main, description=__doc__)))
