"""From the output of M's reward head to a reward, and the losses of the reward and end heads.

``valid`` (B, T) is 1 for a step of the episode and 0 after its end. A loss is a sum over the valid
steps divided by their number, so padding changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Annotated, ClassVar, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from worldmodels._from_json import Former
from worldmodels.config import Between, Config, Positive
from worldmodels.memory.mixture import select_component

RewardKind: TypeAlias = Annotated[
    Literal["event", "count", "raw", "two_hot"], Former({"hit": "event"})
]
"""Forms of reward; see `RewardModel`."""
_Symlog: TypeAlias = Annotated[float, Between(-80, 80)]

BINS = 31
"""K, outputs of a two_hot head. 47 and 63 predicted no better, and slow the dream (M's outputs are
padded to a multiple of 16)."""

GAIN = 64.0
"""Logits of the bins per unit of a two_hot head's output. Sharp predictions need logits that differ
by tens, and Adam moves a weight by its learning rate only: with 1 errors were two to four times as
large after 600 steps (`benchmarks/rewards.py`)."""

_MOST_EVENTS = 8
_LEAST_EVENT = 0.1
"""Part of an event's mean value from which a reward is one: a goal may pay less the later."""
_LEAST_LOG_PRIOR = -14.0


def symlog(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """``sign(x) log(1 + |x|)`` (DreamerV3, arXiv:2301.04104)."""
    return np.sign(x) * np.log1p(np.abs(x))


def symexp(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of `symlog`."""
    return np.sign(x) * np.expm1(np.abs(x))


@dataclass(frozen=True)
class RewardModel(Config):
    """Maps the reward head's output to a reward; stored in the agent's config.json."""

    FORMER: ClassVar[Mapping[str, str]] = {"hit_value": "event_value"}

    kind: RewardKind = "event"
    """event: the output is an event's logit; count: its softplus is the expected number of events;
    raw: a scaled reward; two_hot: logits of the reward's bins"""
    base: float = 0.0
    """reward of every step (kinds event and count)"""
    event_value: float = 1.0
    """what an event adds (kinds event and count)"""
    scale: float = 1.0
    """reward per unit of output (raw) or unit of the bins (two_hot); 0 where every step pays the
    same"""
    shift: float = 0.0
    """reward at output 0 (raw), or where the bins are densest (two_hot)"""
    low: _Symlog = field(default=0.0, metadata={"omit_default": True})
    """symlog of the lowest bin (two_hot)"""
    high: _Symlog = field(default=0.0, metadata={"omit_default": True})
    """symlog of the highest bin (two_hot)"""
    most: Positive | None = field(default=None, metadata={"omit_default": True})
    """events of the step that had most (count): M may not promise more; None for no limit"""

    def _check(self) -> None:
        if not self.low <= self.high:
            self.refuse("high", f"at least low ({self.low})")
        if not np.isfinite(self.bins).all():
            self.refuse("scale", "so small that every bin's reward is finite")

    @classmethod
    def spread(cls, reward: NDArray[np.float32]) -> RewardModel:
        """Kind two_hot with bins over the range of recorded rewards (S,).

        They are densest at the median, which is a bin, and their unit is the median distance of
        the other rewards from it: whatever the rewards' scale, sign and offset, the same bins.
        """
        middle = float(np.median(reward))
        away = reward.astype(np.float64) - middle
        others = np.abs(away)[np.abs(away) > 1e-6 * np.abs(reward).max()]
        if not len(others):
            return cls("two_hot", scale=0.0, shift=middle)
        scale = float(np.median(others))
        low, high = symlog(np.array([away.min(), away.max()]) / scale)
        step = (high - low) / (BINS - 2)
        first = np.floor(low / step)
        return cls(
            "two_hot",
            scale=scale,
            shift=middle,
            low=float(step * first),
            high=float(step * (first + BINS - 1)),
        )

    @property
    def has_events(self) -> bool:
        """Whether there are events: kinds event and count."""
        return self.kind in ("event", "count")

    @cached_property
    def bins(self) -> NDArray[np.float32]:
        """(K,) rewards of the bins, increasing (kind two_hot)."""
        with np.errstate(over="ignore"):
            away = self.scale * symexp(np.linspace(self.low, self.high, BINS))
            return (self.shift + away).astype(np.float32)

    def expected(self, output: Tensor) -> Tensor:
        """Expected reward (...) for the reward head's output (...), or (..., K) of kind two_hot."""
        if self.kind == "two_hot":
            return torch.softmax(GAIN * output, -1) @ _bins(self, output.dtype, output.device)
        if self.kind == "raw":
            return self.scale * output + self.shift
        return self.base + self.event_value * self.events(output)

    def events(self, output: Tensor) -> Tensor:
        """Expected number of events for the reward head's output (any shape, event or count)."""
        assert self.has_events, f"a {self.kind} reward has no events"
        if self.kind == "event":
            return torch.sigmoid(output)
        return functional.softplus(output).clamp_max(self._most)

    @property
    def _most(self) -> float:
        return math.inf if self.most is None else self.most

    def sampled(self, output: Tensor, uniform: Tensor) -> Tensor:
        """Reward (...) with the events drawn by ``uniform`` (...) in [0, 1).

        Kind count draws from a Poisson distribution, at most 8 events in a step; two_hot draws a
        bin, of which an event's two rewards are a special case; raw pays the expected reward.
        """
        if self.kind == "two_hot":
            return _bins(self, output.dtype, output.device)[
                select_component(GAIN * output, uniform)
            ]
        if self.kind == "raw":
            return self.expected(output)
        if self.kind == "event":
            return self.base + self.event_value * (uniform < self.events(output)).to(output.dtype)
        rate = self.events(output)
        chance = below = torch.exp(-rate)
        count = torch.zeros_like(rate)
        for number in range(1, _MOST_EVENTS + 1):
            count += uniform >= below
            chance = chance * rate / number
            below = below + chance
        return self.base + self.event_value * count.clamp_max(self._most)

    def target(self, reward: Tensor) -> Tensor:
        """Target of the reward head for a recorded reward (any shape).

        0 or 1 (event), the number of events, which may be a fraction (count), the scaled reward
        (raw), or its place among the bins, a fraction between two (two_hot).
        """
        if self.kind == "two_hot":
            bins = _bins(self, reward.dtype, reward.device)
            lower = (torch.bucketize(reward, bins, right=True) - 1).clamp(0, BINS - 2)
            width = (bins[lower + 1] - bins[lower]).clamp_min(torch.finfo(bins.dtype).tiny)
            return lower + ((reward - bins[lower]) / width).clamp(0, 1)
        if self.kind == "raw":
            return (reward - self.shift) / (self.scale or 1.0)
        if self.kind == "count":
            return ((reward - self.base) / self.event_value).clamp_min(0)
        return (reward > self.base + _LEAST_EVENT * self.event_value).to(reward.dtype)

    def prior(self, reward: Tensor) -> Tensor:
        """(K,) outputs for the bins' frequencies in recorded rewards (S,) (kind two_hot).

        As the bias of a head that is not trained they make it predict the mean reward.
        """
        if not self.scale:
            return torch.zeros(BINS)
        lower, part = _neighbours(self.target(reward))
        share = torch.bincount(lower, 1 - part, BINS) + torch.bincount(lower + 1, part, BINS)
        return torch.log(share / share.sum()).clamp_min(_LEAST_LOG_PRIOR) / GAIN

    def loss(self, output: Tensor, reward: Tensor, valid: Tensor) -> Tensor:
        """Loss of the reward head's output (B, T), or (B, T, K), for recorded rewards (B, T).

        "event": binary cross-entropy, in nats per step. "count": Poisson negative log-likelihood
        up to a constant, a quasi-likelihood that also fits fractions. "raw": squared error.
        "two_hot": cross-entropy with the two nearest bins, in nats per step; weighted by nearness
        in the reward itself, so that the best prediction's mean is the mean reward. 0 where the
        reward is known.
        """
        target = self.target(reward)
        if self.kind == "event":
            return event_loss(output, target, valid)
        if self.kind == "two_hot":
            lower, part = _neighbours(target)
            places = torch.stack((lower, lower + 1), -1)
            below, above = torch.log_softmax(GAIN * output, -1).gather(-1, places).unbind(-1)
            loss = -torch.lerp(below, above, part)
            return masked_mean(loss, valid if self.scale else torch.zeros_like(valid))
        if self.kind == "raw":
            return masked_mean((output - target.to(output.dtype)).square(), valid)
        rate = functional.softplus(output)
        log_rate = torch.log(rate.clamp_min(1e-8))
        return masked_mean(rate - target.to(rate.dtype) * log_rate, valid)


@lru_cache(maxsize=16)
def _bins(model: RewardModel, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Rewards of the bins (K,), kept on the device."""
    with torch.inference_mode(False):  # for all callers, gradients or not
        return torch.from_numpy(model.bins).to(device, dtype)


def _neighbours(place: Tensor) -> tuple[Tensor, Tensor]:
    """For places among the bins, the lower neighbour's index and the upper one's weight."""
    lower = place.long().clamp_max(BINS - 2)
    return lower, place - lower


def masked_mean(value: Tensor, valid: Tensor) -> Tensor:
    """Mean of ``value`` (B, T) over the steps where ``valid`` (B, T) is not 0; 0 without any.

    Values at steps that do not count may be anything, NaN included.
    """
    kept = torch.where(valid.bool(), value, torch.zeros_like(value))
    return kept.sum() / valid.sum().clamp_min(1)


def event_loss(logit: Tensor, event: Tensor, valid: Tensor) -> Tensor:
    """Binary cross-entropy of an event (B, T), 0 or 1, in nats per step; logit (B, T).

    For the end of the episode, a truncated episode's last step has no event.
    """
    cross_entropy = functional.binary_cross_entropy_with_logits
    return masked_mean(cross_entropy(logit, event.to(logit.dtype), reduction="none"), valid)
