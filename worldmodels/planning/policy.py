"""A planner as a `Policy`: perceive, search, execute the first action, and search again."""

from __future__ import annotations

import copy
import time
from typing import Any, NamedTuple, Self

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from worldmodels.agent import Agent
from worldmodels.dream.engine import Value
from worldmodels.memory.interface import MemoryState
from worldmodels.planning.config import METHODS, Method, PlanningConfig
from worldmodels.planning.controller import Drive
from worldmodels.planning.gradient import GradientPlanner
from worldmodels.planning.objective import Belief, DreamObjective, Imagination, UnrolledObjective
from worldmodels.planning.plan import Plan
from worldmodels.planning.rollout import RolloutObjective, Rollouts
from worldmodels.planning.sampling import CEM, MPPI
from worldmodels.policies.observations import StateWatch, as_starts
from worldmodels.protocols import UserError
from worldmodels.runs import config_hash, derive_seed


class PlannerState(NamedTuple):
    """What a planner carries from step to step, for B episodes."""

    z: NDArray[np.float32]
    """(B, Z) latent of the last decision's frame"""
    h: NDArray[np.float32]
    """(M, B, H) of every memory there"""
    c: NDArray[np.float32]
    """(M, B, C)"""
    action: NDArray[np.float32]
    """(B, A) action decided there, as M sees it"""
    held: NDArray[np.int64]
    """(B,) steps of the environment that it has been chosen for"""
    plans: tuple[Plan | None, ...]
    """B plans; None before the first one"""
    decisions: NDArray[np.int64]
    """(B,) decisions so far, which seed the search"""


