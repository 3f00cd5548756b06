"""A planner as a `Policy`: perceive, search, execute the first action, and search again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from worldmodels.agent import Agent
from worldmodels.dream.world import Value
from worldmodels.memory.interface import MemoryState
from worldmodels.planning import planners
from worldmodels.planning.objective import Belief, Imagination, Unrolled
from worldmodels.planning.plan import Plan
from worldmodels.planning.planners import PlanningConfig
from worldmodels.policies.hold import HoldingPolicy, Seen
from worldmodels.policies.observations import Shape
from worldmodels.protocols import LatentPolicy
from worldmodels.runs import config_hash, derive_seed


class PlannerState(NamedTuple):
    """What a planner carries from step to step, for B episodes."""

    z: NDArray[np.float32]  #: (B, Z) latent of the last decision's frame
    h: NDArray[np.float32]  #: (B, M, H) of every memory there
    c: NDArray[np.float32]  #: (B, M, C)
    action: NDArray[np.float32]  #: (B, A) action decided there, as M sees it
    held: NDArray[np.int64]  #: (B,) steps of the environment that it has been chosen for
    plans: NDArray[np.object_]  #: (B,) plans; None before the first one
    decisions: NDArray[np.int64]  #: (B,) decisions so far, which seed the search


class DreamtDecision(NamedTuple):
    """One decision of a planner in a dream."""

    belief: Belief  #: where it was made
    plan: Plan
    reward: float  #: that M expects for the decision


class PlanningPolicy(HoldingPolicy[PlannerState]):
    """An agent's V and M under a planner in C's place, with the agent's `action_repeat`."""

    def __init__(
        self,
        agent: Agent,
        method: str,
        cfg: PlanningConfig | None = None,
        critic: Value | None = None,
        base: LatentPolicy | None = None,
        base_digest: str = "",
    ) -> None:
        """Open the agent's dreams for a planner.

        Args:
            agent: V, M, and C where the config uses it.
            method: name of the planner.
            cfg: its settings (default: the planner's own).
            critic: value of states, where ``cfg.objective.critic``.
            base: policy that acts in dreams after a plan's end (default: the agent's C).
            base_digest: identifies it in evaluations that can be resumed.

        Raises:
            UserError: an unknown planner, or an agent that cannot dream.
        """
        super().__init__()
        cfg = planners.get(method).defaults() if cfg is None else cfg
        self.agent, self.method, self.cfg = agent, method, cfg
        self.action_repeat = agent.action_repeat
        self.imagination = Imagination(agent, cfg.objective, critic, base)
        self.planner = planners.get(method).make(cfg)
        what = ["planner", method, cfg, agent.parameters, agent.metadata, base_digest]
        self.digest = config_hash(what)
        """identifies it in evaluations that can be resumed"""
        self._attended: NDArray[np.bool_] | None = None
        self.reseed(0)

    def __repr__(self) -> str:
        """Name the method and the agent."""
        return f"PlanningPolicy({self.method!r}, {self.agent!r})"

    def _shape(self) -> Shape | None:
        return self.agent.observation_shape

    def check_env(self, env: gym.Env[Any, Any]) -> None:
        """Same as `Agent.check_env`."""
        self.agent.check_env(env)

    def reseed(self, seed: int) -> None:
        """Seed all random numbers."""
        self.seed, self._rng = seed, np.random.default_rng(seed)

    def attend(self, active: NDArray[np.bool_]) -> None:
        """Plan for these rows (B,) only in the next calls; the others hold their last action."""
        self._attended = active.copy()

    def _actions(self, state: PlannerState) -> NDArray[Any]:
        return self.agent.action_spec.decode(state.action)

    def _decide(self, seen: Seen, state: PlannerState | None) -> PlannerState:
        """Perceive all rows, plan for those that are due and attended."""
        batch, starts, due = len(seen.frames), seen.starts, seen.due
        old = self._blank(batch) if state is None else state
        z = self.agent.perceive(seen.frames, seen.deterministic, self._rng).numpy()
        h, c = self._remember(old, starts)
        if self._attended is not None and len(self._attended) == batch:
            due = due & self._attended
        action, plans = old.action.copy(), old.plans.copy()
        decisions = np.where(starts, 0, old.decisions)
        for row in np.flatnonzero(due):
            before = None if starts[row] else plans[row]
            seed = derive_seed(self.seed, "plan", int(row), int(decisions[row]))
            plans[row] = self.plan(Belief(z[row], h[row], c[row]), before, seed)
            first = torch.from_numpy(plans[row].actions[0])
            action[row] = self.imagination.to_input(first).numpy()
        return PlannerState(z, h, c, action, np.ones(batch, np.int64), plans, decisions + 1)

    def plan(self, belief: Belief, before: Plan | None, seed: int) -> Plan:
        """Search for a plan from a belief, starting from the plan of the decision before."""
        imagination, horizon = self.imagination, self.cfg.objective.horizon
        kind = planners.get(self.method)
        objective = kind.objective(imagination, belief, derive_seed(seed, "dreams"))
        still = np.clip(np.zeros_like(imagination.low), imagination.low, imagination.high)
        guess = np.tile(still, (horizon, 1))
        candidates = np.empty((0, *guess.shape), np.float32)
        if before is not None:
            later = before.shifted()
            guess, candidates = later.actions, later.kept
        if self.cfg.objective.proposal and kind.proposals:
            own = imagination.proposals(belief, derive_seed(seed, "proposals"))
            candidates = np.concatenate((own.mean(0, keepdims=True), own, candidates))
        rng = np.random.default_rng(derive_seed(seed, "search"))
        guess, candidates = guess.astype(np.float32), candidates.astype(np.float32)
        return self.planner.plan(objective, guess, candidates, rng)

    @torch.no_grad()
    def dream(
        self, world: Unrolled, decisions: int, seed: int, rng: np.random.Generator, noise: float = 0
    ) -> Iterator[DreamtDecision]:
        """Act in a dream of one row until it ends, or for so many decisions.

        ``seed`` fixes the searches; ``rng`` draws the dream, and ``noise`` on what is executed
        (its standard deviation, in units of half the action's range).
        """
        low, high = self.imagination.low, self.imagination.high
        plan, shape = None, world.z.shape
        for step in range(decisions):
            belief = world.belief
            plan = self.plan(belief, plan, derive_seed(seed, step))
            first = plan.actions[:1]
            if noise:
                moved = first + noise * (high - low) / 2 * rng.standard_normal(low.shape)
                first = np.clip(moved, low, high).astype(np.float32)
            uniform, normal = (
                torch.from_numpy(draw(shape).astype(np.float32))
                for draw in (rng.random, rng.standard_normal)
            )
            action = self.imagination.to_input(torch.from_numpy(first))
            reward, alive = world.step(action, uniform, normal)
            yield DreamtDecision(belief, plan, float(reward))
            if float(alive) < 0.5:
                return

    @torch.inference_mode()
    def _remember(
        self, old: PlannerState, starts: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Every memory's h (B, M, H) and c (B, M, C) after the last decision."""
        z, action, h, c = map(torch.from_numpy, (old.z, old.action, old.h, old.c))
        continues = torch.from_numpy(~starts)[:, None]
        states = [
            memory.advance(z, action, MemoryState(h[:, m], c[:, m])).kept(continues)
            for m, memory in enumerate(self.agent.memories)
        ]
        h, c = (torch.stack(parts, 1) for parts in zip(*states, strict=True))
        return h.numpy(), c.numpy()

    def _blank(self, batch: int) -> PlannerState:
        """A state before the first frame."""
        agent, count = self.agent, np.zeros(batch, np.int64)

        def zeros(*shape: int) -> NDArray[np.float32]:
            return np.zeros((batch, *shape), np.float32)

        members = len(agent.memories)
        h, c = zeros(members, agent.h_dim), zeros(members, agent.memories[0].carry_size)
        z, action = zeros(agent.z_dim), zeros(agent.action_spec.size)
        return PlannerState(z, h, c, action, count, np.full(batch, None), count)
