"""Make the animations of the documentation's gallery, from the agents that come with the package.

    python scripts/make_gallery.py

`make gallery` runs it. Everything is drawn anew from the weights: dreams, the same dream at several
temperatures, a real episode beside its dream, a dream that is exploited, and a planner's plans.
"""

import sys
from pathlib import Path

import tyro

from worldmodels.cli import guarded
from worldmodels.protocols import UserError
from worldmodels.video.gallery import dreaming, make_gallery

LARGEST, LARGEST_SUM = 1_000_000, 4_000_000
"""Bytes of one animation and of all."""


def gallery(agents: tuple[str, ...] = dreaming(), out: Path = Path("docs/images/gallery")) -> None:
    """Write and list the animations; larger ones than a page should load are refused."""
    total = 0
    for agent in agents:
        for path in make_gallery(agent, out):
            size = path.stat().st_size
            print(f"{size:>9,} bytes  {path}", flush=True)
            total += size
            if size > LARGEST or total > LARGEST_SUM:
                raise UserError(f"{path}: at most {LARGEST:,} bytes each, {LARGEST_SUM:,} together")


if __name__ == "__main__":
    sys.exit(guarded(lambda: tyro.cli(gallery, description=__doc__)))
