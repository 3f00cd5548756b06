"""The record of what a few episodes showed about an environment; JSON can hold it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from worldmodels.envs.spaces import ActionSpec

HOLDS = (1, 2, 3, 4)
"""Steps between two frames whose difference is measured."""
SHORTEST = 10
"""Decisions that an episode of random actions keeps, however long actions are held."""
RARE = 0.02
"""Fraction of steps up to which what happens in them is rare."""
SOME_REWARDS = 0.05
"""Fraction of steps that pay something else below which rewards are rare enough to be named."""
MOST = 0.5
"""Fraction of steps that pay one and the same reward from which the others are sparse."""


def is_rare(rate: float) -> bool:
    """Whether something happens, but in few steps."""
    return 0 < rate <= RARE


@dataclass(frozen=True)
class Reach:
    """How far one kind of actions came."""

    name: str
    """such as "a choice kept with 0.7" """
    kind: str
    """"uniform", "sticky", "noise" or "held" """
    value: float
    """probability of keeping the choice, deviation of the noise, or number of the action"""
    episodes: int
    length: float
    """steps for each episode that ended, which is their mean length where none was cut; at most the
    time limit"""
    variety: float
    """standard deviation of V's pixels over all frames, mean of the pixels, 0 to 255"""
    rewarded: float
    """fraction of steps with a better reward than the commonest"""
    mean_return: float


@dataclass(frozen=True)
class Frames:
    """What was seen."""

    shape: tuple[int, ...]
    kind: str
    """"colour" or "grey" """
    mean: float
    """brightness of V's pixels, 0 to 255"""
    std: float
    """its standard deviation, over pixels and frames"""
    black: float
    """fraction of frames that are all but black; so for the next two"""
    white: float
    plain: float
    """of frames of one colour"""
    same: bool
    """whether all frames are equal"""
    changed: float
    """fraction of pixels that a step changes, mean of all steps"""
    still: float
    """fraction of steps that change no pixel"""
    motion: tuple[float, ...]
    """largest change of one of V's pixels, 0 to 255, from a frame to the one `HOLDS` steps later:
    median over frames that change at all"""


@dataclass(frozen=True)
class Rewards:
    """What was paid."""

    commonest: float
    share: float
    """fraction of steps that pay it"""
    low: float
    high: float
    mean: float
    std: float
    at_ends: bool
    """whether steps that terminate an episode, and no others, pay another than the commonest
    reward; never so where each step terminates one"""
    same_returns: bool = False
    """whether all episodes that were not cut, two or more, have the same return"""

    @property
    def constant(self) -> bool:
        """Whether every step pays the same."""
        return self.share == 1.0

    @property
    def varied(self) -> bool:
        """Whether no reward is that of most steps."""
        return self.share < MOST


@dataclass(frozen=True)
class Ends:
    """How long episodes were, and why they ended."""

    limit: int | None
    """the environment's time limit, or the user's where that is shorter; None: there is none"""
    terminated: int
    """episodes that ended by themselves"""
    truncated: int
    """that the time limit ended"""
    cut: int
    """that were cut here, since there are other things to measure"""
    shortest: int
    """steps of the shortest episode that was not cut; 0 where all were"""
    longest: int
    """steps of the longest episode"""
    rate: float
    """terminated episodes per step"""
    natural: int | None = None
    """steps of a random episode that was played to its end, as no other had ended and there is no
    time limit; None where there was no need, or where it did not end"""

    @property
    def rare(self) -> bool:
        """Whether some episodes end by themselves, but few steps do it."""
        return is_rare(self.rate)

    @property
    def endless(self) -> bool:
        """Whether nothing ends an episode, as far as was seen."""
        ended = self.terminated + self.truncated > 0 or self.natural is not None
        return self.limit is None and not ended


@dataclass(frozen=True)
class Examination:
    """What a few episodes showed; JSON can hold it."""

    env_id: str
    seed: int
    steps: int
    """steps of the environment that this cost"""
    actions: ActionSpec
    skip: int | None
    """steps for which the environment holds each action by itself, where it says so"""
    frames: Frames
    rewards: Rewards
    ends: Ends
    reached: tuple[Reach, ...]
    repeatable: bool
    """whether the same seed and actions gave the same frames and rewards"""
    same_resets: bool
    """whether all seeds give the same first frame"""
    steps_per_second: float
    """for the eye only: no setting follows from it"""
    picture: str = field(repr=False)
    """PNG in base64: what V would see at four moments of an episode, side by side"""
    stacked: bool = False
    """whether four channels, which are taken for RGBA, are four grey frames, the newest last"""
    symmetric: bool = False
    """whether the task knows a flip of what V sees that leaves the rules unchanged"""

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """The inverse of `worldmodels.runs.to_jsonable`."""
        frames, actions = dict(record["frames"]), dict(record["actions"])
        for name in ("shape", "motion"):
            frames[name] = tuple(frames[name])
        for name in ("low", "high"):
            actions[name] = tuple(actions[name])
        parts = {
            "frames": Frames(**frames),
            "actions": ActionSpec(**actions),
            "rewards": Rewards(**record["rewards"]),
            "ends": Ends(**record["ends"]),
            "reached": tuple(Reach(**reach) for reach in record["reached"]),
        }
        return cls(**{**record, **parts})

    @property
    def random(self) -> tuple[Reach, ...]:
        """What random actions reached; not those that hold one action."""
        return tuple(reach for reach in self.reached if reach.kind != "held")

    @property
    def dense(self) -> bool:
        """Whether most steps pay something else, and no end is rare: a few episodes teach much."""
        return self.rewards.varied and not self.ends.rare

    @property
    def survival(self) -> bool:
        """Whether the return is how long the episode lasts.

        All steps pay the same, but for some last ones, which pay less: one that pays more is a
        goal.
        """
        pay, ends = self.rewards, self.ends
        if pay.commonest <= 0 or ends.terminated == 0:
            return False
        lasts = pay.at_ends and pay.high == pay.commonest and ends.shortest < ends.longest
        return pay.constant or lasts

    @property
    def goal(self) -> bool:
        """Whether nothing pays more but a step that ends the episode."""
        return self.rewards.at_ends and self.rewards.high > self.rewards.commonest

    @property
    def png(self) -> bytes:
        """The picture."""
        return base64.b64decode(self.picture)
