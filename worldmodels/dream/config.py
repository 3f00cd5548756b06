"""What can be chosen about dreams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from worldmodels.config import (
    Above,
    AtLeast,
    Below,
    Config,
    Decay,
    Limit,
    NotNegative,
    Positive,
    PositiveFraction,
)


@dataclass(frozen=True)
class DreamConfig(Config):
    """Length, uncertainty and arithmetic of dreams."""

    horizon: Annotated[int, AtLeast(1), Limit(10**6)] = 300
    """longest dream, in steps"""
    episodes: Annotated[int, AtLeast(1), Limit(10**6)] = 16
    """dreams that each candidate is judged on"""
    temperature: NotNegative = 1.0
    """tau of the mixture: above 1 dreams are less certain, at 0 they are deterministic"""
    dropout: Decay = 0.0
    """share of h that M forgets; one mask for the whole of a dream"""
    reward: Literal["expected", "sampled"] = "expected"
    """an uncertain event pays its expectation, or all or nothing"""
    termination: Literal["threshold", "sampled", "off"] = "threshold"
    """a dream ends where M finds it likely enough, at random with M's probability, or never"""
    termination_threshold: Annotated[float, Above(0), Below(1)] = 0.5
    """probability above which a dream ends (termination "threshold")"""
    discount: PositiveFraction = 1.0
    """weight of a reward relative to the one before it"""
    ensemble: Literal["first", "per_rollout", "per_step"] = "per_rollout"
    """who dreams when there are several memories: the first one only; one for each dream, in
    turn; or one drawn at every step"""
    disagreement_penalty: NotNegative = 0.0
    """subtracted from the reward per unit of the memories' disagreement about z (per_step only)"""
    disagreement_limit: NotNegative = 0.0
    """a dream ends where disagreement exceeds this; 0 is no limit (per_step only)"""
    no_event_penalty: NotNegative = 0.0
    """subtracted, in units of an event's reward, from a step in which M expects no event
    (CarRacing: no new tile; with one missed the lap has no end); nothing where rewards are raw"""
    no_event_below: Positive = 0.5
    """expected events at which that begins; it grows in proportion as they are fewer"""
    common_random_numbers: bool = True
    """all candidates meet the same starts, noise and masks, so that they differ by merit only"""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """numbers in the matrix products; auto takes bfloat16 where the machine multiplies it fast"""
    backend: Literal["auto", "kernels", "torch"] = "auto"
    """compiled kernels (CPU) or plain torch (any device); auto takes kernels on a CPU"""
    threads: Annotated[int, AtLeast(0), Limit(1024)] = 0
    """threads that dream side by side on a CPU; 0 takes as many as torch does, but no more than 4
    (eight were slower than two, probably GIL contention)"""
    chunk_rows: Annotated[int, AtLeast(1), Limit(10**6)] = 512
    """dreams stepped together by one thread; bounds the memory whatever the population"""

    def _check(self) -> None:
        if self.ensemble != "per_step" and (self.disagreement_penalty or self.disagreement_limit):
            self.refuse(
                "ensemble",
                "per_step with a disagreement_penalty or disagreement_limit, which need every "
                "memory to follow every dream",
            )
