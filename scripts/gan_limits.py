"""Show where GANs fail, what cures them, and by which figure, over several seeds.

    python scripts/gan_limits.py --seeds 5

Mode collapse on a ring of 8 and a grid of 25 Gaussians, the vanishing gradient, orbits of the
Dirac-GAN, an energy that is flat off the manifold. The same command goes on where it was broken
off. The work lies in `sparse_gan/gan/diagnostics`; the result in runs/gan-limits/report.html.
"""

import sys

from sparse_gan.gan.diagnostics.results_page import run_limits
from sparse_gan.gan.diagnostics.verdicts import LimitsArgs
from worldmodels.cli import guarded
from worldmodels.commands.parsing import read


def main() -> None:
    """Read the command line and run the experiments."""
    print(f"The page: {run_limits(read(LimitsArgs, description=__doc__))}")


if __name__ == "__main__":
    sys.exit(guarded(main))
