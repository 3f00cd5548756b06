"""Step 1: collect episodes of random driving.

    python scripts/1_collect.py                      # the quick preset's first round, on all cores
    python scripts/1_collect.py --preset smoke       # a handful of short episodes

Each step reads what the one before left in runs/staged and goes on where it was stopped. The same
as `worldmodels collect`; `--help` lists every setting.
"""

import sys
from pathlib import Path

from worldmodels.cli import script

STAGED = Path("runs/staged")

if __name__ == "__main__":
    sys.exit(script("collect", out=STAGED / "episodes", run=STAGED))
