"""`worldmodels baseline` and `baseline-evolve`: what a run is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from baselines.control import beside, enter
from baselines.evolution import EvolutionConfig, evolve_in_reality
from baselines.ppo import train
from baselines.settings import TrainConfig
from worldmodels.commands.parsing import Command


@dataclass(frozen=True)
class Baseline(TrainConfig, Command):
    """Train PPO for comparison with the world model, in any environment.

        worldmodels baseline --run runs/demo

    takes environment, frames, action repeat and the number of real frames from a finished run,
    tests PPO on the run's test seeds and adds it to the run's report. Without a run:

        worldmodels baseline --env CartPole-v1 --frames 100000 --out runs/ppo-0
        worldmodels evaluate --agent runs/ppo-0/agent --episodes 100 --json ppo.json

    The recipes zoo, v3, recurrent and dream are the published ones for CarRacing. The same command
    resumes an interrupted training.
    """

    common: ClassVar[str] = (
        "run env recipe agent frames out seed max-steps test-episodes device workers log"
    )

    def execute(self) -> None:
        """Train, say where the policy is and how it compares."""
        cfg: TrainConfig = self if self.run is None else beside(self)
        folder = train(cfg)
        print(f"the policy that selection chose: {folder}/agent; the last one: {folder}/last")
        if cfg.run is not None:
            result = enter(cfg)
            episodes = len(result.episodes)
            print(f"{result.agent}: mean return {result.mean:.1f} in {episodes} episodes")
            print(f"report: {cfg.run}/report.html")


@dataclass(frozen=True)
class Evolve(EvolutionConfig, Command):
    """Evolve C in the real environment, with the V and M of a finished run, for comparison.

        worldmodels baseline-evolve --agent runs/demo --out runs/es-0

    The result is an agent like any other:

        worldmodels evaluate --agent runs/es-0 --episodes 100 --json es.json

    The same command resumes an interrupted search.
    """

    common: ClassVar[str] = (
        "agent out seed frames start components mean-window workers executor address"
    )

    def execute(self) -> None:
        """Evolve, and say where the agent is."""
        folder = evolve_in_reality(self)
        print(f"the agent that selection chose: {folder}/agent; the last one: {folder}/last")
