"""A policy network by imitation: regression on a planner's decisions in the dream."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from worldmodels.agent import Agent
from worldmodels.config import Config, Count, NotNegative, Positive, Size
from worldmodels.dream.starts import DreamStarts
from worldmodels.planning.actor_critic import Log
from worldmodels.planning.networks import Actor, NetworkConfig
from worldmodels.planning.objective import Belief, Unrolled
from worldmodels.runs import derive_seed, load_checkpoint, progress, save_checkpoint

if TYPE_CHECKING:
    from worldmodels.policies.planning import PlanningPolicy


@dataclass(frozen=True)
class ImitationConfig(Config):
    """Collection of a planner's decisions, and their imitation."""

    dreams: Size = 64
    """dreams under the planner, each from a recorded state"""
    decisions: Count = 20
    """decisions in each of them"""
    noise: NotNegative = 0.1
    """standard deviation of executed around planned actions, in units of half the range, from which
    the network learns to recover"""
    epochs: Count = 60
    """passes over the collected decisions"""
    batch: Size = 128
    """decisions per gradient step"""
    learning_rate: Positive = 1e-3
    """of Adam"""
    network: NetworkConfig = field(default_factory=NetworkConfig)


class Decisions(NamedTuple):
    """Decisions of a planner, and the states in which it made them."""

    z: NDArray[np.float32]  #: (N, Z)
    h: NDArray[np.float32]  #: (N, H), or [h, c]
    numbers: NDArray[np.float32]  #: (N, A) first numbers of the plans, within the actor's bounds


def collect_decisions(
    policy: PlanningPolicy, cfg: ImitationConfig, seed: int, checkpoint: Path | None = None
) -> Decisions:
    """Let a planner act in dreams; finished ones are read from the checkpoint, if it exists.

    Raises:
        UserError: an agent that cannot dream.
    """
    agent = policy.agent
    _, starts = agent.to_dream()
    sizes = (agent.z_dim, agent.seen_dim, agent.action_spec.size)
    found = Decisions(*(np.empty((0, size), np.float32) for size in sizes))
    first = 0
    if checkpoint is not None and checkpoint.exists():
        kept = load_checkpoint(checkpoint)
        first = int(kept["dreams"])
        found = Decisions(*(kept[name].numpy() for name in Decisions._fields))
    with progress(range(cfg.dreams), "plans to imitate", unit="dreams") as bar:
        bar.advance(first)
        for dream in range(first, cfg.dreams):
            more = _one_dream(policy, starts, cfg, derive_seed(seed, "imitation", dream))
            found = Decisions(*(np.concatenate(pair) for pair in zip(found, more, strict=True)))
            if checkpoint is not None:
                tensors = {n: torch.from_numpy(a) for n, a in found._asdict().items()}
                save_checkpoint(checkpoint, {"dreams": dream + 1, **tensors})
            bar.advance()
    return found


def _one_dream(
    policy: PlanningPolicy, starts: DreamStarts, cfg: ImitationConfig, seed: int
) -> Decisions:
    """One dream under the planner; all memories follow, the last one dreams."""
    imagination, rng = policy.imagination, np.random.default_rng(seed)
    belief = Belief.recorded(starts, int(rng.integers(len(starts.z))))
    temperature = policy.cfg.objective.temperature
    world = Unrolled.of(imagination.memories, imagination.reward_model, belief, temperature)
    made = policy.dream(world, cfg.decisions, seed, rng, cfg.noise)
    carry = policy.agent.controller.carry
    seen = [(now.belief.z, now.belief.seen(carry), now.plan.actions[0]) for now in made]
    return Decisions(*(np.stack(column) for column in zip(*seen, strict=True)))


def imitate(
    agent: Agent, decisions: Decisions, cfg: ImitationConfig, *, seed: int, log: Log | None = None
) -> Actor:
    """Fit an actor's mode to what was decided, by least squares in units of half the range.

    The seed fixes weights and order; ``log`` receives ``step, imitation_loss``.
    """
    torch.manual_seed(derive_seed(seed, "networks") % 2**63)
    actor = Actor.of(agent, cfg.network)
    optimiser = torch.optim.Adam(actor.parameters(), lr=cfg.learning_rate)
    order = torch.Generator().manual_seed(derive_seed(seed, "order") % 2**63)
    z, h, numbers = map(torch.from_numpy, decisions)
    half = (actor.high - actor.low) / 2
    for epoch in progress(range(cfg.epochs), "imitation", unit="epoch"):
        total = 0.0
        for rows in torch.randperm(len(z), generator=order).split(cfg.batch):
            distance = (actor.mode(z[rows], h[rows]) - numbers[rows]) / half
            loss = distance.square().mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            total += float(loss.detach()) * len(rows)
        if log is not None:
            log(step=epoch + 1, imitation_loss=total / len(z))
    return actor.eval()
