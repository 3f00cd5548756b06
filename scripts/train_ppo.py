"""Train PPO for comparison with the world model, in any environment.

    python scripts/train_ppo.py --run runs/quick

takes environment, frames, action repeat and the number of real frames from a finished run, tests
PPO on the run's test seeds and adds it to the run's report. Without a run:

    python scripts/train_ppo.py --env CartPole-v1 --frames 100000 --seed 0 --out runs/ppo-0
    worldmodels evaluate --agent runs/ppo-0/agent --episodes 100 --json F --run runs/ppo-0

The same command resumes an interrupted run. --recipe zoo, v3, recurrent and dream are the
published ones for CarRacing.
"""

import re
import sys

from baselines.control import beside, enter
from baselines.ppo import train
from baselines.settings import TrainConfig
from worldmodels.cli import guarded
from worldmodels.commands.parsing import read, read_flags, refuse_ignored


def main() -> None:
    """Read the flags, train, say where the policy is and how it compares."""
    words = [re.sub(r"^--env(?==|$)", "--env-id", word) for word in sys.argv[1:]]
    cfg = read(TrainConfig, words, description=__doc__)
    refuse_ignored(cfg.ignored(), read_flags(words))
    if cfg.run is not None:
        cfg = beside(cfg)
    folder = train(cfg)
    print(f"the policy that selection chose: {folder}/agent; the last one: {folder}/last")
    if cfg.run is not None:
        result = enter(cfg)
        print(f"{result.agent}: mean return {result.mean:.1f} in {len(result.episodes)} episodes")
        print(f"report: {cfg.run}/report.html")


if __name__ == "__main__":
    sys.exit(guarded(main))