class PlanningPolicy:
    """An agent's V and M, driven by a planner in C's place.

    The driver sees frames as the agent does, and holds every decision for its `action_repeat`.
    """

    def __init__(
        self,
        agent: Agent,
        method: Method,
        cfg: PlanningConfig | None = None,
        critic: Value | None = None,
        seed: int = 0,
        drive: Drive | None = None,
        drive_digest: str = "",
    ) -> None:
        """Prepare.

        Args:
            agent: V and M; its C is used where the config says so.
            method: how to search.
            cfg: the planner; None takes the method's defaults.
            critic: worth of states, where ``cfg.objective.critic``.
            seed: of the search and of the dreams.
            drive: who drives in dreams beyond plans; None takes the agent's C.
            drive_digest: names it, for evaluations that can be resumed.

        Raises:
            UserError: an unknown method, or an agent that cannot dream.
        """
        cfg = PlanningConfig.of(method) if cfg is None else cfg
        self.agent, self.method, self.cfg, self.seed = agent, method, cfg, seed
        self.imagination = Imagination.of(agent, cfg.objective, critic, drive)
        self.planner = make_planner(method, cfg)
        what = ["planner", method, cfg, agent.parameters, agent.metadata, drive_digest]
        self.digest = config_hash(what)
        """of what it does, so that an interrupted evaluation knows it again"""
        self.latencies: list[float] = []
        """seconds of every search"""
        self.last_plans: tuple[Plan | None, ...] = ()
        """of the last decision, one per row"""
        self._rng = np.random.default_rng(seed)
        self._attended: NDArray[np.bool_] | None = None
        self._watch = StateWatch()

    def __repr__(self) -> str:
        """Say how it plans."""
        return f"PlanningPolicy({self.method!r}, {self.agent!r})"

    def __copy__(self) -> Self:
        """The same dreams, with its own generator and list of latencies."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._rng, other.latencies = copy.deepcopy(self._rng), list(self.latencies)
        return other

    def check_env(self, env: gym.Env[Any, Any]) -> None:
        """As `Agent.check_env`."""
        self.agent.check_env(env)

    def reseed(self, seed: int) -> None:
        """Start all noise anew."""
        self.seed, self._rng = seed, np.random.default_rng(seed)

    def attend(self, active: NDArray[np.bool_]) -> None:
        """Plan for these rows (B,) only in the next calls; the others hold their last action."""
        self._attended = active.copy()

    def predict(
        self,
        observation: NDArray[np.uint8],
        state: PlannerState | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], PlannerState]:
        """Decide where a decision is due, and hold the last one elsewhere.

        The state carries memory and plans, so pass it on until the episode ends::

            action, state = planner.predict(obs, state, deterministic=True)

        Args:
            observation: the environment's own frame, (H, W, 3) uint8, or a batch (B, H, W, 3).
            state: what the previous call returned; None at the start of all episodes.
            episode_start: (B,) True where an episode begins.
            deterministic: perceive V's mean; otherwise z is sampled from V's posterior.

        Returns:
            Actions, (A,) or (B, A), or choices () or (B,), and the new state.

        Raises:
            UserError: the frames are of another shape or type than the environment's, or their
                number is not the state's.
        """
        self._watch.note(state, episode_start)
        frames, single = self.agent.batch(observation)
        batch = len(frames)
        fresh = as_starts(episode_start, batch, None if state is None else len(state.z))
        old = self._blank(batch) if state is None else state
        due = fresh | (old.held >= self.agent.action_repeat)
        new = old._replace(held=old.held + 1)
        if due.any():
            new = self._decide(frames, old, fresh, due, deterministic)
        actions = self.agent.action_spec.decode(new.action)
        return (actions[0] if single else actions), new

    def _decide(
        self,
        frames: NDArray[np.uint8],
        old: PlannerState,
        fresh: NDArray[np.bool_],
        due: NDArray[np.bool_],
        deterministic: bool,
    ) -> PlannerState:
        """Perceive all rows, plan for those that are due and attended."""
        z, h, c = self._perceive(frames, old, fresh, deterministic)
        attended = np.ones(len(z), np.bool_)
        if self._attended is not None and len(self._attended) == len(z):
            attended = self._attended
        action, plans = old.action.copy(), list(old.plans)
        decisions = np.where(fresh, 0, old.decisions)
        for row in np.flatnonzero(due & attended):
            before = None if fresh[row] else plans[row]
            seed = derive_seed(self.seed, "plan", int(row), int(decisions[row]))
            plan = self.plan(Belief(z[row], h[:, row], c[:, row]), before, seed)
            plans[row] = plan
            first = self.imagination.to_input(torch.from_numpy(plan.actions[0]))
            action[row] = first.numpy()
        self.last_plans = tuple(plans)
        return PlannerState(
            np.where(due[:, None], z, old.z),
            np.where(due[:, None], h, old.h),
            np.where(due[:, None], c, old.c),
            action,
            np.where(due, 1, old.held + 1),
            tuple(plans),
            decisions + due,
        )

    def plan(self, belief: Belief, before: Plan | None, seed: int) -> Plan:
        """Search for a plan from a belief.

        Args:
            belief: what is known now.
            before: the plan of the decision before, to start from; None at the beginning.
            seed: of the search and of the dreams.
        """
        began = time.perf_counter()
        objective = self.objective(belief, derive_seed(seed, "dreams"))
        guess, candidates = self._start(belief, before, derive_seed(seed, "proposals"))
        rng = np.random.default_rng(derive_seed(seed, "search"))
        # Each planner takes the kind of objective that `objective` makes for it.
        plan = self.planner.plan(objective, guess, candidates, rng)  # type: ignore[arg-type]
        self.latencies.append(time.perf_counter() - began)
        return plan

    def objective(
        self, belief: Belief, seed: int
    ) -> DreamObjective | RolloutObjective | UnrolledObjective:
        """What plans from a belief are judged by."""
        if self.method == "rollout":
            return RolloutObjective(self.imagination, belief, seed)
        if self.method == "gradient":
            return UnrolledObjective(self.imagination, belief, seed)
        return DreamObjective(self.imagination, belief, seed)

    def _start(
        self, belief: Belief, before: Plan | None, seed: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """First guess (T, A), and plans (K, T, A) that are to compete with the searched ones."""
        imagination, horizon = self.imagination, self.cfg.objective.horizon
        still = np.clip(np.zeros_like(imagination.low), imagination.low, imagination.high)
        guess = np.tile(still, (horizon, 1))
        candidates = np.empty((0, *guess.shape), np.float32)
        if before is not None:
            later = before.shifted()
            guess, candidates = later.actions, later.kept
        if imagination.cfg.proposal and self.method != "rollout":  # whose search begins there
            own = imagination.proposals(belief, seed)
            others = (own.mean(0, keepdims=True), own, candidates)
            candidates = np.concatenate(others)
        return guess.astype(np.float32), candidates.astype(np.float32)

    @torch.inference_mode()
    def _perceive(
        self,
        frames: NDArray[np.uint8],
        old: PlannerState,
        fresh: NDArray[np.bool_],
        deterministic: bool,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Latents (B, Z) of the frames, h (M, B, H) and c (M, B, C) after the last decision."""
        mu, logvar = self.agent.encode(frames)
        z = mu
        if not deterministic:
            noise = self._rng.standard_normal(tuple(mu.shape), np.float32)
            z = mu + torch.exp(0.5 * logvar) * torch.from_numpy(noise)
        last_z, last_action = torch.from_numpy(old.z), torch.from_numpy(old.action)
        h, c = np.empty_like(old.h), np.empty_like(old.c)
        for m, memory in enumerate(self.agent.memories):
            state = MemoryState(torch.from_numpy(old.h[m]), torch.from_numpy(old.c[m]))
            state = memory.advance(last_z, last_action, state)
            h[m], c[m] = state.h.numpy(), state.c.numpy()
        h[:, fresh], c[:, fresh] = 0, 0
        return z.numpy(), h, c

    def _blank(self, batch: int) -> PlannerState:
        """A state before the first frame."""
        agent = self.agent
        memories = len(agent.memories)
        h = np.zeros((memories, batch, agent.h_dim), np.float32)
        c = np.zeros((memories, batch, agent.memories[0].carry_size), np.float32)
        z = np.zeros((batch, agent.z_dim), np.float32)
        action = np.zeros((batch, agent.action_spec.size), np.float32)
        count = np.zeros(batch, np.int64)
        return PlannerState(z, h, c, action, count, (None,) * batch, count)


def make_planner(method: Method, cfg: PlanningConfig) -> CEM | MPPI | GradientPlanner | Rollouts:
    """The searcher of a method.

    Raises:
        UserError: there is no such method.
    """
    if method in ("cem", "icem"):
        return CEM(cfg.cem)
    if method == "mppi":
        return MPPI(cfg.mppi)
    if method == "gradient":
        return GradientPlanner(cfg.gradient)
    if method == "rollout":
        return Rollouts(cfg.rollout, cfg.objective.risk)
    raise UserError(f"the planner is {method!r}; there are {', '.join(METHODS)}")
