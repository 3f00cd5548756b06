"""Differentiable dreams under an actor that continue from gradient step to gradient step."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal, NamedTuple

import torch
import tyro
from torch import Tensor

from worldmodels._training import in_bfloat16
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
from worldmodels.dream.config import DreamConfig
from worldmodels.dream.world import reward_of
from worldmodels.memory.interface import MemoryOutput, MemoryState
from worldmodels.memory.mixture import mixture_noise
from worldmodels.planning.gradient import shortened
from worldmodels.planning.networks import Actor, NetworkConfig
from worldmodels.runs import has_fast_bfloat16, mixed_precision


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
    bfloat16: bool = field(default=True, metadata={"omit_default": True})
    """M's products in bfloat16 where the machine multiplies it fast"""
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


@dataclass
class _Dreams:
    """B dreams on their way."""

    z: Tensor  #: (B, Z)
    states: list[MemoryState]
    """of each memory; the first one's are of all dreams, the others' of those that they dream"""

    def seen(self, carry: bool) -> tuple[Tensor, Tensor]:
        """What a policy sees: z (B, Z) and the first memory's h (B, H), or [h, c]."""
        return self.z, self.states[0].seen(carry)


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
        """Start at recorded states; an agent that cannot dream is a UserError."""
        self._reward_model, recorded = agent.to_dream()
        self.cfg, self.generator, self._controller = cfg, generator, agent.linear
        self._carry = agent.controller.carry
        self._low = cfg.bfloat16 and has_fast_bfloat16(agent.memories[0].device)
        frozen = [copy.deepcopy(memory).requires_grad_(False) for memory in agent.memories]
        self._memories = [in_bfloat16(memory) if self._low else memory for memory in frozen]
        self._priced = DreamConfig(no_event_penalty=cfg.no_event_penalty)
        starts = (recorded.z, recorded.h, recorded.c)
        self._starts = [torch.from_numpy(part).float() for part in starts]
        cuts = [cfg.batch_size * m // len(frozen) for m in range(len(frozen) + 1)]
        self._rows = list(map(slice, cuts, cuts[1:]))
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
        now, rest = self._open(), []
        seen = [now.seen(self._carry)]
        for _ in range(self.cfg.horizon):
            z, h = seen[-1]
            mean, log_std = actor(z, h) if gradient else actor(z.detach(), h.detach())
            u = mean + log_std.exp() * torch.randn(mean.shape, generator=self.generator)
            density = torch.distributions.Normal(mean, log_std.exp(), validate_args=False)
            reward, alive = self._step(now, actor.tried(u if gradient else u.detach()))
            log_prob = density.log_prob(u.detach()).sum(-1)
            rest.append((reward, alive, log_prob, density.entropy().sum(-1)))
            seen.append(now.seen(self._carry))
        z, h = (torch.stack(column) for column in zip(*seen, strict=True))
        reward, alive, log_prob, entropy = (torch.stack(part) for part in zip(*rest, strict=True))
        self._continue(now, alive)
        tail_return = self._tail(now)
        return Imagined(z, h, reward, alive, log_prob, entropy, tail_return)

    def _open(self) -> _Dreams:
        """All dreams where they are."""
        states = [MemoryState(self.h[0], self.c[0])]
        for m, rows in enumerate(self._rows[1:], 1):
            states.append(MemoryState(self.h[m, rows], self.c[m, rows]))
        return _Dreams(self.z, states)

    def _step(self, now: _Dreams, action: Tensor) -> tuple[Tensor, Tensor]:
        """Rewards and chances to continue (B,) of one step, whose gradients will be clipped."""
        uniform, normal = mixture_noise(now.z, self.generator)
        first, *others = self._memories
        with mixed_precision(now.z.device, self._low):
            now.states[0] = first.advance(now.z, action, now.states[0])
            mine = self._rows[0]
            found = [first.predict(now.z[mine], now.states[0].h[mine], None)]
            for m, (memory, rows) in enumerate(zip(others, self._rows[1:], strict=True), 1):
                output, now.states[m] = memory.step(now.z[rows], action[rows], now.states[m])
                found.append(output)
        output = MemoryOutput(*(torch.cat(parts).float() for parts in zip(*found, strict=True)))
        now.states = [MemoryState(state.h.float(), state.c.float()) for state in now.states]
        now.z = output.sample(uniform, normal, self.cfg.temperature)
        limit = self.cfg.max_grad_norm_per_rollout / self.cfg.batch_size
        for part in (now.z, *(x for state in now.states for x in state)):
            if limit and part.requires_grad:
                part.register_hook(partial(shortened, limit=limit))
        reward = reward_of(self._reward_model, self._priced, output.reward, uniform)
        return reward, torch.sigmoid(-output.terminated_logit)

    def _tail(self, now: _Dreams) -> Tensor:
        """Discounted rewards (B,) of C after the horizon."""
        weight, total = torch.ones(len(now.z)), torch.zeros(len(now.z))
        for _ in range(self.cfg.tail):
            reward, alive = self._step(now, self._controller(*now.seen(self._carry)))
            total = total + weight * reward
            weight = weight * alive * self.cfg.discount
        return total

    def _continue(self, now: _Dreams, alive: Tensor) -> None:
        """Store the state of the dreams; restart those that have ended or are too old."""
        z, h, c = now.z.detach(), self.h.clone(), self.c.clone()
        h[0], c[0] = (part.detach() for part in now.states[0])
        for m, (rows, state) in enumerate(zip(self._rows[1:], now.states[1:], strict=True), 1):
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
