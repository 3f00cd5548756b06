"""Differentiable dreams under an actor that continue from gradient step to gradient step."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal, NamedTuple

import torch
import tyro
from torch import Tensor

from worldmodels.agent import Agent
from worldmodels.config import (
    Config,
    Count,
    CountOrZero,
    Few,
    Fraction,
    Horizon,
    HorizonOrZero,
    NotNegative,
    Positive,
    PositiveFraction,
    Size,
)
from worldmodels.memory.mixture import mixture_noise
from worldmodels.planning.gradient import shortened
from worldmodels.planning.networks import Actor, NetworkConfig
from worldmodels.planning.objective import Unrolled
from worldmodels.protocols import UserError


@dataclass(frozen=True)
class PolicyTrainConfig(Config):
    """Training of a policy in the dream; the defaults are for an actor from scratch."""

    steps: Count = 750
    """gradient steps"""
    actors: Few = 1
    """actors, trained from different seeds, that act by the mean of their u: they exploit
    different model errors, so averaging cancels them"""
    batch_size: Size = 128
    """dreams side by side; each continues where the step before left it"""
    horizon: Horizon = 15
    """decisions per gradient step"""
    max_length: Count = 250
    """decisions after which a dream restarts at a recorded state"""
    tail: HorizonOrZero = 0
    """decisions of the agent's C after the horizon, for a policy without a critic: their rewards
    are a value that needs no training"""
    critic: bool = True
    """learn values and add them at the horizon; otherwise only rewards to the tail's end count"""
    gradient: Literal["model", "reinforce"] = "model"
    """gradient of the actor: through the unrolled M, or by the score function (REINFORCE)"""
    discount: PositiveFraction = 0.97
    """weight of a reward relative to the one before it"""
    lambda_: Annotated[Fraction, tyro.conf.arg(name="lambda")] = 0.95
    """lambda of the returns: 1 trusts M's rewards to the horizon, 0 the critic at once"""
    entropy: NotNegative = 1e-3
    """reward per nat of the actor's entropy, in units of the returns' scale"""
    temperature: NotNegative = 1.0
    """tau of M's mixture"""
    learning_rate: Positive = 3e-4
    """of Adam, for actor and critic"""
    clip_norm: Positive = 1.0
    """largest norm of a network's gradient"""
    max_grad_norm_per_rollout: NotNegative = 0.03
    """largest norm of the loss's gradient with respect to the state of M in one dream at one step
    (each of z, h and c), times the number of dreams; otherwise a few dreams, whose gradients are
    hundreds of times as long as the others', dominate the update. 0 does not limit it"""
    target_decay: Fraction = 0.98
    """weight of the old target critic after each step"""
    ema_decay: Fraction = 0.0
    """weight of earlier actors in the average that is kept; 0 keeps the last actor"""
    critic_warmup_steps: CountOrZero = 0
    """first steps, in which only the critic learns"""
    no_event_penalty: NotNegative = 0.0
    """penalty for a decision in which M expects no event, same as in the dream that C evolves in"""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    checkpoint_every: Count = 50
    """steps between two checkpoints"""
    log_every: Count = 25
    """steps between two lines of metrics"""

    def _check(self) -> None:
        if self.gradient == "reinforce" and not self.critic:
            self.refuse("gradient", "'model' without a critic")
        if self.tail and self.critic:
            self.refuse("tail", "0 with a critic, which gives the value beyond the horizon")


def residual_training() -> PolicyTrainConfig:
    """Settings for a bounded change of C.

    The bound keeps the actor where M has data, so it may see all of [z, h], of which C sees a few
    principal components. docs/results/lab-notebook.md has the experiments.
    """
    return PolicyTrainConfig(
        steps=800,
        actors=3,
        entropy=0.0,
        ema_decay=0.99,
        critic_warmup_steps=150,
        network=NetworkConfig(components=0, residual=0.5, noise=0.05),
    )


class Imagined(NamedTuple):
    """T steps of B dreams under an actor."""

    z: Tensor  #: (T + 1, B, Z)
    h: Tensor  #: (T + 1, B, H), or [h, c]: what the actor sees of M
    reward: Tensor  #: (T, B) expected
    alive: Tensor  #: (T, B) chance that a dream continues after this step
    log_prob: Tensor  #: (T, B) of the actor's samples
    entropy: Tensor  #: (T, B) of the actor, in nats, before squashing
    tail_return: Tensor  #: (B,) C's rewards in the tail, discounted to its beginning


