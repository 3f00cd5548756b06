"""Train a sparse code or a sparse auto-encoder, and draw a page about it.

    python scripts/train_sparse.py --method drsae --data digits
    python scripts/train_sparse.py --method topographic
    python scripts/train_sparse.py --method lista --data frames --folder runs/quick/episodes/0

Methods: dictionary, lista, psd, drsae, topographic, convolutional, local. The work lies in
`sparse_gan/coding`; the result in runs/sparse-METHOD-DATA/report.html.
"""

import sys

from sparse_gan.coding.experiments import train_sparse
from sparse_gan.coding.setup import SparseArgs
from worldmodels.cli import guarded
from worldmodels.commands.parsing import read


def main() -> None:
    """Read the command line and train."""
    print(f"The page: {train_sparse(read(SparseArgs, description=__doc__))}")


if __name__ == "__main__":
    sys.exit(guarded(main))
