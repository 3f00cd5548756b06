"""Step 7: one page about all of it: runs/staged/report.html.

    python scripts/7_report.py

The same as `worldmodels report`.
"""

import sys
from pathlib import Path

from worldmodels.cli import script

if __name__ == "__main__":
    sys.exit(script("report", run=Path("runs/staged")))
