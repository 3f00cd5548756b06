"""What can be chosen about planning: what a plan is judged by, and how plans are searched."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, TypeAlias, get_args

from worldmodels.config import (
    AtLeast,
    Config,
    Count,
    Decay,
    Fraction,
    Horizon,
    HorizonOrZero,
    Limit,
    NotNegative,
    Positive,
    PositiveFraction,
    Size,
)

Method: TypeAlias = Literal["cem", "icem", "mppi", "gradient", "rollout"]
"""Ways to search for a plan."""

METHODS: tuple[Method, ...] = get_args(Method)
"""All of them."""


@dataclass(frozen=True)
class ObjectiveConfig(Config):
    """What a plan is judged by: M's dreams under it, summed up to one number."""

    horizon: Horizon = 15
    """decisions in a plan; each is held for the agent's action_repeat steps of the environment"""
    tail: HorizonOrZero = 0
    """decisions that C drives in the dream after the plan's end, so that a plan is also judged by
    what a driver can make of where it leads"""
    critic: bool = False
    """add a critic's value of the state at the end; needs an actor-critic trained in the dream"""
    around: Literal["best", "controller"] = "best"
    """who goes on after a plan's end, makes proposals, and is improved by rollouts: C with its
    residual where the agent has one, or C alone"""
    proposal: bool = False
    """let C's own plans, from its dreams, compete with the searched ones and start the search"""
    particles: Size = 4
    """dreams that a plan is judged on; every plan meets the same luck"""
    discount: PositiveFraction = 0.99
    """weight of a reward relative to the one before it"""
    temperature: NotNegative = 1.0
    """tau of the mixture; at 0 the latent is not sampled and one particle is enough"""
    risk: PositiveFraction = 1.0
    """share of the worst dreams that counts (CVaR); 1 is the mean"""
    disagreement_penalty: NotNegative = 0.0
    """subtracted from the reward per unit of the memories' disagreement; needs several memories"""
    miss_penalty: NotNegative = 0.0
    """subtracted from the reward of a step in which M expects no event, as a dream's in evolution:
    what a plan cannot show is that one missed tile takes the end of the lap with it"""


@dataclass(frozen=True)
class CEMConfig(Config):
    """The cross-entropy method; with the defaults of `icem` it is iCEM."""

    samples: Annotated[int, AtLeast(2), Limit(65_536)] = 192
    """plans drawn in the first iteration"""
    iterations: Count = 4
    """times that a Gaussian is drawn from and fitted to the best"""
    elites: PositiveFraction = 0.1
    """share of the plans that it is fitted to"""
    spread: NotNegative = 0.5
    """first standard deviation, as a share of half the action's range"""
    floor: NotNegative = 0.02
    """smallest standard deviation, as such a share"""
    momentum: Decay = 0.1
    """weight of the Gaussian before in each fit"""
    beta: NotNegative = 0.0
    """exponent of the noise's power spectrum over time, 1 / f^beta; 0 is white, 2 is Brownian"""
    decay: PositiveFraction = 1.0
    """factor on the number of samples from iteration to iteration"""
    keep: Decay = 0.0
    """share of the elites that compete again, in the next iteration and in the next decision"""
    execute: Literal["mean", "best"] = "mean"
    """what is done in the end: the Gaussian's mean, unless a proposal is better, or the best plan
    that was seen"""
    budget_ms: NotNegative = 0.0
    """stop before an iteration that would not end within so many milliseconds; 0 is no limit, and
    then plans are the same for the same seed"""

    @classmethod
    def icem(cls) -> CEMConfig:
        """Give iCEM (Pinneri et al. 2020, arXiv:2008.06389).

        Coloured noise, fewer samples from iteration to iteration, elites kept and shifted, and the
        best plan executed.
        """
        return cls(beta=2.0, decay=0.8, keep=0.3, execute="best")


@dataclass(frozen=True)
class MPPIConfig(Config):
    """Model-predictive path integral control (Williams et al. 2017, arXiv:1707.02342)."""

    samples: Annotated[int, AtLeast(2), Limit(65_536)] = 384
    """plans drawn around the mean in each iteration"""
    iterations: Count = 2
    """times that the mean is moved"""
    spread: NotNegative = 0.3
    """standard deviation of the noise, as a share of half the action's range"""
    temperature: Positive = 0.2
    """lambda: plans are weighed by exp(score / lambda), scores standardised over the plans"""
    beta: NotNegative = 1.0
    """exponent of the noise's power spectrum over time, 1 / f^beta"""
    budget_ms: NotNegative = 0.0
    """as of CEM"""


@dataclass(frozen=True)
class GradientConfig(Config):
    """Optimal control by back-propagation through the unrolled M."""

    iterations: Count = 20
    """steps of Adam"""
    restarts: Size = 4
    """plans that are improved side by side: the warm start, proposals, and random ones"""
    learning_rate: Positive = 0.1
    """of Adam, on actions before they are squashed into their bounds by tanh"""
    spread: NotNegative = 0.5
    """deviation of the random restarts around the warm start, before squashing"""
    clip_norm: NotNegative = 10.0
    """largest norm of one plan's gradient; 0 does not limit it"""
    budget_ms: NotNegative = 0.0
    """as of CEM"""


@dataclass(frozen=True)
class RolloutConfig(Config):
    """Policy improvement by rollouts: changes of what the driver does, dreamt and compared."""

    changes: Size = 11
    """changes that are drawn at each decision, beside no change at all"""
    hold: Count = 3
    """decisions that a change lasts in a dream; only the first one is executed"""
    spread: NotNegative = 0.3
    """standard deviation of a change, as a share of half the action's range"""
    margin: NotNegative = 2.0
    """the driver is overruled where a change gains more than so many standard errors of the gain"""
    alarm: Fraction = 0.0
    """search only where the worst of the driver's own dreams returns less than that share of the
    best; 0 always searches"""


@dataclass(frozen=True)
class PlanningConfig(Config):
    """A planner: how plans are judged, and the settings of each method."""

    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    cem: CEMConfig = field(default_factory=CEMConfig)
    """methods cem and icem"""
    mppi: MPPIConfig = field(default_factory=MPPIConfig)
    gradient: GradientConfig = field(default_factory=GradientConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)

    @classmethod
    def of(cls, method: str) -> PlanningConfig:
        """Give a method's settings for driving with an agent; of anything else those of CEM.

        They lean on the agent's C, which begins the search and drives after the plan's end, so that
        a small search near it is enough (docs/results/entries: 2026-11-24-planning; of rollouts,
        2026-11-26-rollouts). The settings' own defaults are those of a search from nothing.
        """
        if method == "rollout":
            objective = ObjectiveConfig(horizon=16, particles=16, discount=1.0)
            return cls(objective=objective, rollout=RolloutConfig(alarm=0.75))
        search = CEMConfig.icem() if method == "icem" else CEMConfig()
        particles = 2 if method == "gradient" else 4
        return cls(
            objective=ObjectiveConfig(horizon=12, tail=12, proposal=True, particles=particles),
            cem=replace(search, samples=48, iterations=2, spread=0.15),
            mppi=MPPIConfig(samples=64, iterations=1, spread=0.1),
            gradient=GradientConfig(iterations=5, restarts=2),
        )
