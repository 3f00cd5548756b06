"""Actor and critic on [z, h], or on [z, h, c] for an agent whose C sees c.

For them h is all that they see of M, and H its width: `Agent.seen_dim`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
import torch
from torch import Tensor, nn

from worldmodels.agent import Agent
from worldmodels.config import AtLeast, Config, Limit, NotNegative, Positive, Size, SizeOrZero
from worldmodels.controller.linear import Components, ControllerConfig, controller_inputs
from worldmodels.envs.spaces import ActionSpec
from worldmodels.planning.gradient import squash
from worldmodels.planning.plan import Numbers
from worldmodels.protocols import LatentPolicy

NEAR_EDGE = 0.76
"""First actions of an actor: near zero, but within this fraction of half the range."""
LOG_STD = (-4.0, 1.0)
"""Bounds of the log of the actor's standard deviation, before squashing."""
C_EDGE = 0.995
"""C's actions are clipped to this fraction of half the range, where tanh has an inverse."""


@dataclass(frozen=True)
class NetworkConfig(Config):
    """Shape of actor and critic."""

    hidden: Size = 256
    """units of each hidden layer"""
    layers: Annotated[int, AtLeast(1), Limit(100)] = 2
    """hidden layers"""
    components: SizeOrZero = 32
    """whitened principal components of [z, h] that the networks see, at most; 0 shows [z, h]"""
    residual: NotNegative = 0.0
    """learn changes of C's actions: the largest change of an action's u (action = middle + half
    tanh(u)), so that the search stays near C's data. 0 is an actor from scratch"""
    noise: Positive | None = None
    """standard deviation of the actor's u in training (default: learn it)"""


class Inputs(nn.Module):
    """What actor and critic see: z and h, or the principal components that C is searched in.

    The components leave out directions in which M's state hardly varies: a gradient finds them, and
    M was not trained there.
    """

    mean: Tensor
    analysis: Tensor

    def __init__(self, z_dim: int, h_dim: int, cfg: NetworkConfig) -> None:
        """Allocate the components, which `fit` finds or a file brings."""
        super().__init__()
        self.size = min(cfg.components, z_dim + h_dim) or z_dim + h_dim
        if cfg.components:
            self.register_buffer("mean", torch.zeros(z_dim + h_dim))
            self.register_buffer("analysis", torch.zeros(self.size, z_dim + h_dim))
        self.all = not cfg.components

    def fit(self, agent: Agent) -> Inputs:
        """Find the components of the agent's recorded states; few states have fewer of them."""
        if self.all or agent.starts is None:
            return self
        seen = controller_inputs(
            ControllerConfig(), agent.starts.z, agent.starts.seen(agent.controller.carry)
        )
        count = min(self.size, len(seen))
        found = Components.of(seen, count, ControllerConfig())
        self.mean.copy_(torch.from_numpy(found.mean))
        self.analysis[:count].copy_(torch.from_numpy(found.analysis))
        return self

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        """The inputs (..., K) of z (..., Z) and h (..., H)."""
        seen = torch.cat((z, h), dim=-1)
        return seen if self.all else (seen - self.mean) @ self.analysis.T


def perceptron(inputs: int, outputs: int, cfg: NetworkConfig) -> nn.Sequential:
    """Linear layers with layer norm and SiLU between them; the last one starts near zero."""
    parts: list[nn.Module] = []
    for width in [inputs] + [cfg.hidden] * (cfg.layers - 1):
        parts += [nn.Linear(width, cfg.hidden), nn.LayerNorm(cfg.hidden), nn.SiLU()]
    last = nn.Linear(cfg.hidden, outputs)
    if not last.weight.is_meta:  # there torch would import its compiler first, for a second
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)
    return nn.Sequential(*parts, last)


class Actor(nn.Module):
    """A Gaussian over u, squashed into the actions' bounds by tanh; see `Numbers`.

    With `NetworkConfig.residual` the mean is C's u and a bounded change of it (residual policy
    learning, Silver et al. 2018, arXiv:1812.06298).
    """

    low: Tensor
    high: Tensor
    shift: Tensor

    def __init__(self, z_dim: int, h_dim: int, spec: ActionSpec, cfg: NetworkConfig) -> None:
        """Draw weights by the global generator; the first actions are near 0."""
        super().__init__()
        self.cfg, self.numbers = cfg, Numbers(spec)
        low, high = self.numbers.low, self.numbers.high
        near = np.clip(-(high + low) / (high - low), -NEAR_EDGE, NEAR_EDGE)
        for name, value in (("low", low), ("high", high), ("shift", np.arctanh(near))):
            self.register_buffer(name, torch.from_numpy(value.astype(np.float32)))
        self.inputs = Inputs(z_dim, h_dim, cfg)
        self.body = perceptron(self.inputs.size, 2 * spec.size, cfg)
        self.controller: LatentPolicy | None = None

    @classmethod
    def of(cls, agent: Agent, cfg: NetworkConfig) -> Self:
        """An untrained actor for an agent, with its spaces and components, and C for a residual."""
        actor = cls(agent.z_dim, agent.seen_dim, agent.action_spec, cfg)
        actor.inputs.fit(agent)
        actor.lead(agent)
        return actor

    def lead(self, agent: Agent) -> None:
        """Set the C whose actions a residual changes."""
        if self.cfg.residual:
            self.controller = agent.linear

    def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of u, each (B, A), from z (B, Z) and h (B, H)."""
        mean, raw = self.body(self.inputs(z, h)).chunk(2, dim=-1)
        low, high = LOG_STD
        log_std = (raw - 1.0).clamp(low, high)
        if self.cfg.noise is not None:
            log_std = torch.full_like(raw, math.log(self.cfg.noise))
        return self.changed(mean, z, h), log_std

    def changed(self, mean: Tensor, z: Tensor, h: Tensor) -> Tensor:
        """The u (..., B, A) for outputs (..., B, A) of the body."""
        if self.controller is None:
            return mean + self.shift
        middle, half = (self.high + self.low) / 2, (self.high - self.low) / 2
        numbers = self.numbers.of_input(self.controller(z, h))
        own = torch.atanh(((numbers - middle) / half).clamp(-C_EDGE, C_EDGE))
        bound = self.cfg.residual
        return own + bound * torch.tanh(mean / bound)

    def act(self, u: Tensor) -> Tensor:
        """Squash u (B, A) into the bounds."""
        return squash(u, self.low, self.high)

    def mode(self, z: Tensor, h: Tensor) -> Tensor:
        """The mode (B, A) of the actor's actions."""
        return self.act(self(z, h)[0])

    def tried(self, u: Tensor) -> Tensor:
        """M's action input (B, A) for u (B, A), with a gradient."""
        return self.numbers.to_input(self.act(u))

    def chosen(self, u: Tensor) -> Tensor:
        """M's action input (B, A) for u (B, A), without one for choices, which are 0 and 1."""
        if not self.numbers.discrete:
            return self.tried(u)
        return nn.functional.one_hot(self.act(u).argmax(-1), len(self.low)).float()


class Critic(nn.Module):
    """The value of a state: a perceptron times a fixed scale, which is that of the returns."""

    scale: Tensor

    def __init__(self, z_dim: int, h_dim: int, cfg: NetworkConfig) -> None:
        """Draw weights by the global generator; the first values are near 0."""
        super().__init__()
        self.inputs = Inputs(z_dim, h_dim, cfg)
        self.body = perceptron(self.inputs.size, 1, cfg)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        """Values (B,) of z (B, Z) and h (B, H)."""
        value: Tensor = self.body(self.inputs(z, h)).squeeze(-1)
        return self.scale * value
