"""How long an action is held, and which random actions collect."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from worldmodels.tasks.behaviours import RHO
from worldmodels.tasks.choices.choice import Choice
from worldmodels.tasks.examination import HOLDS, SHORTEST, Examination, Reach

SEEN = 16.0
"""Change of one of V's pixels, 0 to 255, from which V can tell two frames apart."""
CLEARLY = 1.1
"""How much better uniform actions must be than others, whose effects last and are seen better."""
LONG_DREAM = 525
"""Decisions of the longest dream, which an episode should fit."""
STILL_LONG = 50
"""Decisions that a random episode keeps where actions are held only to make episodes fit."""
NEARLY = 0.75
"""Fraction of the best noise's score from which another deviation is taken as well."""


def hold(found: Examination) -> int:
    """Steps for which an action is held."""
    return max(_until_seen(found), _until_short(found))


def _until_short(found: Examination) -> int:
    """Steps for which it is held so that a whole episode fits a dream, if it can."""
    limit, length = found.ends.limit, _random_length(found)
    if limit is None or found.skip is not None:
        return 1
    return max(1, min(math.ceil(limit / LONG_DREAM), HOLDS[-1], int(length / STILL_LONG)))


def _random_length(found: Examination) -> float:
    return max((reach.length for reach in found.random), default=1.0)


def _until_seen(found: Examination) -> int:
    """Steps for which it is held so that something is seen to move."""
    moves = zip(HOLDS, found.frames.motion, strict=True)
    enough = next((steps for steps, change in moves if change >= SEEN), HOLDS[-1])
    if found.frames.motion[-1] == 0:
        enough = 1
    return max(1, min(enough, int(_random_length(found) / SHORTEST)))


def repeat(found: Examination, held: int, yours: bool) -> Choice:
    """The action repeat with its reason; ``yours`` where the user has set it."""
    suggested = hold(found)
    change, later = (found.frames.motion[steps - 1] for steps in (1, suggested))
    why = f"a step changes V's view by {change:.0f} of 255 where it changes most"
    if suggested > _until_seen(found):
        why = f"an episode of {found.ends.limit} steps is longer than a dream of {LONG_DREAM}"
    elif suggested > 1:
        why += f", {suggested} steps by {later:.0f}"
    elif change < SEEN:
        why += ", but episodes are short"
    if yours:
        why = f"as you say ({suggested} by what is seen: {why})"
    return Choice("action_repeat", held, why)


def score(reach: Reach, others: Sequence[Reach], sparse: bool) -> float:
    """How far random actions came, relative to the best of others: 1 where in every respect.

    The geometric mean of length, variety of frames and, where most steps pay the same (`sparse`),
    steps with a better reward.
    """
    names = ["length", "variety"]
    if sparse:
        names.append("rewarded")
    best = {name: max(getattr(other, name) for other in others) for name in names}
    parts = [getattr(reach, name) / best[name] if best[name] else 1.0 for name in names]
    return float(math.prod(parts) ** (1 / len(parts)))


def exploration(found: Examination, held: int) -> Iterator[Choice]:
    """Which random actions collect, by what they reached."""
    sparse = found.rewards.share > 0.5
    scores = {reach: score(reach, found.random, sparse) for reach in found.random}
    best = max(scores, key=lambda r: scores[r] / (CLEARLY if r.kind == "uniform" else 1))
    told = "; ".join(
        f"{reach.name}: {reach.length:.0f} steps, variety {reach.variety:.1f}"
        + (f", {reach.rewarded:.1%} rewarded" if sparse and reach.rewarded else "")
        for reach in found.random
    )
    story = f"{best.name} reached most ({told})"
    if found.actions.kind == "discrete":
        keep = best.value**held if best.value else 0.0
        yield Choice("experience.explore_rho", round(keep, 3), story)
        steps = max(1, min(20, int(best.length / held / 10)))
        yield Choice("experience.burst_steps", steps, "a tenth of an episode of random actions")
        return
    if best.kind == "uniform":
        yield Choice("experience.explore_rho", 0.0, story)
        yield Choice("experience.explore_scales", (0.6,), "the deviation of uniform actions")
        return
    scales = tuple(
        reach.value
        for reach in found.random
        if reach.kind == "noise" and scores[reach] >= NEARLY * scores[best]
    )
    yield Choice("experience.explore_rho", round(RHO**held, 3), f"{RHO:g} is left after a step")
    yield Choice("experience.explore_scales", scales, f"those that reached much ({told})")
