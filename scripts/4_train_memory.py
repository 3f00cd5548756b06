"""Step 4: train M, the recurrent network that predicts the next z, the reward and the end.

    python scripts/4_train_memory.py --memory.ensemble 3

From here on the environment itself is not needed any more. The same as `worldmodels train-memory`.
"""

import sys
from pathlib import Path

from worldmodels.cli import script

STAGED = Path("runs/staged")

if __name__ == "__main__":
    latents, out = (STAGED / "z.safetensors",), STAGED / "memory.pt"
    sys.exit(script("train-memory", latents=latents, out=out, run=STAGED))
