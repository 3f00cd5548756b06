"""Ask a GAN's energy whether a dream's frames are like real ones.

    python scripts/score_dream.py --gan runs/gan-car-racing-log --agent runs/quick/agent \
        --folders runs/quick/experience

Scores real frames of held-out episodes, V's reconstructions of them, and frames of dreams that the
agent drives; an auroc of 0.5 is as real as reality. V's blur is in both of the latter, so what the
dream adds is the difference between those two.
"""

import sys
from pathlib import Path

import tyro

from sparse_gan.gan.data import load_pictures
from sparse_gan.gan.dreams import dreamt, reconstructed
from sparse_gan.gan.realism import realism
from worldmodels import Agent
from worldmodels.cli import guarded
from worldmodels.config import Count, require
from worldmodels.pages.text import figure
from worldmodels.protocols import DEFAULT_AGENT


def score(
    gan: Path, folders: tuple[Path, ...], agent: str = DEFAULT_AGENT, frames: int = 1000
) -> None:
    """Compare real, reconstructed and dreamt frames."""
    require("--frames", frames, Count)
    driver = Agent.from_pretrained(agent)
    real = load_pictures("car-racing", 64, folders=folders, count=5 * frames).test[:frames]
    others = {"reconstructed": reconstructed(driver, real), "dreamt": dreamt(driver, frames)}
    for name, row in realism(gan, real, others).items():
        print(f"{name:14} " + "  ".join(f"{key} {figure(value)}" for key, value in row.items()))


if __name__ == "__main__":
    sys.exit(guarded(lambda: tyro.cli(score, description=__doc__)))
