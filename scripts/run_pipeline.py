"""All steps in one, several rounds of them, with a selection by real driving after each.

    python scripts/run_pipeline.py --preset quick --out runs/quick

Each round collects with the best driver of the round before, so M learns the world where the driver
goes. The same command again goes on where it was stopped. The same as `worldmodels run`.
"""

import sys

from worldmodels.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
