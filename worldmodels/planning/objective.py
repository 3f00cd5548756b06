"""What a plan is worth in M's dreams: by the engine for many plans, or unrolled with gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodels.agent import Agent, Starts
from worldmodels.dream.config import DreamConfig
from worldmodels.dream.engine import Act, DreamEngine, Value
from worldmodels.dream.starts import DreamStarts
from worldmodels.dream.world import EXTRA_UNIFORMS, DreamNoise, reward_of
from worldmodels.memory.interface import Memory, MemoryState
from worldmodels.memory.rewards import RewardModel
from worldmodels.planning.config import ObjectiveConfig
from worldmodels.planning.controller import ControllerDrive, Drive
from worldmodels.planning.networks import bounds_of, rounded, straight_through
from worldmodels.planning.risk import conditional_value_at_risk, worst_count
from worldmodels.protocols import UserError


class Belief(NamedTuple):
    """What is known about the world now, by the eye and by each of M memories."""

    z: NDArray[np.float32]
    """(Z,)"""
    h: NDArray[np.float32]
    """(M, H)"""
    c: NDArray[np.float32]
    """(M, C)"""

    @classmethod
    def recorded(cls, starts: Starts, index: int) -> Belief:
        """What every memory knew at a recorded state."""
        return cls(starts.z[index], starts.h[:, index], starts.c[:, index])

    @property
    def starts(self) -> DreamStarts:
        """Where dreams from this belief begin: one state."""
        return DreamStarts(self.z[None], self.h[:, None], self.c[:, None])


@dataclass(frozen=True)
class Imagination:
    """An agent's dreams as planners use them; opened once, then asked about many beliefs."""

    memories: Sequence[Memory]
    reward_model: RewardModel
    cfg: ObjectiveConfig
    low: NDArray[np.float32]
    """(A,) smallest numbers in a plan"""
    high: NDArray[np.float32]
    """(A,) largest"""
    discrete: bool
    """a plan holds a score for each choice, and the largest one acts"""
    whole: bool
    """actions are whole numbers, to which a plan's numbers are rounded"""
    controller: Drive
    """who makes proposals and drives in the dream beyond a plan"""
    critic: Value | None
    """worth of the state at the end"""
    engine: DreamEngine
    """dreams under plans"""
    follower: DreamEngine
    """dreams under C, as long as a plan"""

    @classmethod
    def of(
        cls,
        agent: Agent,
        cfg: ObjectiveConfig,
        critic: Value | None = None,
        drive: Drive | None = None,
    ) -> Imagination:
        """Open an agent's dreams.

        Args:
            agent: with a reward model.
            cfg: what plans are judged by.
            critic: worth of a state; needed where ``cfg.critic``.
            drive: who drives in dreams beyond plans; None takes C.

        Raises:
            UserError: the agent cannot dream, or the config asks for what is not there.
        """
        if agent.reward_model is None:
            raise UserError("this agent has no reward model, so it cannot plan; train M again")
        if cfg.critic and critic is None:
            train = "`worldmodels train-policy --policy actor-critic`"
            cfg.refuse("critic", f"False, since no critic was given; {train} trains one")
        followed = cfg.disagreement_penalty > 0
        if followed and len(agent.memories) < 2:
            cfg.refuse("disagreement_penalty", "0 without several memories; this agent has one")
        dream = DreamConfig(
            horizon=cfg.horizon + cfg.tail,
            episodes=cfg.particles,
            temperature=cfg.temperature,
            discount=cfg.discount,
            ensemble="per_step" if followed else "per_rollout",
            disagreement_penalty=cfg.disagreement_penalty,
            miss_penalty=cfg.miss_penalty,
        )
        low, high = bounds_of(agent.action_spec)
        discrete = agent.action_spec.kind == "discrete"
        nowhere = _zeros(agent).starts
        follow = DreamConfig(
            horizon=cfg.horizon,
            episodes=cfg.particles,
            termination="off",
            temperature=cfg.temperature,
        )
        engines = [
            DreamEngine(agent.memories, agent.reward_model, nowhere, d) for d in (dream, follow)
        ]
        return cls(
            agent.memories,
            agent.reward_model,
            cfg,
            low,
            high,
            discrete,
            agent.action_spec.integer,
            drive or ControllerDrive(agent),
            critic if cfg.critic else None,
            *engines,
        )

    def proposals(self, belief: Belief, seed: int) -> NDArray[np.float32]:
        """What C would do: its actions (K, T, A) in each of K dreams, K the particles."""
        self.follower.starts = belief.starts

        def make_act(population: Tensor) -> Act:
            return lambda z, h: self.controller(z.flatten(0, 1), h.flatten(0, 1))

        nobody = np.zeros((1, 0), np.float32)
        actions = self.follower.rollout(make_act, nobody, seed, record=True).actions
        assert actions is not None
        played: NDArray[np.float32] = actions[0]
        return played * 2 - 1 if self.discrete else played

    def to_input(self, plans: Tensor) -> Tensor:
        """Plans (..., A) as M sees actions: as they are, whole, or one-hot."""
        if self.discrete:
            return straight_through(plans)
        return rounded(plans) if self.whole else plans


