"""Ask a GAN's energy whether a dream's frames are like real ones.

The same as `worldmodels gan-score`, whose `--help` has examples.
"""

import sys

from worldmodels.cli import main

if __name__ == "__main__":
    sys.exit(main(["gan-score", *sys.argv[1:]]))
