"""Step 6: measure the agent in the real environment, on tracks that nothing has learnt from.

    python scripts/6_evaluate.py --episodes 100

The same as `worldmodels evaluate`.
"""

import sys
from pathlib import Path

from worldmodels.cli import script

STAGED = Path("runs/staged")

if __name__ == "__main__":
    agent, json = str(STAGED / "agent"), STAGED / "evaluation.json"
    sys.exit(script("evaluate", agent=agent, json=json, resume=True, run=STAGED))