class DreamObjective:
    """Scores of plans from one belief, by the dream engine."""

    def __init__(self, imagination: Imagination, belief: Belief, seed: int) -> None:
        """Dream from ``belief`` with the luck of ``seed``, the same for all plans."""
        self.low, self.high = imagination.low, imagination.high
        self._imagination, self._starts, self._seed = imagination, belief.starts, seed
        self.steps = 0
        """of M so far"""

    def returns(self, plans: NDArray[np.float32]) -> NDArray[np.float64]:
        """Returns (N, particles) of plans (N, T, A)."""
        imagination = self._imagination
        engine = imagination.engine
        engine.starts = self._starts
        shape = plans.shape[1:]

        def make_act(population: Tensor) -> Act:
            steps = imagination.to_input(population.view(len(population), *shape)).unbind(1)
            return _follow(iter(steps), imagination.controller)

        result = engine.rollout(
            make_act, plans.reshape(len(plans), -1), self._seed, value=imagination.critic
        )
        self.steps += result.steps
        return result.returns

    def score(self, plans: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scores (N,) of plans (N, T, A): the mean, or the mean of the worst dreams."""
        return conditional_value_at_risk(self.returns(plans), self._imagination.cfg.risk)


def _follow(steps: Iterator[Tensor], controller: Drive) -> Act:
    """Act by plans, one (P, A) a step, and by C when they have ended."""

    def act(z: Tensor, h: Tensor) -> Tensor:
        action = next(steps, None)
        if action is None:
            return controller(z.flatten(0, 1), h.flatten(0, 1))
        return action[:, None].expand(-1, z.shape[1], -1)

    return act


class UnrolledObjective:
    """Returns of plans from one belief, differentiable: M unrolled in torch.

    The mixture's samples are reparametrised: the component is drawn, and the gradient runs through
    its mean and deviation. A dream's end is soft: rewards are weighed by the chance to be alive.
    """

    def __init__(self, imagination: Imagination, belief: Belief, seed: int) -> None:
        """As `DreamObjective`; particle e is dreamt by memory e mod M."""
        cfg = imagination.cfg
        self.low, self.high = imagination.low, imagination.high
        self._imagination, self._belief = imagination, belief
        z_dim, particles = len(belief.z), cfg.particles
        noise = DreamNoise(seed, [(e, -1) for e in range(particles)], z_dim)
        drawn = [tuple(a.copy() for a in noise.step()) for _ in range(cfg.horizon + cfg.tail)]
        self._uniform = torch.from_numpy(np.stack([u for u, _ in drawn]))
        self._normal = torch.from_numpy(np.stack([n for _, n in drawn]))
        assert self._uniform.shape[2] == z_dim + EXTRA_UNIFORMS

    def returns(self, plans: Tensor) -> Tensor:
        """Scores (N,) of plans (N, T, A); the gradient of CVaR is that of the dreams that count."""
        imagination, cfg = self._imagination, self._imagination.cfg
        members = len(imagination.memories)
        parts = [
            self._dream(plans, m, slice(m, None, members))
            for m in range(min(members, cfg.particles))
        ]
        worst = torch.cat(parts, 1).sort(1).values[:, : worst_count(cfg.particles, cfg.risk)]
        return worst.mean(1)

    def _dream(self, plans: Tensor, member: int, mine: slice) -> Tensor:
        """Returns (N, particles of this memory)."""
        imagination, belief = self._imagination, self._belief
        uniform, normal = self._uniform[:, mine], self._normal[:, mine]
        wide, particles = len(plans), uniform.shape[1]
        rows = wide * particles

        def spread(array: NDArray[np.float32]) -> Tensor:
            return torch.from_numpy(array).expand(rows, -1)

        # The critic and C see the first memory's h, whoever dreams.
        members = [0] if member == 0 else [0, member]
        states = [MemoryState(spread(belief.h[m]), spread(belief.c[m])) for m in members]
        memories = [imagination.memories[m] for m in members]
        world = Unrolled(
            memories,
            imagination.reward_model,
            spread(belief.z),
            states,
            imagination.cfg.temperature,
            imagination.cfg.miss_penalty,
        )
        actions = imagination.to_input(plans).repeat_interleave(particles, 0)
        weight, total = torch.ones(rows), torch.zeros(rows)
        for t in range(len(uniform)):
            inside = t < plans.shape[1]
            action = actions[:, t] if inside else imagination.controller(world.z, world.h)
            u, n = uniform[t].repeat(wide, 1), normal[t].repeat(wide, 1)
            reward, alive = world.step(action, u, n)
            total = total + weight * reward
            weight = weight * alive * imagination.cfg.discount
        if imagination.critic is not None:
            total = total + weight * imagination.critic(world.z, world.h)
        return total.view(wide, particles)


class Unrolled:
    """A batch of dreams with gradients; `z` and `h` are what a driver sees."""

    def __init__(
        self,
        memories: Sequence[Memory],
        reward_model: RewardModel,
        z: Tensor,
        states: Sequence[MemoryState],
        temperature: float = 1.0,
        miss_penalty: float = 0.0,
    ) -> None:
        """Put R rows at z (R, Z) and the states (R, H) of one or two memories.

        The first memory gives h, the last one dreams.
        """
        self.memories, self.reward_model = memories, reward_model
        self.z, self.states, self.temperature = z, list(states), temperature
        self._priced = DreamConfig(miss_penalty=miss_penalty)

    @classmethod
    def of(
        cls,
        memories: Sequence[Memory],
        reward_model: RewardModel,
        belief: Belief,
        temperature: float = 1.0,
    ) -> Self:
        """One dream from a belief, which the last of these memories dreams; the others follow."""
        z, h, c = (torch.tensor(part) for part in belief)
        rows = [MemoryState(h[m : m + 1], c[m : m + 1]) for m in range(len(memories))]
        return cls(memories, reward_model, z[None], rows, temperature)

    @property
    def h(self) -> Tensor:
        """(R, H) of the first memory."""
        return self.states[0].h

    @property
    def belief(self) -> Belief:
        """What is known now in a single dream."""
        h, c = (torch.cat(parts).numpy() for parts in zip(*self.states, strict=True))
        return Belief(self.z[0].numpy(), h, c)

    def step(self, action: Tensor, uniform: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
        """Dream one step.

        Args:
            action: (R, A) as M sees it.
            uniform: (R, >= Z) in [0, 1), chooses components.
            normal: (R, Z).

        Returns:
            Expected reward (R,) and chance that the dream goes on (R,).
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


def _zeros(agent: Agent) -> Belief:
    memories = agent.memories
    h, c = (
        np.zeros((len(memories), width), np.float32)
        for width in (agent.h_dim, memories[0].carry_size)
    )
    return Belief(np.zeros(agent.z_dim, np.float32), h, c)
