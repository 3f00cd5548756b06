"""Plans, the numbers that they consist of, and the time budget of a search."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodels.config import Config, Horizon, HorizonOrZero, NotNegative, PositiveFraction, Size
from worldmodels.envs.spaces import ActionSpec

Array = NDArray[np.float32]
LEAD = 0.1
"""Score of a choice that was made, and minus the scores of the others: a policy's own choices lead,
but by less than what searches and residuals change at their usual settings."""
AnyArray = TypeVar("AnyArray", Tensor, Array)


@dataclass(frozen=True)
class ObjectiveConfig(Config):
    """The score of a plan, from M's dreams under it."""

    horizon: Horizon = 15
    """decisions in a plan; each is held for the agent's action_repeat steps of the environment"""
    tail: HorizonOrZero = 0
    """decisions of C in the dream after the plan's end, whose rewards also count"""
    critic: bool = False
    """add a critic's value of the state at the end; needs an actor-critic trained in the dream"""
    around: Literal["best", "controller"] = "best"
    """policy that proposes plans, acts after their end and is improved by rollouts: C with its
    residual where the agent has one (best), or C alone"""
    proposal: bool = False
    """let C's own plans, from its dreams, compete with the searched ones and start the search"""
    particles: Size = 4
    """dreams that a plan is scored on, by common random numbers"""
    discount: PositiveFraction = 0.99
    """weight of a reward relative to the one before it"""
    temperature: NotNegative = 1.0
    """tau of the mixture; at 0 dreams are deterministic and one particle is enough"""
    risk: PositiveFraction = 1.0
    """fraction of the worst dreams that counts (CVaR); 1 is the mean"""
    disagreement_penalty: NotNegative = 0.0
    """subtracted from the reward per unit of the memories' disagreement; needs several memories"""
    no_event_penalty: NotNegative = 0.0
    """subtracted from the reward of a step in which M expects no event, same as in evolution: plans
    are too short to show what a missed tile costs later"""


@dataclass(frozen=True)
class Plan:
    """A planner's decision: the first action is executed, the rest starts the next search."""

    actions: Array  #: (T, A)
    score: float  #: by the objective
    kept: Array  #: (K, T, A) further candidates for the next decision; K may be 0
    iterations: int  #: of the search; fewer than configured where a time budget ran out
    samples: int  #: plans that were scored
    seconds: float  #: that the search took

    def shifted(self) -> Plan:
        """The plan one decision later: without its first action, its last one repeated."""
        plans = np.concatenate((self.actions[None], self.kept))
        later = np.concatenate((plans[:, 1:], plans[:, -1:]), axis=1)
        return replace(self, actions=later[0], kept=later[1:])


class Bounds(Protocol):
    """Bounds of a plan's numbers."""

    low: Array  #: (A,) smallest
    high: Array  #: (A,) largest


class Numbers:
    """The numbers of plans and actors: a Box's actions, or a score for each discrete choice."""

    def __init__(self, spec: ActionSpec) -> None:
        """Take the bounds of an action space; scores lie in [-1, 1], and the largest one acts."""
        self.discrete, self.whole = spec.kind == "discrete", spec.integer
        unit = np.ones(spec.size, np.float32)
        self.low = -unit if self.discrete else np.array(spec.low, np.float32)
        self.high = unit if self.discrete else np.array(spec.high, np.float32)

    def to_input(self, numbers: Tensor) -> Tensor:
        """Numbers (..., A) as M sees actions, with a gradient: as they are, whole, or one-hot."""
        if self.discrete:
            return straight_through(numbers)
        return numbers + (numbers.round() - numbers).detach() if self.whole else numbers

    def of_input(self, action: AnyArray) -> AnyArray:
        """M's action input (..., A) as numbers: a choice as scores, LEAD and -LEAD."""
        return (action * 2 - 1) * LEAD if self.discrete else action


def straight_through(scores: Tensor) -> Tensor:
    """The largest of the scores (..., n) one-hot, with the gradient of their softmax.

    The straight-through estimator (Bengio et al. 2013, arXiv:1308.3432).
    """
    soft = torch.softmax(4 * scores, dim=-1)
    hard = torch.nn.functional.one_hot(scores.argmax(-1), scores.shape[-1]).to(scores.dtype)
    return hard + soft - soft.detach()


class Budget:
    """The time budget of a search."""

    def __init__(self, milliseconds: float = 0.0) -> None:
        """Start the clock; 0 is no limit."""
        self._limit = milliseconds / 1000
        self._began = self._last = time.perf_counter()
        self._longest = 0.0

    @property
    def seconds(self) -> float:
        """Elapsed since the start."""
        return time.perf_counter() - self._began

    def allows(self, done: int) -> bool:
        """Whether another iteration, as long as the longest so far, fits; the first always does."""
        now = time.perf_counter()
        if done:
            self._longest = max(self._longest, now - self._last)
        self._last = now
        return not self._limit or not done or now - self._began + self._longest <= self._limit
