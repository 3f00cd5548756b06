"""From what a few episodes showed to settings, with reasons."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from worldmodels.protocols import NUM_TEST_SEEDS
from worldmodels.tasks.behaviours import RHO
from worldmodels.tasks.default import PLAYED_OUT
from worldmodels.tasks.examination import HOLDS, Examination, Reach

SEEN = 16.0
"""Change of one of V's pixels, 0 to 255, from which V can tell two frames apart."""
SHORTEST = 10
"""Decisions that an episode of random actions keeps, however long actions are held."""
LONG_DREAM, SAFE_DREAM = 525, 250
"""Longest horizons in decisions: where episodes end early, most dreams do so too."""
WHOLE = 1000
"""Decisions up to which exploration plays whole episodes."""
FAR_LONGER = 10
"""How many times as long as the longest episode that was seen one may be in selection and test."""
SELECTION = 32
"""Real episodes for each checkpoint of C, and twice as many for finalists, where `SHORT` allows:
with the presets' sixteen the noise chooses."""
SHORT = 625
"""Decisions of the longest episode up to which they take little time."""
USUAL_EPISODES = 600
"""Episodes of the first collection in the presets."""
FEW_FRAMES, MANY_FRAMES = 20_000, 150_000
"""Frames that the first collection has at least, and at most."""
RARE_FRAMES, MANY_EPISODES = 200_000, 3000
"""Its frames where few steps end an episode or pay, and its episodes at most: M learns both by
heart from too few."""
AGENT_FRAMES, AGENT_EPISODES = 60_000, (64, 192)
"""Most frames of a later collection there, and its episodes: the fewest and the most."""
MORE = 4
"""How many times as many frames and episodes the preset "full" collects where rare ends decide:
M's ends are calibrated then, so that a policy may be learnt in its dreams for long."""
RARE_END, SOME_ENDS = 0.02, 0.1
"""Ends per step below which they weigh ten times, and three times, in M's loss."""
RARE_REWARD, SOME_REWARDS = 0.01, 0.05
"""Fraction of steps with a reward below which it weighs five times as much, and twice."""
MOST = 0.5
"""Fraction of steps with one and the same reward below which rewards come all the time."""
LONG_TRAINING, FEW_STEPS = 12_000, 6000
"""Gradient steps of M from scratch there, and on few frames, which each iteration adds to."""
FEWEST, SMALL = (32, 8), (6000, 4000)
"""Episodes of the first collection there and of later ones at least, and their frames: model-free
RL learns soon where each step pays, so that a dream must not cost many."""
FEW_CHECKS, EVERY = (8, 1), 80
"""Selection episodes there, in the last iteration and before it, and generations between two
checkpoints of C."""
CLEARLY = 1.1
"""How much better uniform actions must be than others, whose effects last and are seen better."""
TINY = (
    "iterations",
    *("dream.horizon", "experience.explore_steps"),
    *("experience.agent_steps", "experience.explore_episodes", "experience.agent_episodes"),
    *("selection.max_steps", "test.max_steps"),
    *("selection.episodes", "selection.early_episodes", "selection.final_episodes"),
    *("selection.late_iterations", "controller.evolve.snapshot_every"),
    *("test.episodes", "memory_training.steps"),
)
"""What the preset "smoke" keeps: it is to be short, not good."""


@dataclass(frozen=True)
class Choice:
    """A setting that the episodes suggest."""

    setting: str
    """such as "dream.horizon" """
    value: Any
    reason: str


def choices(
    found: Examination, preset: str, action_repeat: int | None = None
) -> tuple[Choice, ...]:
    """The settings that a preset takes for this environment, in the form of `Task.settings`.

    What counts decisions follows `action_repeat`, the user's where it is not None.
    """
    held = action_repeat or hold(found)
    yours = action_repeat is not None
    many = preset == "full" and rare(found.ends.rate) and survival(found)
    made = [_hold(found, held, yours), *_time(found, held, many)]
    made += [*_selection(found, held, preset), *_exploration(found, held)]
    made += [*_losses(found), *_recipe(found, held, many)]
    return tuple(one for one in made if preset != "smoke" or one.setting not in TINY)


def dense(found: Examination) -> bool:
    """Whether most steps pay something else, and no end is rare: a few episodes teach much."""
    return found.rewards.share < MOST and not rare(found.ends.rate)


def rare(rate: float) -> bool:
    """Whether something happens, but in few steps."""
    return 0 < rate <= RARE_END


def hold(found: Examination) -> int:
    """Steps for which an action is held."""
    moves = zip(HOLDS, found.frames.motion, strict=True)
    enough = next((steps for steps, change in moves if change >= SEEN), HOLDS[-1])
    if found.frames.motion[-1] == 0:
        enough = 1
    length = max((reach.length for reach in found.random), default=1.0)
    return max(1, min(enough, int(length / SHORTEST)))


