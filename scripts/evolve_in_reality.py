"""Evolve C in the real environment, with the V and M of a finished run, for comparison.

    python scripts/evolve_in_reality.py --agent runs/demo/agent --frames 4000000 --out runs/es-0

The same command resumes an interrupted run. The result is an agent like any other:

    worldmodels evaluate --agent runs/es-0/agent --episodes 100 --json F --run runs/es-0
"""

import sys

from baselines.evolution import EvolutionConfig, evolve_in_reality
from worldmodels.cli import guarded
from worldmodels.commands.parsing import read


def main() -> None:
    """Read the flags, evolve, say where the agent is."""
    folder = evolve_in_reality(read(EvolutionConfig, description=__doc__))
    print(f"the agent that selection chose: {folder}/agent; the last one: {folder}/last")


if __name__ == "__main__":
    sys.exit(guarded(main))
