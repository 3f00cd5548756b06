"""Put a run's agent into the package, with its score on its card.

    python scripts/ship_agent.py runs/take-cover --name take-cover

Then `--agent take-cover` finds it everywhere. What only dreams need, V's decoder and recorded
states, is left out unless `--dreams` is given: the package has to stay small.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import tyro

from worldmodels.agent import Agent, find
from worldmodels.cli import guarded
from worldmodels.envs import parse
from worldmodels.pages.data import Ledger, read_part, read_score
from worldmodels.policies.opening import open_policy
from worldmodels.protocols import SHIPPED, UserError

LARGEST = 5_000_000
"""Bytes of one agent."""


def main(
    run: tyro.conf.Positional[Path],
    name: str,
    evaluation: Path | None = None,
    dreams: bool = False,
    to: Path = SHIPPED,
) -> None:
    """Copy the agent of a run, its residual and its ensemble, and write its card."""
    score = read_score(evaluation or run / "evaluation.json", name)
    seeds = [episode["seed"] for episode in score.episodes]
    with tempfile.TemporaryDirectory(dir=to) as place:
        folder = Path(shutil.copytree(find(run), Path(place) / name))
        agent = Agent.from_pretrained(folder)
        if parse(agent.env_id).module:
            raise UserError(f"{run} learned {agent.env_id}: train it with an id without a module")
        if not dreams:
            agent.vision, agent.starts = agent.vision.without_decoder(), None
        agent.metadata |= {
            "evaluation": {
                **{fact: getattr(score, fact) for fact in ("mean", "std", "ci95")},
                **{"episodes": len(seeds), "seeds": [min(seeds), max(seeds)]},
            },
            "frames": read_part(run / "frames.json", Ledger).get("totals", {}),
        }
        agent.save_pretrained(folder)
        open_policy(folder)  # its residual and its ensemble still fit
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        if size > LARGEST:
            raise UserError(f"the agent has {size:,} bytes; at most {LARGEST:,} are shipped")
        shutil.rmtree(to / name, ignore_errors=True)
        os.replace(folder, to / name)
    print(f"{to / name}: {size:,} bytes")


if __name__ == "__main__":
    sys.exit(guarded(lambda: tyro.cli(main, description=__doc__)))
