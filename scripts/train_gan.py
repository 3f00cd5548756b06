"""Train a GAN as an energy-based model, and write a page about it.

The same as `worldmodels gan`, whose `--help` has examples.
"""

import sys

from worldmodels.cli import main

if __name__ == "__main__":
    sys.exit(main(["gan", *sys.argv[1:]]))
