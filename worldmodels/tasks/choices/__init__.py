"""From what a few episodes showed to settings, with reasons."""

from __future__ import annotations

from worldmodels.tasks.choices.amounts import amounts, horizon
from worldmodels.tasks.choices.choice import Choice
from worldmodels.tasks.choices.exploration import exploration, hold, repeat
from worldmodels.tasks.choices.goals import goals
from worldmodels.tasks.choices.training import losses, recipe
from worldmodels.tasks.examination import Examination

__all__ = ["Choice", "choices"]

TINY = (
    "iterations",
    *("dream.horizon", "experience.explore_steps"),
    *("experience.agent_steps", "experience.explore_episodes", "experience.agent_episodes"),
    "experience.agent_frames",
    *("selection.max_steps", "test.max_steps"),
    *("selection.episodes", "selection.early_episodes", "selection.final_episodes"),
    *("selection.late_iterations", "controller.evolve.snapshot_every"),
    *("controller.inputs", "controller.components", "controller.evolve.generations"),
    "controller.evolve.restart_every",
    *("test.episodes", "memory_training.steps", "from_scratch.memory_steps"),
)
"""What the preset "smoke" keeps: it is to be short, not good."""


def choices(
    found: Examination, preset: str, action_repeat: int | None = None
) -> tuple[Choice, ...]:
    """The settings that a preset takes for this environment, in the form of `Task.settings`.

    What counts decisions follows `action_repeat`, the user's where it is not None.
    """
    held = action_repeat or hold(found)
    many = preset == "full" and found.ends.rare and found.survival
    made = [
        repeat(found, held, yours=action_repeat is not None),
        *amounts(found, held, preset, many),
        *exploration(found, held),
        *losses(found),
        *recipe(found, horizon(found, held), many),
        *goals(found, held),
    ]
    return tuple(one for one in made if preset != "smoke" or one.setting not in TINY)
