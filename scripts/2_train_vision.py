"""Step 2: train V, the variational auto-encoder that squeezes a frame into a few numbers, z.

    python scripts/2_train_vision.py --vision.z-dim 16

It sees nothing but frames: neither actions nor rewards. The same as `worldmodels train-vision`.
"""

import sys
from pathlib import Path

from worldmodels.cli import script

STAGED = Path("runs/staged")

if __name__ == "__main__":
    data, out = (STAGED / "episodes",), STAGED / "vision.pt"
    sys.exit(script("train-vision", data=data, out=out, run=STAGED))
