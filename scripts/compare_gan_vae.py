"""GAN against VAE on the same frames, with the same decoder and equal compute; a page about it.

    python scripts/compare_gan_vae.py --folders runs/quick/experience

The same command goes on where it was broken off. The work lies in `sparse_gan/gan/comparison.py`;
the result in runs/gan-vae/report.html.
"""

import sys

from sparse_gan.gan.comparison import ComparisonArgs, compare
from worldmodels.cli import guarded
from worldmodels.commands.parsing import read


def main() -> None:
    """Read the command line and compare."""
    print(f"The page: {compare(read(ComparisonArgs, description=__doc__))}")


if __name__ == "__main__":
    sys.exit(guarded(main))
