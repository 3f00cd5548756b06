"""From what a few episodes showed to what is to be said about it, and to settings with reasons."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

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
RARE_FRAMES = 200_000
"""Its frames where few steps end an episode or pay: M learns both by heart from too few."""
AGENT_FRAMES, AGENT_EPISODES = 60_000, (64, 192)
"""Most frames of a later collection there, and its episodes: the fewest and the most."""
MANY_EPISODES = 3000
RARE_END, SOME_ENDS = 0.02, 0.1
"""Ends per step below which they weigh ten times, and three times, in M's loss."""
RARE_REWARD, SOME_REWARDS = 0.01, 0.05
"""Fraction of steps with a reward below which it weighs five times as much, and twice."""
CLEARLY = 1.1
"""How much better uniform actions must be than others, whose effects last and are seen better."""
TINY = (
    *("dream.horizon", "experience.explore_steps"),
    *("experience.agent_steps", "experience.explore_episodes", "experience.agent_episodes"),
    *("selection.max_steps", "test.max_steps"),
    *("selection.episodes", "selection.early_episodes", "selection.final_episodes"),
    "test.episodes",
)
"""What the preset "smoke" keeps: it is to be short, not good."""

Level: TypeAlias = Literal["ok", "note", "warning", "refused"]


@dataclass(frozen=True)
class Choice:
    """A setting that the episodes suggest."""

    setting: str
    """such as "dream.horizon" """
    value: Any
    reason: str


@dataclass(frozen=True)
class Finding:
    """Something to know about the environment."""

    level: Level
    text: str
    """what was seen, and what helps"""


def choices(
    found: Examination, preset: str, action_repeat: int | None = None
) -> tuple[Choice, ...]:
    """The settings that a preset takes for this environment, in the form of `Task.settings`.

    What counts decisions follows `action_repeat`, the user's where it is not None.
    """
    held = action_repeat or hold(found)
    yours = action_repeat is not None
    made = [_hold(found, held, yours), *_time(found, held), *_exploration(found, held)]
    made += [*_losses(found), *_recipe(found)]
    return tuple(one for one in made if preset != "smoke" or one.setting not in TINY)


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


