"""Returns of plans in M's dreams: by the engine for many plans, or unrolled with gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodels.agent import Agent
from worldmodels.dream.config import DreamConfig
from worldmodels.dream.engine import DreamEngine
from worldmodels.dream.starts import DreamStarts
from worldmodels.dream.world import Act, DreamNoise, MakeAct, Value, reward_of
from worldmodels.memory.interface import Memory, MemoryOutput, MemoryState
from worldmodels.memory.mixture import mixture_mean, mixture_variance
from worldmodels.memory.rewards import RewardModel
from worldmodels.planning.plan import Array, Numbers, ObjectiveConfig
from worldmodels.protocols import LatentPolicy, UserError


class Belief(NamedTuple):
    """The state of the world now: z of V, and h and c of each of M memories."""

    z: Array  #: (Z,)
    h: Array  #: (M, H)
    c: Array  #: (M, C)

    @classmethod
    def recorded(cls, starts: DreamStarts, index: int) -> Belief:
        """The belief at a recorded state."""
        return cls(starts.z[index], starts.h[:, index], starts.c[:, index])

    def seen(self, carry: bool) -> Array:
        """What a policy sees of the first memory: h (H,), or [h, c] with the ``carry``."""
        seen: Array = self.starts.seen(carry)[0]
        return seen

    @property
    def starts(self) -> DreamStarts:
        """Starts of dreams: this one state."""
        return DreamStarts(self.z[None], self.h[:, None], self.c[:, None])


class Imagination(Numbers):
    """An agent's dreams for planners, from one belief after the other."""

    def __init__(
        self,
        agent: Agent,
        cfg: ObjectiveConfig,
        critic: Value | None = None,
        base: LatentPolicy | None = None,
    ) -> None:
        """Open an agent's dreams; ``base`` (default: C) proposes plans and acts after their end.

        Raises:
            UserError: the agent cannot dream, or the config asks for what is not there.
        """
        super().__init__(agent.action_spec)
        if agent.reward_model is None:
            raise UserError("this agent has no reward model, so it cannot plan; train M again")
        if cfg.critic and critic is None:
            train = "`worldmodels train-policy --policy actor-critic`"
            cfg.refuse("critic", f"False, since no critic was given; {train} trains one")
        followed = cfg.disagreement_penalty > 0
        if followed and len(agent.memories) < 2:
            cfg.refuse("disagreement_penalty", "0 without several memories; this agent has one")
        self.memories, self.reward_model, self.cfg = agent.memories, agent.reward_model, cfg
        self.controller: LatentPolicy = base or agent.linear
        self.critic = critic if cfg.critic else None
        self.carry = agent.controller.carry
        """whether policies see [h, c] in place of h"""
        members, carry = len(agent.memories), agent.memories[0].carry_size
        shapes = ((agent.z_dim,), (members, agent.h_dim), (members, carry))
        nowhere = Belief(*(np.zeros(shape, np.float32) for shape in shapes)).starts
        dream = DreamConfig(
            horizon=cfg.horizon + cfg.tail,
            episodes=cfg.particles,
            temperature=cfg.temperature,
            discount=cfg.discount,
            ensemble="per_step" if followed else "per_rollout",
            disagreement_penalty=cfg.disagreement_penalty,
            no_event_penalty=cfg.no_event_penalty,
        )
        one_memory = replace(dream, ensemble="per_rollout", disagreement_penalty=0.0)
        follow = replace(one_memory, horizon=cfg.horizon, termination="off")
        parts = (self.memories, self.reward_model, nowhere)
        self.engine, self.follower = (
            DreamEngine(*parts, cfg, self.carry) for cfg in (dream, follow)
        )
        """dreams under plans, and dreams under the base policy as long as a plan"""

    def act(self, z: Tensor, h: Tensor) -> Tensor:
        """M's action inputs (P x E, A) of the base policy at z (P, E, Z) and h (P, E, H)."""
        return self.controller(z.flatten(0, 1), h.flatten(0, 1))

    def dream(
        self, make_act: MakeAct, population: Array, belief: Belief, seed: int
    ) -> NDArray[np.float64]:
        """Returns (N, particles) of a population (N, ...) of plans or changes, from a belief."""
        self.engine.starts = belief.starts
        flat = np.ascontiguousarray(population.reshape(len(population), -1), np.float32)
        return self.engine.rollout(make_act, flat, seed, value=self.critic).returns

    def proposals(self, belief: Belief, seed: int) -> Array:
        """The base policy's actions (K, T, A) in each of K dreams, K the particles."""
        self.follower.starts = belief.starts
        nobody = np.zeros((1, 0), np.float32)
        actions = self.follower.rollout(lambda _: self.act, nobody, seed, record=True).actions
        assert actions is not None
        played: Array = actions[0]
        return self.of_input(played)


