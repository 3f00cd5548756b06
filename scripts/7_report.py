"""Step 7: one page about all of it: runs/staged/report.html.

    python scripts/7_report.py

The page shows what the steps have logged, and names what is not there yet.
"""

from worldmodels.commands.staged import STAGED, run_step
from worldmodels.pages import build_report


def main() -> None:
    """Write the page about runs/staged."""
    print(f"report: {build_report(STAGED)}")


if __name__ == "__main__":
    run_step(main)
