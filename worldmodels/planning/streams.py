"""Dreams under an actor that go on from gradient step to gradient step, with gradients."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple

import torch
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
from worldmodels.memory.interface import MemoryState
from worldmodels.memory.mixture import mixture_noise
from worldmodels.planning.controller import ControllerDrive
from worldmodels.planning.networks import Actor, NetworkConfig
from worldmodels.planning.objective import Unrolled
from worldmodels.protocols import UserError


@dataclass(frozen=True)
class PolicyTrainConfig(Config):
    """How a policy is trained in the dream; the defaults are those of an actor from nothing."""

    steps: Count = 750
    """gradient steps"""
    actors: Few = 1
    """actors, learnt one after the other from other seeds, that drive by the mean of their u; what
    one of them has found in M's mistakes, the others have not"""
    dreams: Size = 128
    """dreams side by side; each goes on where the step before left it"""
    horizon: Horizon = 15
    """decisions per gradient step"""
    longest: Count = 250
    """decisions after which a dream begins anew at a recorded state"""
    tail: HorizonOrZero = 0
    """decisions that the agent's C drives after the horizon, for a policy without a critic: what C
    can make of where the policy leads is then a value that needs no training"""
    critic: bool = True
    """learn values, and count them at the horizon; without, only rewards inside of it and of the
    tail count"""
    gradient: Literal["model", "reinforce"] = "model"
    """how the actor learns: through the unrolled M, or by the score of what it tried"""
    discount: PositiveFraction = 0.97
    """weight of a reward relative to the one before it"""
    trace: Fraction = 0.95
    """lambda of the returns: 1 trusts M's rewards to the horizon, 0 the critic at once"""
    entropy: NotNegative = 1e-3
    """reward per nat of the actor's entropy, in units of the returns' scale"""
    temperature: NotNegative = 1.0
    """tau of M's mixture"""
    learning_rate: Positive = 3e-4
    """of Adam, for actor and critic"""
    clip_norm: Positive = 1.0
    """largest norm of a network's gradient"""
    clip_dream: NotNegative = 0.03
    """largest norm of the loss's gradient with respect to the state of M in one dream at one step
    (each of z, h and c), times the number of dreams; 0 does not limit it. Back through many steps
    of M a few dreams have gradients hundreds of times as long as the others', and without a limit
    the actor hears nobody else"""
    target_decay: Fraction = 0.98
    """weight of the old target critic after each step"""
    average: Fraction = 0.0
    """weight of the actors before in the average that is kept; 0 keeps the last actor"""
    critic_first: CountOrZero = 0
    """steps in which only the critic learns; a good actor is worth them"""
    miss_penalty: NotNegative = 0.0
    """price of a decision in which M expects no tile, as in the dream that C is evolved in"""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    checkpoint_every: Count = 50
    """steps between two checkpoints"""
    log_every: Count = 25
    """steps between two lines of metrics"""

    def _check(self) -> None:
        if self.gradient == "reinforce" and not self.critic:
            self.refuse("gradient", "'model' without a critic")
        if self.tail and self.critic:
            self.refuse("tail", "0 with a critic, which says what lies beyond the horizon")


def residual_training() -> PolicyTrainConfig:
    """How a bounded change of C is learnt.

    The bound keeps the actor where M has data, so that it may see all of [z, h]: what C, searched
    in a few principal components, is blind to. In docs/results/lab-notebook.md is what was tried.
    """
    return PolicyTrainConfig(
        steps=800,
        actors=3,
        entropy=0.0,
        average=0.99,
        critic_first=150,
        miss_penalty=2.0,
        network=NetworkConfig(components=0, residual=0.5, noise=0.05),
    )


class Imagined(NamedTuple):
    """T steps of B dreams under an actor."""

    z: Tensor
    """(T + 1, B, Z)"""
    h: Tensor
    """(T + 1, B, H)"""
    reward: Tensor
    """(T, B) expected"""
    alive: Tensor
    """(T, B) chance that a dream goes on after this step"""
    log_prob: Tensor
    """(T, B) of what the actor tried"""
    entropy: Tensor
    """(T, B) of the actor, in nats, before squashing"""
    beyond: Tensor
    """(B,) what C is paid in the tail, discounted to its beginning"""


