"""Blocks of a report: the score at its top, key facts below, and bars of what the run cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from worldmodels.pages.document import Block


@dataclass(frozen=True)
class Tick:
    """A mark on a ruler, in percent of its length from the left."""

    place: float
    label: str
    rival: bool = False
    """another agent's score, above the ruler"""


@dataclass(frozen=True)
class Ruler:
    """A scale with a score on it; places are in percent of its length from the left."""

    alt: str
    """text alternative"""
    needle: float
    """place of the score"""
    band: tuple[float, float] | None
    """left end and width of its interval"""
    ticks: Sequence[Tick]


@dataclass(frozen=True)
class Score(Block):
    """The result in one large number."""

    number: str
    interval: str
    """empty where it is unknown"""
    claim: str
    """what the number is, in sentences"""
    ruler: Ruler | None


@dataclass(frozen=True)
class Fact:
    """A figure of the run."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Facts(Block):
    """Figures side by side."""

    facts: Sequence[Fact]


@dataclass(frozen=True)
class Bar:
    """A row of bars: segments, their sum and its share."""

    label: str
    parts: Sequence[float]
    """lengths, in any unit"""
    amount: str
    share: str
    note: str = ""
    style: str = ""
    """class in the style sheet"""


@dataclass(frozen=True)
class Bars(Block):
    """Rows of bars with one scale."""

    head: Sequence[str]
    bars: Sequence[Bar]
    whole: float
    """length of a full bar"""
    style: str
    """class in the style sheet"""
