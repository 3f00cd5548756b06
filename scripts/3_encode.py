"""Step 3: turn every frame into V's (mu, logvar), which is all that M will ever see of it.

    python scripts/3_encode.py

The same as `worldmodels encode`.
"""

import sys
from pathlib import Path

from worldmodels.cli import script

STAGED = Path("runs/staged")

if __name__ == "__main__":
    data, vision = (STAGED / "episodes",), STAGED / "vision.pt"
    sys.exit(script("encode", data=data, vision=vision, out=STAGED / "z.safetensors", run=STAGED))
