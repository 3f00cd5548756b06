"""Draw the figures of docs/planning.md: the unrolled machine, and energies with a latent."""

import sys
from pathlib import Path

import tyro

from worldmodels.cli import guarded
from worldmodels.video.diagrams import draw_energy, draw_unrolled


def main(folder: Path = Path("docs/images")) -> None:
    """Draw the figures of docs/planning.md.

    Args:
        folder: gets planning-unrolled.svg and planning-energy.svg.
    """
    for name, draw in (("unrolled", draw_unrolled), ("energy", draw_energy)):
        print(draw(folder / f"planning-{name}.svg"))


if __name__ == "__main__":
    sys.exit(guarded(lambda: tyro.cli(main)))