def _hold(found: Examination, held: int, yours: bool) -> Choice:
    """How long actions last."""
    suggested = hold(found)
    change, later = (found.frames.motion[steps - 1] for steps in (1, suggested))
    why = f"a step changes V's view by {change:.0f} of 255 where it changes most"
    if suggested > 1:
        why += f", {suggested} steps by {later:.0f}"
    elif change < SEEN:
        why += ", but episodes are short"
    if yours:
        why = f"as you say ({suggested} by what is seen: {why})"
    return Choice("action_repeat", held, why)


def _longest(found: Examination, held: int) -> tuple[int, int, str]:
    """Steps of the longest episode, decisions of a dream, and why."""
    ends = found.ends
    longest = ends.limit or 2 * ends.longest
    what = f"the time limit is {longest} steps"
    if ends.limit is None and ends.truncated:
        longest = ends.longest
        what = f"episodes are truncated after {longest} steps"
    elif ends.limit is None:
        what = f"twice the longest of the episodes seen is {longest} steps"
    cap = LONG_DREAM if ends.terminated else SAFE_DREAM
    early = "episodes end early" if ends.terminated else "no episode ended early"
    horizon = min(max(1, math.ceil(longest / held)), cap)
    return longest, horizon, f"{what}, {early} (at most {cap} decisions)"


def _time(found: Examination, held: int, many: bool) -> Iterator[Choice]:
    """How long dreams and episodes last, and how many there are."""
    ends = found.ends
    longest, horizon, why = _longest(found, held)
    decisions = max(1, math.ceil(longest / held))
    yield Choice("dream.horizon", horizon, why)
    whole = ends.limit is not None and decisions <= WHOLE
    steps = None if whole else WHOLE * held
    why = "whole episodes, so that their ends are seen"
    if not whole:
        why = "there is no time limit" if ends.limit is None else "whole episodes may be very long"
    yield Choice("experience.explore_steps", steps, why)
    yield Choice("experience.agent_steps", steps, why)
    if ends.limit is None:
        most = max(PLAYED_OUT, FAR_LONGER * ends.longest)
        why = f"no time limit; far longer than what was seen ({ends.longest} steps)"
        yield Choice("selection.max_steps", most, why)
        yield Choice("test.max_steps", most, why)
    length = max(reach.length for reach in found.random)
    if ends.terminated + ends.truncated == 0:  # how long whole ones are is known from elsewhere
        length = float(ends.limit or ends.longest)
    longest, length = min(longest, steps or longest), min(length, steps or length)
    if dense(found):
        yield from _small_iterations(found, length)
    else:
        yield from _episodes(found, length, longest, MORE if many else 1)


def _selection(found: Examination, held: int, preset: str) -> Iterator[Choice]:
    """How many real episodes choose C and test it, and how often it is chosen."""
    decisions = max(1, math.ceil(_longest(found, held)[0] / held))
    short = f"episodes have at most {decisions} decisions, so more of them cost little"
    if dense(found) and preset != "full":
        why = "each step pays: model-free RL learns from few frames, so selection takes few"
        number, early = FEW_CHECKS
        yield Choice("selection.episodes", number, why)
        yield Choice("selection.early_episodes", early, why)
        yield Choice("selection.late_iterations", 1, why)
        yield Choice("controller.evolve.snapshot_every", EVERY, why)
        yield Choice("iterations", 4, "each step pays: iterations are small")
    elif decisions <= SHORT:
        yield Choice("selection.episodes", SELECTION, short)
        yield Choice("selection.early_episodes", SELECTION // 4, short)
        yield Choice("selection.final_episodes", 2 * SELECTION, short)
    if decisions <= SHORT:
        yield Choice("test.episodes", NUM_TEST_SEEDS, short)


def _small_iterations(found: Examination, length: float) -> Iterator[Choice]:
    """What is collected where each step pays, if random episodes last so many steps."""
    why = f"they last {length:.0f} steps at random, and each step pays, so that few teach much"
    names = ("explore_episodes", "agent_episodes")
    for name, least, frames in zip(names, FEWEST, SMALL, strict=True):
        yield Choice(f"experience.{name}", max(least, math.ceil(frames / length)), why)
    why = "each step pays: iterations are small, and the agent's own episodes teach V, too"
    yield Choice("vision_training.finetune_iterations", 3, why)
    if found.symmetric:
        why = "the task knows a flip that leaves its rules unchanged: it doubles few frames"
        yield Choice("horizontal_flip", True, why)


def _episodes(found: Examination, length: float, longest: int, times: int) -> Iterator[Choice]:
    """How many episodes are collected, if they last so many steps at random, and at most."""
    few = [
        f"{rate:.1%} of steps {what}"
        for rate, what in ((found.ends.rate, "end an episode"), (1 - found.rewards.share, "pay"))
        if rare(rate)
    ]
    last = f"they last {length:.0f} steps at random"
    number = min(MANY_EPISODES, math.ceil(FEW_FRAMES / length))
    if few:
        number = times * min(MANY_EPISODES, int(RARE_FRAMES / length))
        last += ", and " + " and ".join(few)
    elif USUAL_EPISODES * length > MANY_FRAMES:
        number = max(64, int(MANY_FRAMES / length))
    if few or not FEW_FRAMES <= USUAL_EPISODES * length <= MANY_FRAMES:
        yield Choice("experience.explore_episodes", number, last)
    if few:
        low, high = AGENT_EPISODES
        later = times * max(low, min(high, int(AGENT_FRAMES / longest)))
        yield Choice("experience.agent_episodes", later, last)


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


def _exploration(found: Examination, held: int) -> Iterator[Choice]:
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
        if reach.kind == "noise" and scores[reach] >= 0.75 * scores[best]
    )
    yield Choice("experience.explore_rho", round(RHO**held, 3), f"{RHO:g} is left after a step")
    yield Choice("experience.explore_scales", scales, f"those that reached much ({told})")


