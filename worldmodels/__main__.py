"""`python -m worldmodels` is the `worldmodels` command."""

import sys

from worldmodels.cli import main

if __name__ == "__main__":
    sys.exit(main())
