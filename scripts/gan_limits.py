"""Show where GANs fail, what cures them, and by which figure.

The same as `worldmodels gan-limits`, whose `--help` has examples.
"""

import sys

from worldmodels.cli import main

if __name__ == "__main__":
    sys.exit(main(["gan-limits", *sys.argv[1:]]))