class DreamObjective:
    """Scores of plans from one belief, by the dream engine."""

    def __init__(self, imagination: Imagination, belief: Belief, seed: int) -> None:
        """Dream from ``belief`` by the common random numbers of ``seed``."""
        self.low, self.high = imagination.low, imagination.high
        self._imagination, self._belief, self._seed = imagination, belief, seed

    def returns(self, plans: Array) -> NDArray[np.float64]:
        """Returns (N, particles) of plans (N, T, A)."""
        imagination, shape = self._imagination, plans.shape[1:]

        def make_act(population: Tensor) -> Act:
            steps = iter(imagination.to_input(population.view(len(population), *shape)).unbind(1))

            def act(z: Tensor, h: Tensor) -> Tensor:
                action = next(steps, None)
                if action is None:  # the plan has ended
                    return imagination.act(z, h)
                return action[:, None].expand(-1, z.shape[1], -1)

            return act

        return imagination.dream(make_act, plans, self._belief, self._seed)

    def score(self, plans: Array) -> NDArray[np.float64]:
        """Scores (N,) of plans (N, T, A): CVaR of their returns."""
        return conditional_value_at_risk(self.returns(plans), self._imagination.cfg.risk)


def conditional_value_at_risk(returns: NDArray[np.float64], fraction: float) -> NDArray[np.float64]:
    """Mean of the worst ``fraction`` of the returns (N, E), at least of one: (N,); 1 is the mean.

    CVaR of Rockafellar and Uryasev (2000), estimated from equally likely samples.
    """
    worst = np.sort(returns, axis=1)[:, : _worst_count(returns.shape[1], fraction)]
    return np.asarray(worst.mean(1))


def _worst_count(particles: int, fraction: float) -> int:
    return max(1, math.ceil(fraction * particles - 1e-9))


class UnrolledObjective:
    """Returns of plans from one belief, differentiable: M unrolled in torch.

    The mixture's samples are reparametrised: the component is drawn, and the gradient runs through
    its mean and standard deviation. Rewards are weighed by the chance that the dream continues.
    """

    def __init__(self, imagination: Imagination, belief: Belief, seed: int) -> None:
        """Arguments of `DreamObjective`; particle e is dreamt by memory e mod M."""
        cfg = imagination.cfg
        self.low, self.high = imagination.low, imagination.high
        self._imagination, self._belief = imagination, belief
        noise = DreamNoise(seed, [(e, -1) for e in range(cfg.particles)], len(belief.z))
        drawn = [[a.copy() for a in noise.step()] for _ in range(cfg.horizon + cfg.tail)]
        self._uniform, self._normal = (
            torch.from_numpy(np.stack(steps)) for steps in zip(*drawn, strict=True)
        )

    def returns(self, plans: Tensor) -> Tensor:
        """Scores (N,) of plans (N, T, A); the gradient of CVaR is that of the dreams that count."""
        cfg, members = self._imagination.cfg, len(self._imagination.memories)
        parts = [
            self._dream(plans, m, slice(m, None, members))
            for m in range(min(members, cfg.particles))
        ]
        worst = torch.cat(parts, 1).sort(1).values[:, : _worst_count(cfg.particles, cfg.risk)]
        return worst.mean(1)

    def _dream(self, plans: Tensor, member: int, mine: slice) -> Tensor:
        """Returns (N, particles of this memory)."""
        imagination, belief, cfg = self._imagination, self._belief, self._imagination.cfg
        uniform, normal = self._uniform[:, mine], self._normal[:, mine]
        wide, particles = len(plans), uniform.shape[1]
        rows = wide * particles

        members = sorted({0, member})  # the critic and C see the first memory's h, whoever dreams
        h, c = (torch.from_numpy(x[members])[:, None].expand(-1, rows, -1) for x in belief[1:])
        world = Unrolled(
            [imagination.memories[m] for m in members],
            imagination.reward_model,
            (torch.from_numpy(belief.z).expand(rows, -1), h, c),
            cfg.temperature,
            cfg.no_event_penalty,
        )
        actions = imagination.to_input(plans).repeat_interleave(particles, 0)
        weight, total = torch.ones(rows), torch.zeros(rows)
        for t in range(len(uniform)):
            inside = t < plans.shape[1]
            seen = world.seen(imagination.carry)
            action = actions[:, t] if inside else imagination.controller(*seen)
            reward, alive = world.step(
                action, uniform[t].repeat(wide, 1), normal[t].repeat(wide, 1)
            )
            total = total + weight * reward
            weight = weight * alive * cfg.discount
        if imagination.critic is not None:
            total = total + weight * imagination.critic(*world.seen(imagination.carry))
        return total.view(wide, particles)