def _time(found: Examination, held: int) -> Iterator[Choice]:
    """How long dreams and episodes last."""
    ends = found.ends
    longest = ends.limit or 2 * ends.longest
    what = f"the time limit is {longest} steps"
    if ends.limit is None and ends.truncated:
        longest = ends.longest
        what = f"episodes are truncated after {longest} steps"
    elif ends.limit is None:
        what = f"twice the longest of the episodes seen is {longest} steps"
    decisions = max(1, math.ceil(longest / held))
    cap = LONG_DREAM if ends.terminated else SAFE_DREAM
    early = "episodes end early" if ends.terminated else "no episode ended early"
    yield Choice("dream.horizon", min(decisions, cap), f"{what}, {early} (at most {cap} decisions)")
    whole = ends.limit is not None and decisions <= WHOLE
    steps = None if whole else WHOLE * held
    why = "whole episodes, so that their ends are seen"
    if not whole:
        why = "there is no time limit" if ends.limit is None else "whole episodes may be very long"
    yield Choice("experience.explore_steps", steps, why)
    yield Choice("experience.agent_steps", steps, why)
    if ends.limit is None:
        many = max(PLAYED_OUT, FAR_LONGER * ends.longest)
        why = f"no time limit; far longer than what was seen ({ends.longest} steps)"
        yield Choice("selection.max_steps", many, why)
        yield Choice("test.max_steps", many, why)
    if decisions <= SHORT:
        why = f"episodes have at most {decisions} decisions, so more of them cost little"
        yield Choice("selection.episodes", SELECTION, why)
        yield Choice("selection.early_episodes", SELECTION // 4, why)
        yield Choice("selection.final_episodes", 2 * SELECTION, why)
        yield Choice("test.episodes", NUM_TEST_SEEDS, why)
    length = max(reach.length for reach in found.random)
    if ends.terminated + ends.truncated == 0:  # how long whole ones are is known from elsewhere
        length = float(ends.limit or ends.longest)
    yield from _episodes(found, min(length, steps or length), min(longest, steps or longest))


def _episodes(found: Examination, length: float, longest: int) -> Iterator[Choice]:
    """How many episodes are collected, if they last so many steps at random, and at most."""
    rare = [
        f"{rate:.1%} of steps {what}"
        for rate, what in ((found.ends.rate, "end an episode"), (1 - found.rewards.share, "pay"))
        if 0 < rate <= RARE_END
    ]
    last = f"they last {length:.0f} steps at random"
    many = min(MANY_EPISODES, math.ceil(FEW_FRAMES / length))
    if rare:
        many = min(MANY_EPISODES, int(RARE_FRAMES / length))
        last += ", and " + " and ".join(rare)
    elif USUAL_EPISODES * length > MANY_FRAMES:
        many = max(64, int(MANY_FRAMES / length))
    if rare or not FEW_FRAMES <= USUAL_EPISODES * length <= MANY_FRAMES:
        yield Choice("experience.explore_episodes", many, last)
    if rare:
        low, high = AGENT_EPISODES
        later = max(low, min(high, int(AGENT_FRAMES / longest)))
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
    """Whether the reward says only that the episode goes on: the same in all steps but the last."""
    pay = found.rewards
    return pay.commonest > 0 and (pay.constant or pay.at_ends) and found.ends.terminated > 0


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
        rare = 1 - pay.share
        weight = 10.0 if rare < RARE_REWARD else 4.0 if rare < SOME_REWARDS else 2.0
        yield Choice(
            "memory_training.reward_weight", weight, f"{rare:.1%} of steps pay something else"
        )


def _recipe(found: Examination) -> Iterator[Choice]:
    """Which parts of the recipe make sense."""
    if found.actions.kind == "discrete":
        yield Choice(
            "residual.enabled", False, "it takes time, and is not shown to help with choices"
        )
    if found.rewards.constant or found.rewards.low > 0:
        why = "steps without a reward mark no loss, as all steps pay the same or above 0"
        yield Choice("starts.off_track_weight", 1.0, why)
    yield Choice("selection.reward_bound", None, "what a step can pay at most is not known")


def findings(found: Examination) -> tuple[Finding, ...]:
    """What is to be said, the worst first; "ok" alone where there is nothing."""
    order: dict[Level, int] = {"refused": 0, "warning": 1, "note": 2, "ok": 3}
    said = [*_of_frames(found), *_of_channels(found), *_of_ends(found)]
    said += [*_of_rewards(found), *_of_seeds(found)]
    if not any(one.level in ("refused", "warning") for one in said):
        said.insert(0, Finding("ok", "it can be learnt with the settings below"))
        order["ok"] = 0
    return tuple(sorted(said, key=lambda one: order[one.level]))


def _of_frames(found: Examination) -> Iterator[Finding]:
    frames = found.frames
    for name, share in (("black", frames.black), ("white", frames.white)):
        if share == 1.0:
            yield Finding(
                "refused",
                f"all frames are {name}: there is nothing to see. It may draw nothing where there "
                "is no display: pass it what makes it draw (render_mode='rgb_array', offscreen), "
                "or wrap it in gymnasium.wrappers.AddRenderObservation",
            )
            return
        if share >= 0.005:
            yield Finding("note", f"{share:.0%} of the frames are {name}")
    if frames.same:
        yield Finding(
            "refused",
            "all frames are the same: no action shows. Wrap it in "
            "gymnasium.wrappers.AddRenderObservation, or return a new frame in each step",
        )
    elif frames.std < 1:
        yield Finding(
            "warning",
            f"brightness deviates by {frames.std:.2f} of 255 only: V may see nothing. Crop the "
            "frame to what matters (--crop), or stretch it with "
            "gymnasium.wrappers.TransformObservation",
        )
    elif frames.mean > 245 or frames.mean < 10:
        side = "white" if frames.mean > 245 else "black"
        yield Finding("note", f"the picture is nearly {side} ({frames.mean:.0f} of 255 on average)")
    if frames.plain == 1.0 and not frames.same:
        yield Finding("note", "every frame is of one colour")
    if frames.still > 0.5 and not frames.same:
        yield Finding("note", f"{frames.still:.0%} of the steps change no pixel")
    if len(frames.shape) > 1 and min(frames.shape[:2]) > 256:
        size = f"{frames.shape[0]}x{frames.shape[1]}"
        yield Finding("note", f"frames of {size} cost time; V sees 64x64: let it draw smaller ones")


def _of_channels(found: Examination) -> Iterator[Finding]:
    if found.stacked:
        yield Finding(
            "warning",
            "the four channels are four grey frames, not RGBA: V sees the oldest three as colours. "
            "gymnasium.wrappers.TransformObservation can keep the newest, obs[..., -1:]",
        )


def _of_ends(found: Examination) -> Iterator[Finding]:
    ends = found.ends
    if ends.endless:
        yield Finding(
            "refused",
            f"no episode ended within {ends.longest} steps, and there is no time limit: give "
            "--max-steps, or register it with max_episode_steps",
        )
    elif ends.limit is None:
        yield Finding(
            "note",
            "there is no time limit, but episodes end by themselves (longest seen: "
            f"{ends.longest}); if a good agent's do not, give --max-steps",
        )
    if 0 < ends.longest <= 2:
        yield Finding(
            "warning",
            f"no episode is longer than {ends.longest} step{'s' * (ends.longest > 1)}: M has no "
            "past to remember, and a dream is over at once",
        )
    elif 0 < ends.longest < SHORTEST:
        yield Finding("note", f"no episode is longer than {ends.longest} steps")


def _of_rewards(found: Examination) -> Iterator[Finding]:
    pay, ends = found.rewards, found.ends
    fixed = ends.terminated == 0 or ends.shortest == ends.longest
    if pay.constant and pay.commonest == 0:
        yield Finding(
            "warning",
            f"no reward came in {found.steps} steps: nothing says what is good. Explore for longer "
            "(--experience.explore-episodes, --experience.explore-rho), or pay for steps on the "
            "way with gymnasium.wrappers.TransformReward",
        )
    elif pay.same_returns or (pay.constant and fixed):
        same = "all whole episodes have the same return"
        if pay.constant:
            same = f"every step pays {pay.commonest:g} and all episodes are equally long"
        yield Finding(
            "warning",
            f"{same}: nothing says which policy is better. If other rewards or early ends are "
            "possible, explore for longer (--experience.explore-episodes, "
            "--experience.explore-rho)",
        )
    elif pay.constant:
        what = "how long the episode lasts" if pay.commonest > 0 else "how soon it ends"
        yield Finding("note", f"every step pays {pay.commonest:g}: the return is {what}")
    elif survival(found):
        yield Finding(
            "note",
            f"all steps pay {pay.commonest:g} but some last ones: the return is how long the "
            "episode lasts",
        )
    elif 1 - pay.share < SOME_REWARDS:
        yield Finding("note", f"rewards are rare: {1 - pay.share:.1%} of the steps")
    if pay.low < 0 and pay.high <= 0:
        yield Finding(
            "note",
            f"no reward is above 0 ({pay.low:g} to {pay.high:g}): an early end looks good where M "
            "dreams one",
        )
    if max(abs(pay.low), abs(pay.high)) > 1e6:
        largest = max(abs(pay.low), abs(pay.high))
        yield Finding("note", f"rewards reach {largest:.3g} in size; M scales them")


def _of_seeds(found: Examination) -> Iterator[Finding]:
    if not found.repeatable:
        yield Finding(
            "warning",
            "the same seed and actions gave other frames or rewards: nothing can be reproduced. "
            "Draw all that is random from self.np_random, after super().reset(seed=seed)",
        )
    if found.same_resets and not found.frames.same:
        yield Finding("note", "all episodes begin with the same frame, whatever the seed")
