"""From the output of M's reward head to a reward, and the losses of both scalar heads.

``valid`` (B, T) is 1 for a step of the episode and 0 after its end. A loss is a sum over the valid
steps divided by their number, so padding changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from worldmodels.config import Config, Former

RewardKind: TypeAlias = Annotated[Literal["event", "count", "raw"], Former({"hit": "event"})]
"""Forms of reward; see `RewardModel`."""

_MOST_EVENTS = 8


@dataclass(frozen=True)
class RewardModel(Config):
    """Maps the reward head's output to a reward; stored in the agent's config.json."""

    FORMER: ClassVar[Mapping[str, str]] = {"hit_value": "event_value"}

    kind: RewardKind = "event"
    """event: the output is an event's logit; count: its softplus is the expected number of events;
    raw: a scaled reward"""
    base: float = 0.0
    """reward of every step (kinds event and count)"""
    event_value: float = 1.0
    """what an event adds (kinds event and count)"""
    scale: float = 1.0
    """reward per unit of output (kind raw); 0 where every step pays the same"""
    shift: float = 0.0
    """reward at output 0 (kind raw)"""

    def expected(self, output: Tensor) -> Tensor:
        """Expected reward for the reward head's output (any shape)."""
        if self.kind == "raw":
            return self.scale * output + self.shift
        return self.base + self.event_value * self.events(output)

    def events(self, output: Tensor) -> Tensor:
        """Expected number of events for the reward head's output (any shape; not kind raw)."""
        assert self.kind != "raw", "a raw reward has no events"
        return torch.sigmoid(output) if self.kind == "event" else functional.softplus(output)

    def sampled(self, output: Tensor, uniform: Tensor) -> Tensor:
        """Reward with the events drawn by ``uniform`` in [0, 1) (kind raw: the expected one).

        Kind count draws from a Poisson distribution, at most 8 events in a step.
        """
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
        return self.base + self.event_value * count

    def target(self, reward: Tensor) -> Tensor:
        """Target of the reward head for a recorded reward (any shape).

        0 or 1 (event), the number of events, which may be a fraction (count), or the scaled reward.
        """
        if self.kind == "raw":
            return (reward - self.shift) / (self.scale or 1.0)
        if self.kind == "count":
            return ((reward - self.base) / self.event_value).clamp_min(0)
        return (reward > self.base + 0.5 * self.event_value).to(reward.dtype)


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


def reward_loss(kind: RewardKind, output: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Loss of the reward head's raw output (B, T) for `RewardModel.target` (B, T).

    "event": binary cross-entropy, in nats per step. "count": Poisson negative log-likelihood up to
    a constant, a quasi-likelihood that also fits fractions. "raw": squared error.
    """
    if kind == "event":
        return event_loss(output, target, valid)
    if kind == "raw":
        return masked_mean((output - target.to(output.dtype)).square(), valid)
    rate = functional.softplus(output)
    log_rate = torch.log(rate.clamp_min(1e-8))
    return masked_mean(rate - target.to(rate.dtype) * log_rate, valid)
