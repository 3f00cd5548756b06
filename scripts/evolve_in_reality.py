"""Evolve C in the real environment, with the V and M of a finished run.

The same as `worldmodels baseline-evolve`, whose `--help` has examples.
"""

import sys

from worldmodels.cli import main

if __name__ == "__main__":
    sys.exit(main(["baseline-evolve", *sys.argv[1:]]))
