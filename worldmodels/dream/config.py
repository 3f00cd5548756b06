"""What can be chosen about dreams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

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

Termination: TypeAlias = Literal["threshold", "sampled", "off"]
Probability: TypeAlias = Annotated[float, Above(0), Below(1)]


@dataclass(frozen=True)
class Ends(Config):
    """Where M's predictions end a dream: an agent keeps the meaning that it was trained with."""

    termination: Termination = "sampled"
    """above a threshold of M's probability, at random with it, or never"""
    termination_threshold: Probability = 0.5
    """probability above which a dream ends; for termination "threshold" only"""


@dataclass(frozen=True)
class DreamConfig(Config):
    """Length, randomness and arithmetic of dreams."""

    horizon: Annotated[int, AtLeast(1), Limit(10**6)] = 300
    """maximum length of a dream, in steps"""
    episodes: Annotated[int, AtLeast(1), Limit(10**6)] = 16
    """dreams per candidate"""
    temperature: NotNegative = 1.0
    """temperature of the mixture: above 1 dreams are noisier, at 0 they are deterministic"""
    dropout: Decay = 0.0
    """fraction of h that M drops; one mask per dream"""
    reward: Literal["expected", "sampled"] = "expected"
    """whether an uncertain event or reward pays its expectation or is sampled"""
    termination: Termination = "threshold"
    """end a dream above a threshold of M's probability, at random with it, or never"""
    termination_threshold: Probability = 0.5
    """probability above which a dream ends; for termination "threshold" only"""
    discount: PositiveFraction = 1.0
    """discount factor per step"""
    ensemble: Literal["first", "per_rollout", "per_step"] = "per_rollout"
    """which of several memories dreams: the first, another one per dream, or one drawn per step"""
    disagreement_penalty: NotNegative = 0.0
    """penalty per unit of the memories' disagreement about z; for ensemble "per_step" only"""
    disagreement_limit: NotNegative = 0.0
    """disagreement above which a dream ends; 0 for no limit; for ensemble "per_step" only"""
    no_event_penalty: NotNegative = 0.0
    """penalty, in units of an event's reward, of a step in which M expects no event; without effect
    on rewards without events (raw, two_hot)"""
    no_event_below: Positive = 0.5
    """expected number of events below which the penalty sets in, linearly"""
    common_random_numbers: bool = True
    """evaluate all candidates on the same starts, noise and masks"""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """type of the matrix products; auto takes bfloat16 where the machine multiplies it fast"""
    backend: Literal["auto", "kernels", "torch"] = "auto"
    """compiled kernels (CPU) or plain torch (any device); auto takes kernels on a CPU"""
    threads: Annotated[int, AtLeast(0), Limit(1024)] = 0
    """threads on a CPU; 0 takes a run's worker processes, or as many as torch does, at most 4"""
    chunk_rows: Annotated[int, AtLeast(1), Limit(10**6)] = 512
    """dreams stepped together by one thread, which bounds the memory used"""

    @property
    def ends(self) -> Ends:
        """Where dreams end."""
        return Ends(self.termination, self.termination_threshold)

    def _check(self) -> None:
        if self.ensemble != "per_step" and (self.disagreement_penalty or self.disagreement_limit):
            self.refuse(
                "ensemble",
                "per_step with a disagreement_penalty or disagreement_limit, which need every "
                "memory to follow every dream",
            )
