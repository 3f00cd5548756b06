"""Compare a GAN with V on the same frames, with the same decoder and equal compute.

The same as `worldmodels gan-vae`, whose `--help` has examples.
"""

import sys

from worldmodels.cli import main

if __name__ == "__main__":
    sys.exit(main(["gan-vae", *sys.argv[1:]]))