class Streams:
    """Dreams that continue from gradient step to gradient step, in states that the actor reaches.

    They are divided between the agent's memories, so that the actor cannot exploit the errors of
    one of them; the actor always sees the first memory's h.

    Attributes:
        z: (B, Z).
        h: (M, B, H) of each memory; those after the first are current only where they dream.
        c: (M, B, C).
        age: (B,) decisions since a dream began.
    """

    def __init__(self, agent: Agent, cfg: PolicyTrainConfig, generator: torch.Generator) -> None:
        """Start at recorded states; an agent without them, or a reward model, is a UserError."""
        if agent.starts is None or agent.reward_model is None:
            raise UserError("this agent has no recorded states or no reward model to dream with")
        self.cfg, self.generator = cfg, generator
        self._reward_model, self._controller = agent.reward_model, agent.linear
        self._carry = agent.controller.carry
        self._memories = [copy.deepcopy(m).requires_grad_(False) for m in agent.memories]
        starts = (agent.starts.z, agent.starts.h, agent.starts.c)
        self._starts = [torch.from_numpy(part).float() for part in starts]
        self._rows = torch.arange(cfg.batch_size).tensor_split(len(self._memories))
        self.z, self.h, self.c = self._begin()
        # of different ages, so that they do not all restart together
        self.age = torch.randint(cfg.max_length, (cfg.batch_size,), generator=generator)

    def state(self) -> dict[str, Tensor]:
        """Tensors for a checkpoint."""
        return {"z": self.z, "h": self.h, "c": self.c, "age": self.age}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continue from a checkpoint."""
        self.z, self.h, self.c, self.age = (state[name] for name in ("z", "h", "c", "age"))

    def imagine(self, actor: Actor, gradient: bool) -> Imagined:
        """Dream one horizon; ``gradient`` keeps the graph from actions to rewards."""
        parts, rest = [self._open(m) for m in range(len(self._memories))], []
        seen = [self._look(parts)]
        for _ in range(self.cfg.horizon):
            z, h = seen[-1]
            mean, log_std = actor(z, h) if gradient else actor(z.detach(), h.detach())
            u = mean + log_std.exp() * torch.randn(mean.shape, generator=self.generator)
            density = torch.distributions.Normal(mean, log_std.exp(), validate_args=False)
            reward, alive = self._step(parts, actor.tried(u if gradient else u.detach()))
            log_prob = density.log_prob(u.detach()).sum(-1)
            rest.append((reward, alive, log_prob, density.entropy().sum(-1)))
            seen.append(self._look(parts))
        z, h = (torch.stack(column) for column in zip(*seen, strict=True))
        reward, alive, log_prob, entropy = (torch.stack(part) for part in zip(*rest, strict=True))
        self._continue(parts, alive)
        tail_return = self._tail(parts, *seen[-1])
        return Imagined(z, h, reward, alive, log_prob, entropy, tail_return)

    def _open(self, member: int) -> Unrolled:
        """The dreams of one memory."""
        rows, members = self._rows[member], sorted({0, member})
        start = (self.z[rows], self.h[members][:, rows], self.c[members][:, rows])
        memories = [self._memories[m] for m in members]
        settings = (self.cfg.temperature, self.cfg.no_event_penalty)
        return Unrolled(memories, self._reward_model, start, *settings)

    def _step(self, parts: Sequence[Unrolled], action: Tensor) -> list[Tensor]:
        """Rewards and chances to continue (B,) of one step, whose gradients will be clipped."""
        drawn = (action, *mixture_noise(self.z, self.generator))
        given = zip(*(x.split([len(rows) for rows in self._rows]) for x in drawn), strict=True)
        paid = [part.step(*mine) for part, mine in zip(parts, given, strict=True)]
        limit = self.cfg.max_grad_norm_per_rollout / self.cfg.batch_size
        for dreams in parts:
            for part in (dreams.z, *(x for state in dreams.states for x in state)):
                if self.cfg.max_grad_norm_per_rollout and part.requires_grad:
                    part.register_hook(partial(shortened, limit=limit))
        return [torch.cat(column) for column in zip(*paid, strict=True)]

    def _tail(self, parts: Sequence[Unrolled], z: Tensor, h: Tensor) -> Tensor:
        """Discounted rewards (B,) of C after the horizon."""
        weight, total = torch.ones(len(z)), torch.zeros(len(z))
        for _ in range(self.cfg.tail):
            reward, alive = self._step(parts, self._controller(z, h))
            total = total + weight * reward
            weight = weight * alive * self.cfg.discount
            z, h = self._look(parts)
        return total

    def _continue(self, parts: Sequence[Unrolled], alive: Tensor) -> None:
        """Store the state of the dreams; restart those that have ended or are too old."""
        z, h, c = self._look(parts)[0].detach(), self.h.clone(), self.c.clone()
        for member, (rows, dreams) in enumerate(zip(self._rows, parts, strict=True)):
            for m, state in zip(sorted({0, member}), dreams.states, strict=True):
                h[m, rows], c[m, rows] = state.h.detach(), state.c.detach()
        age = self.age + self.cfg.horizon
        over = (alive.detach().amin(0) < 0.5) | (age >= self.cfg.max_length)
        over |= ~torch.isfinite(z).all(1)
        self.z, self.h, self.c = (
            torch.where(over[:, None], new, old)
            for new, old in zip(self._begin(), (z, h, c), strict=True)
        )
        self.age = torch.where(over, 0, age)

    def _begin(self) -> list[Tensor]:
        """Recorded states z (B, Z), h (M, B, H) and c (M, B, C), drawn for all dreams."""
        size = (self.cfg.batch_size,)
        drawn = torch.randint(len(self._starts[0]), size, generator=self.generator)
        return [part[..., drawn, :] for part in self._starts]

    def _look(self, parts: Sequence[Unrolled]) -> tuple[Tensor, Tensor]:
        """What a policy sees: z (B, Z) and the first memory's h (B, H), or [h, c]."""
        z, h = zip(*(part.seen(self._carry) for part in parts), strict=True)
        return torch.cat(z), torch.cat(h)
