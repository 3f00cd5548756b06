"""How long dreams and episodes last, and how many are collected, selected on and tested on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from worldmodels.protocols import NUM_TEST_SEEDS
from worldmodels.tasks.choices.choice import Choice
from worldmodels.tasks.choices.exploration import LONG_DREAM
from worldmodels.tasks.default import PLAYED_OUT
from worldmodels.tasks.examination import Examination, is_rare

SAFE_DREAM = 250
"""Longest horizon in decisions where no episode ends early; elsewhere, most dreams do, too."""
WHOLE = 1000
"""Decisions up to which exploration plays whole episodes."""
FAR_LONGER = 10
"""How many times as long as the longest episode that was seen one may be in selection and test, and
as the shortest to a goal one that the agent collects."""
LEAST_STEPS = 50
"""Steps that an agent at least has to reach a goal."""
SHORT = 625
"""Decisions of the longest episode up to which more episodes cost little."""
SELECTION = 32
"""Real episodes for each checkpoint of C, and twice as many for finalists, where episodes are
short: with the presets' sixteen the noise chooses."""
USUAL_EPISODES = 600
"""Episodes of the first collection in the presets."""
FEW_FRAMES, MANY_FRAMES = 20_000, 150_000
"""Frames that the first collection has at least, and at most."""
FEWEST_EPISODES = 64
"""Episodes that it has at least."""
RARE_FRAMES, RARE_EPISODES = 200_000, 3000
"""Its frames where few steps end an episode or pay, and its episodes at most: M learns both by
heart from too few."""
LATER_FRAMES, LATER_EPISODES = 60_000, (64, 192)
"""Most frames of a later collection there, and its fewest and most episodes."""
MORE = 4
"""How many times as many frames and episodes the preset "full" collects where only rare ends
decide: M's ends are calibrated then, so that a policy may be learnt in its dreams for long."""


@dataclass(frozen=True)
class _Collection:
    """One collection of an environment in which each step pays."""

    setting: str
    frames: int
    episodes: int
    """at least"""


DENSE = (
    _Collection("experience.explore_episodes", 6000, 32),
    _Collection("experience.agent_episodes", 4000, 8),
)
"""The first collection and the later ones where each step pays: model-free RL learns soon there, so
that a dream must not cost many frames."""
DENSE_ITERATIONS = 4
DENSE_SELECTION, DENSE_EARLY = 8, 1
"""Selection episodes of a checkpoint there, in the last iteration and before it."""
DENSE_SNAPSHOTS = 80
"""Generations between two checkpoints of C there."""


def amounts(found: Examination, held: int, preset: str, many: bool) -> Iterator[Choice]:
    """All of them, for actions that are held for so many steps.

    ``many`` where `MORE` episodes are to be collected.
    """
    yield from _limits(found, held)
    if found.dense:
        yield from _small_iterations(found, _random_length(found, held))
    else:
        yield from _episodes(found, held, MORE if many else 1)
    yield from _selection(found, held, preset)


def horizon(found: Examination, held: int) -> int:
    """Decisions of a dream."""
    most = min(_decisions(found, held), _longest_dream(found))
    soon = time_to_goal(found)
    return most if soon is None else min(most, math.ceil(soon / held))


def _longest(found: Examination) -> int:
    """Steps of the longest episode that is to be expected."""
    ends = found.ends
    if ends.limit is None:
        return ends.longest if ends.truncated else 2 * ends.longest
    return ends.limit


def _decisions(found: Examination, held: int) -> int:
    return max(1, math.ceil(_longest(found) / held))


def _longest_dream(found: Examination) -> int:
    return LONG_DREAM if found.ends.terminated else SAFE_DREAM


def _at_most(found: Examination, held: int) -> int | None:
    """Steps after which an episode is cut when it is collected; None: whole episodes."""
    whole = found.ends.limit is not None and _decisions(found, held) <= WHOLE
    return None if whole else WHOLE * held


def time_to_goal(found: Examination) -> int | None:
    """Steps after which an agent that has not reached its goal is lost; None without a goal."""
    if not found.goal:
        return None
    return max(LEAST_STEPS, FAR_LONGER * found.ends.shortest)


def _random_length(found: Examination, held: int) -> float:
    """Steps of a collected episode of random actions."""
    length = max(reach.length for reach in found.random)
    if found.ends.terminated + found.ends.truncated == 0:  # all were cut short
        length = float(found.ends.limit or found.ends.longest)
    return min(length, _at_most(found, held) or length)


