"""Train a model-free baseline, PPO by one of four recipes, for comparison with the world model.

    python scripts/train_ppo.py --recipe v3 --frames 1000000 --seed 0 --out runs/ppo-v3-0

The same command again goes on where it was stopped. Then measure it on the test tracks:

    worldmodels evaluate --agent runs/ppo-v3-0/agent --episodes 100 --json F --run runs/ppo-v3-0
"""

import sys

from baselines.ppo import TrainConfig, train
from worldmodels.cli import guarded
from worldmodels.commands.parsing import read, read_flags, refuse_ignored


def main() -> None:
    """Read the flags, train, say where the driver is."""
    cfg = read(TrainConfig, description=__doc__)
    refuse_ignored(cfg.ignored(), read_flags(sys.argv[1:]))
    folder = train(cfg)
    print(f"the driver that selection chose: {folder}/agent; the last one: {folder}/last")


if __name__ == "__main__":
    sys.exit(guarded(main))
