"""Draw the figures of README and docs, where code or data changed since they were drawn.

    python -m scripts.make_figures           # `make figures`
    python -m scripts.make_figures --all     # every figure again

`docs/images/figures.json` has a digest for each figure: of the file that draws it, the common style
and the data that it shows. A test compares them, so that no picture is older than its code. The
pictures of the six tasks need the extras atari, doom and minigrid.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated

import tyro

from scripts.figures.style import ROOT
from scripts.figures.table import DIGESTS, FIGURES, IMAGES, stale
from worldmodels import runs
from worldmodels.cli import guarded


def main(
    all: bool = False, only: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
) -> None:
    """Draw what is not up to date.

    Args:
        all: draw every figure.
        only: draw these, by their file's name.
    """
    names = only or (tuple(FIGURES) if all else tuple(stale()))
    for name in names:
        FIGURES[name].draw(IMAGES / name)
        drawn = json.loads(DIGESTS.read_text(encoding="utf-8")) if DIGESTS.is_file() else {}
        known = {**drawn, name: FIGURES[name].digest()}
        runs.write_json(DIGESTS, {key: known[key] for key in FIGURES if key in known})
        print(f"drew {IMAGES.relative_to(ROOT) / name}", flush=True)
    print(f"{len(FIGURES) - len(names)} of {len(FIGURES)} figures were up to date")


if __name__ == "__main__":
    sys.exit(guarded(lambda: tyro.cli(main, description=__doc__)))