def _limits(found: Examination, held: int) -> Iterator[Choice]:
    """How long dreams and episodes last."""
    ends, longest = found.ends, _longest(found)
    if ends.limit is not None:
        what = f"the time limit is {longest} steps"
    elif ends.truncated:
        what = f"episodes are truncated after {longest} steps"
    else:
        what = f"twice the longest of the episodes seen is {longest} steps"
    early = "episodes end early" if ends.terminated else "no episode ended early"
    why = f"{what}, {early} (at most {_longest_dream(found)} decisions)"
    soon = time_to_goal(found)
    if soon is not None and soon <= horizon(found, held) * held:
        why = f"the shortest episode had {ends.shortest} steps: in far longer ones all is lost"
    yield Choice("dream.horizon", horizon(found, held), why)
    steps = _at_most(found, held)
    why = "whole episodes, so that their ends are seen"
    if steps is not None:
        why = "there is no time limit" if ends.limit is None else "whole episodes may be very long"
    yield Choice("experience.explore_steps", steps, why)
    if soon is not None and soon < (steps or longest):
        steps = soon
        why = f"the shortest episode had {ends.shortest} steps: far longer ones are lost"
    yield Choice("experience.agent_steps", steps, why)
    if ends.limit is None:
        most = max(PLAYED_OUT, FAR_LONGER * ends.longest)
        why = f"no time limit; far longer than what was seen ({ends.longest} steps)"
        yield Choice("selection.max_steps", most, why)
        yield Choice("test.max_steps", most, why)


def _small_iterations(found: Examination, length: float) -> Iterator[Choice]:
    """What is collected where each step pays, if random episodes last so many steps."""
    why = f"they last {length:.0f} steps at random, and each step pays, so that few teach much"
    for part in DENSE:
        yield Choice(part.setting, max(part.episodes, math.ceil(part.frames / length)), why)
    why = "each step pays: iterations are small, and the agent's own episodes teach V, too"
    yield Choice("vision_training.finetune_iterations", 3, why)
    if found.symmetric:
        why = "the task knows a flip that leaves its rules unchanged: it doubles few frames"
        yield Choice("horizontal_flip", True, why)


def _episodes(found: Examination, held: int, times: int) -> Iterator[Choice]:
    """How many episodes are collected elsewhere; ``times`` as many where ends or pay are rare."""
    length = _random_length(found, held)
    few = [
        f"{rate:.1%} of steps {what}"
        for rate, what in ((found.ends.rate, "end an episode"), (1 - found.rewards.share, "pay"))
        if is_rare(rate)
    ]
    why = f"they last {length:.0f} steps at random"
    if few:
        why += ", and " + " and ".join(few)
        number = times * min(RARE_EPISODES, int(RARE_FRAMES / length))
        yield Choice("experience.explore_episodes", number, why)
        low, high = LATER_EPISODES
        longest = min(_longest(found), _at_most(found, held) or _longest(found))
        number = times * max(low, min(high, int(LATER_FRAMES / longest)))
        yield Choice("experience.agent_episodes", number, why)
    elif USUAL_EPISODES * length < FEW_FRAMES:
        number = min(RARE_EPISODES, math.ceil(FEW_FRAMES / length))
        yield Choice("experience.explore_episodes", number, why)
    elif USUAL_EPISODES * length > MANY_FRAMES:
        number = max(FEWEST_EPISODES, int(MANY_FRAMES / length))
        yield Choice("experience.explore_episodes", number, why)


def _selection(found: Examination, held: int, preset: str) -> Iterator[Choice]:
    """How many real episodes choose C and test it, and how often it is chosen."""
    decisions = _decisions(found, held)
    short = f"episodes have at most {decisions} decisions, so more of them cost little"
    if found.dense and preset != "full":
        why = "each step pays: model-free RL learns from few frames, so selection takes few"
        yield Choice("selection.episodes", DENSE_SELECTION, why)
        yield Choice("selection.early_episodes", DENSE_EARLY, why)
        yield Choice("selection.late_iterations", 1, why)
        yield Choice("controller.evolve.snapshot_every", DENSE_SNAPSHOTS, why)
        yield Choice("iterations", DENSE_ITERATIONS, "each step pays: iterations are small")
    elif decisions <= SHORT:
        early, late, final = SELECTION // 4, SELECTION, 2 * SELECTION
        if time_to_goal(found) is not None:
            short = f"{short}, and each is won or lost"
            early, late, final = 2 * SELECTION, 2 * SELECTION, 4 * SELECTION
        yield Choice("selection.episodes", late, short)
        yield Choice("selection.early_episodes", early, short)
        yield Choice("selection.final_episodes", final, short)
    pay, limit = found.rewards, found.ends.limit
    if pay.constant and found.survival and limit is not None:
        why = f"each of at most {limit} steps pays {pay.commonest:g}: no more can be reached"
        yield Choice("selection.enough", limit * pay.commonest, why)
    if decisions <= SHORT:
        yield Choice("test.episodes", NUM_TEST_SEEDS, short)
