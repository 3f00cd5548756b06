"""Write docs/results/speed.md from the committed results of the benchmarks: `make speed-page`.

    python -m scripts.make_speed_page

Each command that the page names writes its figures with `--json`, to a file of
`benchmarks/results/speed`. Sentences are in `scripts/figures/speed.md.j2`.
"""

from __future__ import annotations

import sys

import tyro

from scripts.figures.speed_page import PAGE, page
from scripts.figures.style import ROOT
from worldmodels.cli import guarded


def main() -> None:
    """Write the page."""
    (ROOT / PAGE).write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    sys.exit(guarded(lambda: tyro.cli(main, description=__doc__)))
