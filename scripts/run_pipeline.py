"""All steps in one, several iterations of them, with a selection by real episodes after each.

    python scripts/run_pipeline.py --preset quick --out runs/quick

Each iteration collects with the best agent of the one before, so M learns the world where the agent
goes. The same command resumes an interrupted run. The same as `worldmodels run`.
"""

import sys

from worldmodels.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