class Unrolled:
    """A batch of differentiable dreams."""

    def __init__(
        self,
        memories: Sequence[Memory],
        reward_model: RewardModel,
        start: tuple[Tensor, Tensor, Tensor],
        temperature: float = 1.0,
        no_event_penalty: float = 0.0,
    ) -> None:
        """Begin R rows at z (R, Z), h (M, R, H) and c (M, R, C) of M memories.

        The first memory gives h, the last one dreams, and all follow.
        """
        self.memories, self.reward_model, self.temperature = memories, reward_model, temperature
        self.z, h, c = start
        self.states = [MemoryState(*parts) for parts in zip(h, c, strict=True)]
        self._priced = DreamConfig(no_event_penalty=no_event_penalty)

    @classmethod
    def of(
        cls,
        memories: Sequence[Memory],
        reward_model: RewardModel,
        belief: Belief,
        temperature: float = 1.0,
    ) -> Self:
        """One dream from a belief."""
        z, h, c = map(torch.tensor, belief)
        kept = slice(len(memories))
        return cls(memories, reward_model, (z[None], h[kept, None], c[kept, None]), temperature)

    def seen(self, carry: bool) -> tuple[Tensor, Tensor]:
        """What a policy sees: z (R, Z) and the first memory's h (R, H), or [h, c]."""
        return self.z, self.states[0].seen(carry)

    @property
    def belief(self) -> Belief:
        """The belief in a single dream."""
        h, c = (torch.cat(parts).numpy() for parts in zip(*self.states, strict=True))
        return Belief(self.z[0].numpy(), h, c)

    def step(self, action: Tensor, uniform: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
        """Dream one step under actions (R, A) as M sees them.

        ``uniform`` (R, >= Z) in [0, 1) draws components, ``normal`` (R, Z) their noise. Returns the
        expected reward (R,) and the chance that the dream continues (R,).
        """
        *watching, dreaming = self.memories
        for m, memory in enumerate(watching):
            self.states[m] = memory.advance(self.z, action, self.states[m])
        noise = (uniform[:, : self.z.shape[1]], normal)
        self.z, out, self.states[-1] = dreaming.dream(
            self.z, action, self.states[-1], noise, self.temperature
        )
        reward = reward_of(self.reward_model, self._priced, out.reward, uniform)
        return reward, torch.sigmoid(-out.terminated_logit)


class Uncertainty(NamedTuple):
    """The two parts of an ensemble's variance of the next z."""

    aleatoric: Tensor  #: (B, Z) mean over memories of each one's own variance
    epistemic: Tensor  #: (B, Z) variance over memories of their means; 0 where there is one memory


def decompose(outputs: Sequence[MemoryOutput]) -> Uncertainty:
    """Split the variance of several memories' predictions by the law of total variance."""
    own = torch.stack([mixture_variance(o.log_pi, o.mu, o.log_sigma) for o in outputs])
    means = torch.stack([mixture_mean(o.log_pi, o.mu) for o in outputs])
    return Uncertainty(own.mean(0), means.var(0, correction=0))


@torch.inference_mode()
def along(
    memories: Sequence[Memory], z: Tensor, states: Sequence[MemoryState], actions: Tensor
) -> list[Uncertainty]:
    """Uncertainty at every step of a plan, along the mean of all memories' predictions.

    Begins at z (B, Z) and M states (B, H), under actions (B, T, A) as M sees them; T records.
    """
    states, found = list(states), []
    for action in actions.unbind(1):
        steps = [m.step(z, action, s) for m, s in zip(memories, states, strict=True)]
        outputs, states = [out for out, _ in steps], [state for _, state in steps]
        found.append(decompose(outputs))
        z = torch.stack([mixture_mean(o.log_pi, o.mu) for o in outputs]).mean(0)
    return found
