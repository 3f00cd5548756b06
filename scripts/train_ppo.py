"""Train PPO for comparison with the world model, in any environment.

The same as `worldmodels baseline`, whose `--help` has examples.
"""

import sys

from worldmodels.cli import main

if __name__ == "__main__":
    sys.exit(main(["baseline", *sys.argv[1:]]))
