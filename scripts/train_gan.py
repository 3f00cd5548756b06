"""Train a GAN as an energy-based model, and draw a page about it.

    python scripts/train_gan.py --data car-racing --folders runs/quick/experience
    python scripts/train_gan.py --data digits --loss margin
    python scripts/train_gan.py --data folder --folders pictures --resize --loss wasserstein-gp

Losses: margin, log, saturating, regression, wasserstein, wasserstein-gp, ebgan. The same command
goes on where it was broken off. The work lies in `sparse_gan/gan`; the result in
runs/gan-DATA-LOSS/report.html.
"""

import sys

from sparse_gan.gan.run import GANArgs, train
from worldmodels.cli import guarded
from worldmodels.commands.parsing import read


def main() -> None:
    """Read the command line and train."""
    print(f"The page: {train(read(GANArgs, description=__doc__))}")


if __name__ == "__main__":
    sys.exit(guarded(main))