def survival(found: Examination) -> bool:
    """Whether the return is how long the episode lasts.

    All steps pay the same, but for some last ones, which pay less: one that pays more is a goal.
    """
    pay, ends = found.rewards, found.ends
    if pay.commonest <= 0 or ends.terminated == 0:
        return False
    lasts = pay.at_ends and pay.high == pay.commonest and ends.shortest < ends.longest
    return pay.constant or lasts


def _losses(found: Examination) -> Iterator[Choice]:
    """What M's losses weigh."""
    pay, rate = found.rewards, found.ends.rate
    weight = 10.0 if 0 < rate <= RARE_END else 3.0 if 0 < rate <= SOME_ENDS else 1.0
    why = f"{rate:.1%} of steps end an episode" if rate else "no episode ended by itself"
    yield Choice("memory_training.termination_weight", weight, why)
    yield Choice("dream.termination", "sampled", "a dream ends with M's probability, as in reality")
    if pay.constant and pay.commonest and found.ends.terminated:
        why = f"every step pays {pay.commonest:g}: it is known, not learnt"
        yield Choice("memory.reward", "raw", why)
        yield Choice("memory_training.reward_weight", 0.0, why)
    elif survival(found):
        why = f"all steps pay {pay.commonest:g} but some last ones: how long it lasts decides"
        yield Choice("memory_training.reward_weight", 0.0, why)
    else:
        others = 1 - pay.share
        weight = 10.0 if others < RARE_REWARD else 4.0 if others < SOME_REWARDS else 2.0
        yield Choice(
            "memory_training.reward_weight", weight, f"{others:.1%} of steps pay something else"
        )
        if pay.share < MOST:
            yield from _own_inputs(dense(found))


def _own_inputs(few: bool) -> Iterator[Choice]:
    """An M that learns from its own predictions, for long where its frames are not few."""
    why = "rewards come all the time: C would find where dreams dissolve, so M learns to come back"
    yield Choice("memory_training.own_inputs", 0.5, why)
    yield Choice("memory_training.input_noise", 2.0, why)
    why = "every step's reward counts: M is trained for long"
    if few:
        why = "frames are few, and each iteration fine-tunes M"
    yield Choice("memory_training.steps", FEW_STEPS if few else LONG_TRAINING, why)
    why = "M is fine-tuned, since retrained from scratch it is worse"
    yield Choice("from_scratch.iterations", 0, why)


def _recipe(found: Examination, held: int, many: bool) -> Iterator[Choice]:
    """Which parts of the recipe make sense; ``many``: many episodes, whose ends decide."""
    if many:
        why = f"only ends decide, of {found.ends.rate:.1%} of steps: M learns them for long"
        yield Choice("iterations", 3, why)
        yield Choice("from_scratch.iterations", 1, why)
        yield Choice("from_scratch.memory_steps", 20_000, why)
        why = "only the last M is trained for so long, and the agent dreams in its own"
        yield Choice("selection.late_iterations", 1, why)
    if many and found.actions.kind == "discrete":
        yield from _residual(_longest(found, held)[1])
    elif found.actions.kind == "discrete":
        why = "it takes time; with choices, `full` learns one where rare ends decide"
        yield Choice("residual.enabled", False, why)
    if found.rewards.constant or found.rewards.low > 0:
        why = "steps without a reward mark no loss, as all steps pay the same or above 0"
        yield Choice("starts.off_track_weight", 1.0, why)
    yield Choice("selection.reward_bound", None, "what a step can pay at most is not known")


def _residual(horizon: int) -> Iterator[Choice]:
    """A residual that learns by trying, in dreams as long as C's."""
    yield Choice("residual.enabled", True, "M's ends are calibrated, so dreams bear long learning")
    tries = "a choice has no slope for M's gradient: other choices are tried"
    own = {
        "gradient": "reinforce",
        "network.noise": 0.5,
        "network.residual": 2.0,
        "batch_size": 512,
        "steps": 3000,
        "actors": 1,
    }
    for name, value in own.items():
        yield Choice(f"residual.training.{name}", value, tries)
    yield Choice("residual.training.discount", 0.99, "what ends an episode is seen long before")
    yield Choice("residual.training.max_length", horizon, "as long as C's dreams")
