"""Step 5: evolve C, the small controller, inside the dream of M, and save V, M and C as an agent.

    python scripts/5_train_controller.py --dream.temperature 1.15

No frame here is real. The same as `worldmodels train-controller`.
"""

import sys
from pathlib import Path

from worldmodels.cli import script

STAGED = Path("runs/staged")

if __name__ == "__main__":
    sys.exit(
        script(
            "train-controller",
            vision=STAGED / "vision.pt",
            memory=STAGED / "memory.pt",
            latents=(STAGED / "z.safetensors",),
            out=STAGED / "agent",
            run=STAGED,
        )
    )
