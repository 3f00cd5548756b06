"""What can be chosen about dreams."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from worldmodels.protocols import UserError


@dataclass(frozen=True)
class DreamConfig:
    """Length, uncertainty and arithmetic of dreams."""

    horizon: int = 300
    """longest dream, in steps"""
    episodes: int = 16
    """dreams that each candidate is judged on"""
    temperature: float = 1.0
    """tau of the mixture: above 1 dreams are less certain, at 0 they are deterministic"""
    dropout: float = 0.0
    """share of h that M forgets; one mask for the whole of a dream"""
    reward: Literal["expected", "sampled"] = "expected"
    """an uncertain event pays its expectation, or all or nothing"""
    termination: Literal["threshold", "sampled", "off"] = "threshold"
    """a dream ends where M finds it likely enough, at random with M's probability, or never"""
    termination_threshold: float = 0.5
    """probability above which a dream ends (termination "threshold")"""
    discount: float = 1.0
    """weight of a reward relative to the one before it"""
    ensemble: Literal["first", "per_rollout", "per_step"] = "per_rollout"
    """who dreams when there are several memories: the first one only; one for each dream, in
    turn; or one drawn at every step"""
    disagreement_penalty: float = 0.0
    """subtracted from the reward per unit of the memories' disagreement about z (per_step only)"""
    disagreement_limit: float = 0.0
    """a dream ends where disagreement exceeds this; 0 is no limit (per_step only)"""
    miss_penalty: float = 0.0
    """subtracted from the reward of a step in which M expects no event (CarRacing: no new tile), in
    units of an event's; what a dream without an end cannot show is that one missed tile takes the
    end of the lap with it. Nothing where M's rewards are raw numbers"""
    miss_below: float = 0.5
    """expected events at which that begins; it grows in proportion as they are fewer"""
    common_random_numbers: bool = True
    """all candidates meet the same starts, noise and masks, so that they differ by merit only"""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """numbers in the matrix products; auto takes bfloat16 where the machine multiplies it fast"""
    backend: Literal["auto", "kernels", "torch"] = "auto"
    """compiled kernels (CPU) or plain torch (any device); auto takes kernels on a CPU"""
    threads: int = 0
    """threads that dream side by side on a CPU; 0 takes as many as torch does, but no more than 4:
    eight were slower than two, as they probably wait for Python's lock"""
    chunk_rows: int = 512
    """dreams stepped together by one thread; bounds the memory whatever the population"""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UserError: names the field, its value and what is allowed.
        """
        for name in ("horizon", "episodes", "chunk_rows"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        free = ("temperature", "disagreement_penalty", "disagreement_limit", "miss_penalty")
        for name in (*free, "threads"):
            value = getattr(self, name)
            self._require(name, 0 <= value < math.inf, "at least 0 and finite")
        self._require("dropout", 0 <= self.dropout < 1, "in [0, 1)")
        self._require("miss_below", 0 < self.miss_below < math.inf, "above 0 and finite")
        self._require("discount", 0 < self.discount <= 1, "in (0, 1]")
        self._require("termination_threshold", 0 < self.termination_threshold < 1, "in (0, 1)")
        for name, allowed in _CHOICES.items():
            self._require(name, getattr(self, name) in allowed, f"one of {', '.join(allowed)}")
        if self.ensemble != "per_step" and (self.disagreement_penalty or self.disagreement_limit):
            raise UserError(
                f"DreamConfig.ensemble is {self.ensemble!r}, but disagreement_penalty and "
                'disagreement_limit need "per_step", where every memory follows every dream'
            )

    def _require(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise UserError(f"DreamConfig.{name} is {getattr(self, name)!r}; it must be {allowed}")


_CHOICES = {
    "reward": ("expected", "sampled"),
    "termination": ("threshold", "sampled", "off"),
    "ensemble": ("first", "per_rollout", "per_step"),
    "dtype": ("auto", "bfloat16", "float32"),
    "backend": ("auto", "kernels", "torch"),
}

__all__ = ["DreamConfig"]
