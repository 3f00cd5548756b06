"""Train a sparse code or a sparse auto-encoder, and write a page about it.

The same as `worldmodels sparse`, whose `--help` has examples.
"""

import sys

from worldmodels.cli import main

if __name__ == "__main__":
    sys.exit(main(["sparse", *sys.argv[1:]]))