class Streams:
    """Dreams that go on from gradient step to gradient step, so that the actor meets its own.

    Each of an agent's memories dreams its share of them, and the first one's h is what the actor
    sees: what one memory would be fooled into paying for, the others do not pay.

    Attributes:
        z: (B, Z).
        h: (M, B, H) of each memory; apart from the first one's, current where it dreams.
        c: (M, B, C).
        age: (B,) decisions since a dream began.
    """

    def __init__(self, agent: Agent, cfg: PolicyTrainConfig, generator: torch.Generator) -> None:
        """Begin all of them at recorded states.

        Raises:
            UserError: the agent has no recorded states or no reward model.
        """
        if agent.starts is None or agent.reward_model is None:
            raise UserError("this agent has no recorded states or no reward model to dream with")
        self.cfg, self.generator = cfg, generator
        self._reward_model = agent.reward_model
        self._memories = [copy.deepcopy(m).requires_grad_(False) for m in agent.memories]
        self._controller = ControllerDrive(agent)
        starts = (agent.starts.z, agent.starts.h, agent.starts.c)
        self._starts = [torch.from_numpy(part).float() for part in starts]
        self._shares = torch.arange(cfg.dreams).tensor_split(len(self._memories))
        self.z, self.h, self.c = self._begin()
        ages = torch.randint(cfg.longest, (cfg.dreams,), generator=generator)
        self.age = ages  # so that they do not all begin anew together

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {"z": self.z, "h": self.h, "c": self.c, "age": self.age}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        self.z, self.h, self.c, self.age = (state[name] for name in ("z", "h", "c", "age"))

    def imagine(self, actor: Actor, gradient: bool) -> Imagined:
        """Dream one horizon; ``gradient`` says whether rewards know how they hang on actions."""
        cfg = self.cfg
        world = SharedDreams([self._open(m) for m in range(len(self._memories))])
        z, h, rest = [world.z], [world.h], []
        for _ in range(cfg.horizon):
            seen = (world.z, world.h) if gradient else (world.z.detach(), world.h.detach())
            mean, log_std = actor(*seen)
            u = mean + log_std.exp() * torch.randn(mean.shape, generator=self.generator)
            tried = u if gradient else u.detach()
            density = torch.distributions.Normal(mean, log_std.exp(), validate_args=False)
            action = actor.to_input(actor.act(tried))
            reward, alive = world.step(action, *mixture_noise(world.z, self.generator))
            self._limit(world)
            log_prob = density.log_prob(u.detach()).sum(-1)
            rest.append((reward, alive, log_prob, density.entropy().sum(-1)))
            z.append(world.z)
            h.append(world.h)
        reward, alive, log_prob, entropy = (torch.stack(part) for part in zip(*rest, strict=True))
        self._carry_on(world, alive)
        beyond = self._tail(world)
        return Imagined(torch.stack(z), torch.stack(h), reward, alive, log_prob, entropy, beyond)

    def _open(self, member: int) -> Unrolled:
        """The dreams of one memory."""
        rows, members = self._shares[member], sorted({0, member})
        return Unrolled(
            [self._memories[m] for m in members],
            self._reward_model,
            self.z[rows],
            [MemoryState(self.h[m, rows], self.c[m, rows]) for m in members],
            self.cfg.temperature,
            self.cfg.miss_penalty,
        )

    def _tail(self, world: SharedDreams) -> Tensor:
        """What C is paid (B,) when it drives on from there."""
        weight, total = torch.ones(len(world.z)), torch.zeros(len(world.z))
        for _ in range(self.cfg.tail):
            action = self._controller(world.z, world.h)
            reward, alive = world.step(action, *mixture_noise(world.z, self.generator))
            self._limit(world)
            total = total + weight * reward
            weight = weight * alive * self.cfg.discount
        return total

    def _limit(self, world: SharedDreams) -> None:
        """See to it that no dream's gradient at this step is longer than allowed."""
        limit = self.cfg.clip_dream / self.cfg.dreams
        for dreams in world.parts:
            for part in (dreams.z, *(x for state in dreams.states for x in state)):
                if self.cfg.clip_dream and part.requires_grad:
                    part.register_hook(partial(shortened, limit=limit))

    def _carry_on(self, world: SharedDreams, alive: Tensor) -> None:
        """Keep where the dreams are; begin those anew that have ended or are too old."""
        self.z, self.h, self.c = world.z.detach(), self.h.clone(), self.c.clone()
        for member, (rows, dreams) in enumerate(zip(self._shares, world.parts, strict=True)):
            for m, state in zip(sorted({0, member}), dreams.states, strict=True):
                self.h[m, rows], self.c[m, rows] = state.h.detach(), state.c.detach()
        self.age = self.age + self.cfg.horizon
        over = (alive.detach().amin(0) < 0.5) | (self.age >= self.cfg.longest)
        over |= ~torch.isfinite(self.z).all(1)
        now = (self.z, self.h, self.c)
        self.z, self.h, self.c = (
            torch.where(over[:, None], new, old)
            for new, old in zip(self._begin(), now, strict=True)
        )
        self.age = torch.where(over, 0, self.age)

    def _begin(self) -> list[Tensor]:
        """Recorded states z (B, Z), h (M, B, H) and c (M, B, C), drawn for all dreams."""
        size = (self.cfg.dreams,)
        drawn = torch.randint(len(self._starts[0]), size, generator=self.generator)
        return [part[..., drawn, :] for part in self._starts]


class SharedDreams:
    """Dreams of several memories side by side, stepped as one batch.

    Attributes:
        parts: the dreams of each memory, in the order of the batch's rows.
        z: (B, Z).
        h: (B, H) of the first memory.
    """

    def __init__(self, parts: Sequence[Unrolled]) -> None:
        """Take the parts as they are."""
        self.parts = parts
        self._sizes = [len(part.z) for part in parts]
        self._look()

    def step(self, action: Tensor, uniform: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
        """As `Unrolled.step`."""
        given = zip(*(x.split(self._sizes) for x in (action, uniform, normal)), strict=True)
        paid = [part.step(*mine) for part, mine in zip(self.parts, given, strict=True)]
        self._look()
        reward, alive = (torch.cat(column) for column in zip(*paid, strict=True))
        return reward, alive

    def _look(self) -> None:
        """Put together what a driver sees."""
        self.z = torch.cat([part.z for part in self.parts])
        self.h = torch.cat([part.h for part in self.parts])


def shortened(gradient: Tensor, limit: float) -> Tensor:
    """Rows (B, N) of at most that norm; a row that is not finite counts as 0."""
    gradient = torch.where(torch.isfinite(gradient).all(-1, keepdim=True), gradient, 0.0)
    norm = torch.linalg.vector_norm(gradient, dim=-1, keepdim=True)
    shorter: Tensor = gradient * (limit / norm.clamp_min(limit))
    return shorter
