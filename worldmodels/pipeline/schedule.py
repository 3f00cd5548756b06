"""How far a run is: its stages, the work in each, and the time that is left at measured rates.

The work of a stage follows from the settings: frames to collect and to encode, gradient steps,
dreamt steps, episodes. A stage of a kind that this run has finished before is expected to take as
long per unit of work as the last one did. Other kinds take `USUAL`, times the ratio of the measured
to the usual time over all finished stages. There is no estimate before a tenth of the usual time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from worldmodels.metrics import Row, iteration_of
from worldmodels.pages.text import about
from worldmodels.pages.text import number as as_number
from worldmodels.run_config import RunConfig

USUAL = {
    "explore": 1e-4,
    "collect": 9e-4,
    "vision": 4.5e-3,
    "encode": 3e-4,
    "memory": 4.5e-5,
    "controller": 9e-6,
    "episodes": 0.3,
    "residual": 0.5,
    "original": 7.0,
}
"""Seconds per unit of work in CarRacing on two cores; only their ratios matter. Original: an
episode of an environment whose faster version was trained in."""
LONGEST = 1000
"""Steps of an episode where the settings have no limit."""
BEGINNING = 24
"""Episodes in whose time the first ones end: they run side by side."""
KNOWN = 0.1
"""Fraction of the usual time of all stages that must be measured before anything is estimated."""


@dataclass(frozen=True)
class Planned:
    """A stage of a run."""

    name: str
    iteration: int
    kind: str
    """a key of `USUAL`"""
    work: float
    """in the kind's unit"""


def plan(cfg: RunConfig) -> Iterator[Planned]:
    """Every stage of a run, in order."""
    own, found, last = cfg.experience, cfg.selection, cfg.iterations
    evolution = cfg.controller.evolve
    explored = own.explore_episodes * (own.explore_steps or LONGEST)
    collected = own.agent_episodes * (own.agent_steps or LONGEST)
    dreamt = evolution.generations * evolution.strategy.population * cfg.dream.episodes
    snapshots = -(-evolution.generations // evolution.snapshot_every)
    for number in range(last):
        yield Planned(
            "collect", number, *(("collect", collected) if number else ("explore", explored))
        )
        yield Planned("vision", number, "vision", _vision(cfg, number))
        newest = collected if number else explored
        all_so_far = explored + number * collected
        yield Planned(
            "encode", number, "encode", all_so_far if cfg.trains_vision(number) else newest
        )
        yield Planned("memory", number, "memory", _memory(cfg, number))
        yield Planned("controller", number, "controller", dreamt * cfg.dream.horizon)
        episodes = snapshots * found.episodes_of(number, last)
        yield Planned("select", number, "episodes", BEGINNING + episodes)
    finalists, final = min(last, found.finalists), found.final_episodes
    yield Planned("final", last, "episodes", BEGINNING + finalists * final if final else 0)
    if cfg.residual.enabled:
        yield Planned("residual", last, "residual", cfg.residual.training.steps)
    if cfg.ensemble.enabled:
        tried = finalists * (final or found.episodes)
        yield Planned("ensemble", last, "episodes", BEGINNING + tried)
    tested = cfg.test.episodes
    if cfg.test_env == cfg.env_id:
        yield Planned("test", last, "episodes", BEGINNING + tested)
    else:
        yield Planned("test", last, "original", tested)
    if controls := cfg.test.random_policy + cfg.test.constant_action:
        yield Planned("controls", last, "episodes", BEGINNING + controls * tested)


def _vision(cfg: RunConfig, number: int) -> float:
    if not cfg.trains_vision(number):
        return 0
    training = cfg.vision_training_of(number)
    steps = training.steps if cfg.begins_vision(number) else training.finetune_steps
    return steps * training.batch_size


def _memory(cfg: RunConfig, number: int) -> float:
    training = cfg.memory_training_of(number)
    steps = training.steps if cfg.begins_memory(number) else training.finetune_steps
    return steps * cfg.memory.ensemble * training.batch_size * training.sequence_length


class Schedule:
    """The stages of a run, and the seconds of those that are finished."""

    def __init__(self, cfg: RunConfig) -> None:
        """Plan the stages."""
        self.stages = list(plan(cfg))
        self.seconds: dict[Planned, float] = {}

    def measured(self, rows: Iterable[Row]) -> None:
        """Take the seconds of finished stages from lines of metrics ("stage")."""
        known = {(stage.name, stage.iteration): stage for stage in self.stages}
        for row in rows:
            stage = known.get((str(row.get("name")), iteration_of(row)))
            if stage is not None:
                self.seconds[stage] = as_number(row.get("seconds")) or 0.0

    def place(self, name: str, iteration: int) -> str:
        """Such as "stage 7 of 22, about 4 min left of 9 min" for a stage that begins."""
        index = [(stage.name, stage.iteration) for stage in self.stages].index((name, iteration))
        said = f"stage {index + 1} of {len(self.stages)}"
        past = [stage for stage in self.stages[:index] if stage.work and stage in self.seconds]
        usual = _usual(past)
        if usual < KNOWN * _usual(self.stages):
            return said
        spent = sum(self.seconds[stage] for stage in past)
        rates = {kind: seconds * spent / usual for kind, seconds in USUAL.items()}
        rates |= {stage.kind: self.seconds[stage] / stage.work for stage in past}
        left = sum(rates[stage.kind] * stage.work for stage in self.stages[index:])
        return f"{said}, about {about(left)} left of {about(spent + left)}"


def _usual(stages: Iterable[Planned]) -> float:
    return sum(USUAL[stage.kind] * stage.work for stage in stages)
