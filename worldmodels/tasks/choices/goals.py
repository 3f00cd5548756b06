"""What helps where nothing pays but a goal, which ends the episode."""

from __future__ import annotations

from collections.abc import Iterator

from worldmodels.tasks.choices.amounts import LATER_FRAMES, time_to_goal
from worldmodels.tasks.choices.choice import Choice
from worldmodels.tasks.examination import Examination

BEGINNINGS = 0.5
"""Fraction of the dreams that begin where episodes do."""
RANDOM_STARTS = 0.5
"""Fraction of the agent's episodes that begin with random actions."""

TEMPERATURE = 0.1
"""Of the dreams: the noise of M's mixture gets an agent out of places where in reality it repeats
one action for ever."""
COMPONENTS = 128
"""Components of its inputs that C sees: what M remembers moves h little. At MiniGrid's corridor's
end, three steps before an episode ends, the right side shows in 32 components not at all (0.45), in
128 with 0.74, in all with 0.82."""
REWARD = "event"
"""Form of the reward where the goal is all that pays, though it may pay less the later: as a count,
which it then looks like, what decides weighs half as much in M's loss, and in MiniGrid's Memory the
last M of two runs remembered little or nothing."""
LAST_MEMORY_STEPS, OWN_INPUTS_AFTER = 12_000, 0.5
"""Gradient steps of the last M, and the fraction of any training before which M reads none of its
own predictions. That it has to remember M finds suddenly, after thousands of steps without any
progress, and sooner from recorded inputs: half of its own predictions hide what it should remember
until it knows what to look for."""
GENERATIONS, SEARCHES, SNAPSHOTS = 160, 6, 80
"""Generations of a search, searches, and generations between two checkpoints. What is found varies:
in the same M one search led to a return of 0.49 in reality and another to 0.83, by dreams that
promised the same."""


def goals(found: Examination, held: int) -> Iterator[Choice]:
    """These settings, where there is such a goal, for actions that are held for so many steps."""
    time = time_to_goal(found)
    if time is None:
        return
    only = "only a step that ends an episode pays"
    why = f"{only}: to go to and fro until M dreams what is wanted must not win"
    yield Choice("dream.discount", round(max(0.5, 1 - held / time), 3), why)
    yield Choice("starts.beginnings", BEGINNINGS, f"{only}: episodes are won from their beginning")
    why = f"{only}: an agent that is stuck in reality must be so in its dreams, too"
    yield Choice("dream.temperature", TEMPERATURE, why)
    why = f"{only}: an agent that gets there has short episodes, so that it plays more of them"
    yield Choice("experience.agent_frames", LATER_FRAMES, why)
    if found.rewards.low >= found.rewards.commonest:
        why = f"{only}: it is reached or not, and told so M learns sooner what to remember"
        yield Choice("memory.reward", REWARD, why)
    why = f"{only}: what it has to remember M learns from what was recorded, before it dreams"
    yield Choice("memory_training.own_inputs_after", OWN_INPUTS_AFTER, why)
    why = f"{only}: that there is something to remember M finds late"
    yield Choice("from_scratch.memory_steps", LAST_MEMORY_STEPS, why)
    why = f"{only}: what M remembers of the way there is in its cell c more than in h"
    yield Choice("controller.inputs", "zhc", why)
    why = f"{only}: what M remembers of the way there shows in small components"
    yield Choice("controller.components", COMPONENTS, why)
    why = f"{only}: what a search finds in the dream may fail in reality, so there are several"
    yield Choice("controller.evolve.generations", SEARCHES * GENERATIONS, why)
    yield Choice("controller.evolve.restart_every", GENERATIONS, f"{SEARCHES} searches")
    yield Choice("controller.evolve.snapshot_every", SNAPSHOTS, f"of {GENERATIONS} generations")
    why = f"{only}: an agent that always takes the same way shows M no other"
    yield Choice("experience.agent_random_starts", RANDOM_STARTS, why)
