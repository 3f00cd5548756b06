"""What M's reward head says, and how it becomes a reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from worldmodels.config import Config

RewardKind: TypeAlias = Literal["hit", "count", "raw"]
"""Forms of reward; see `RewardModel`."""

_MOST_EVENTS = 8


@dataclass(frozen=True)
class RewardModel(Config):
    """Turns the reward head's output into a reward; stored in the agent's config.json."""

    kind: RewardKind = "hit"
    """hit: the output is the logit of an event worth hit_value; count: there may be several in a
    step, and softplus of the output is their expected number; raw: a scaled reward"""
    base: float = 0.0
    """reward of every step (kinds hit and count)"""
    hit_value: float = 1.0
    """what an event adds (kinds hit and count)"""
    scale: float = 1.0
    """reward per unit of output (kind raw)"""
    shift: float = 0.0
    """reward at output 0 (kind raw)"""

    def expected(self, output: Tensor) -> Tensor:
        """Expected reward for the reward head's output (any shape)."""
        if self.kind == "raw":
            return self.scale * output + self.shift
        return self.base + self.hit_value * self.events(output)

    def events(self, output: Tensor) -> Tensor:
        """Expected number of events for the reward head's output (any shape; not kind raw)."""
        assert self.kind != "raw", "a raw reward has no events"
        return torch.sigmoid(output) if self.kind == "hit" else functional.softplus(output)

    def sampled(self, output: Tensor, uniform: Tensor) -> Tensor:
        """Reward with the events drawn by ``uniform`` in [0, 1) (kind raw: the expected one).

        Kind count draws from a Poisson distribution, at most 8 events in a step.
        """
        if self.kind == "raw":
            return self.expected(output)
        if self.kind == "count":
            rate = functional.softplus(output)
            chance = below = torch.exp(-rate)
            count = torch.zeros_like(rate)
            for number in range(1, _MOST_EVENTS + 1):
                count += uniform >= below
                chance = chance * rate / number
                below = below + chance
            return self.base + self.hit_value * count
        return self.base + self.hit_value * (uniform < torch.sigmoid(output)).to(output.dtype)

    def target(self, reward: Tensor) -> Tensor:
        """What the head should say for a recorded reward.

        0 or 1 (hit), the number of events, of which fractions are allowed (count), or the scaled
        reward (raw).
        """
        if self.kind == "raw":
            return (reward - self.shift) / self.scale
        if self.kind == "count":
            return ((reward - self.base) / self.hit_value).clamp_min(0)
        return (reward > self.base + 0.5 * self.hit_value).to(reward.dtype)
