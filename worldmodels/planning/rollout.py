"""Policy improvement by rollouts: small changes of the policy's action are compared in dreams.

The policy itself acts in every dream, unlike in those of a plan of actions, so that a few short
dreams are enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodels.config import Config, Count, Fraction, NotNegative, Size
from worldmodels.dream.world import Act
from worldmodels.planning.objective import Belief, Imagination, conditional_value_at_risk
from worldmodels.planning.plan import Array, Bounds, Budget, Plan


class ChangeObjective(Bounds, Protocol):
    """Dreams under the policy, its first actions changed."""

    own: Array  #: (A,) the policy's action now

    def returns(self, changes: Array, hold: int) -> NDArray[np.float64]:
        """Returns (N, E) of changes (N, A) of the policy's actions that last ``hold`` decisions."""


class RolloutObjective:
    """Dreams from one belief under the policy, its first actions changed."""

    def __init__(self, imagination: Imagination, belief: Belief, seed: int) -> None:
        """Dream from ``belief`` by the common random numbers of ``seed``."""
        self.low, self.high = imagination.low, imagination.high
        self._imagination, self._belief, self._seed = imagination, belief, seed
        z, h = (torch.from_numpy(x)[None] for x in (belief.z, belief.seen(imagination.carry)))
        with torch.inference_mode():
            action = imagination.controller(z, h)
        self.own: Array = imagination.of_input(action)[0].numpy()

    def returns(self, changes: Array, hold: int) -> NDArray[np.float64]:
        """Returns (N, E) of changes (N, A); they are added to the actions, which stay in bounds."""
        imagination = self._imagination
        low, high = torch.from_numpy(self.low), torch.from_numpy(self.high)

        def make_act(population: Tensor) -> Act:
            left = hold

            def act(z: Tensor, h: Tensor) -> Tensor:
                nonlocal left
                action = imagination.act(z, h)
                if left <= 0:
                    return action
                left -= 1
                numbers = imagination.of_input(action).view(len(population), -1, len(self.own))
                changed = (numbers + population[:, None]).flatten(0, 1)
                return imagination.to_input(torch.clamp(changed, low, high))

            return act

        return imagination.dream(make_act, changes, self._belief, self._seed)


@dataclass(frozen=True)
class RolloutConfig(Config):
    """Policy improvement by rollouts: changes of the policy's actions, dreamt and compared."""

    changes: Size = 11
    """changes drawn at each decision, besides none"""
    hold: Count = 3
    """decisions that a change lasts in a dream; only the first one is executed"""
    init_std: NotNegative = 0.3
    """standard deviation of a change, in units of half the action's range"""
    margin: NotNegative = 2.0
    """overrule the policy where a change gains more than so many standard errors of the gain"""
    alarm: Fraction = 0.0
    """search only where the worst of the policy's own dreams returns less than that fraction of the
    best; 0 always searches"""


@dataclass(frozen=True)
class Rollouts:
    """One step of policy improvement at every decision.

    The rollout algorithm (Tesauro and Galperin 1996, "On-line policy improvement using Monte-Carlo
    search"), with changes of the policy's action as moves, of which only significant ones are made.
    """

    cfg: RolloutConfig
    risk: float = 1.0
    """fraction of the worst dreams that counts"""

    def plan(
        self, objective: ChangeObjective, guess: Array, candidates: Array, rng: np.random.Generator
    ) -> Plan:
        """Compare the policy's own action with changes of it, drawn by ``rng``; ignore ``guess``.

        ``candidates`` (K, 1, A) are the best changes of the decision before. The plan has one
        action, and its ``kept`` the change in it, if any.
        """
        cfg, budget = self.cfg, Budget()
        none = np.zeros((1, len(objective.own)), np.float32)
        own = None
        if cfg.alarm:
            own = objective.returns(none, cfg.hold)
            if not own.min() < cfg.alarm * own.max():  # the worst dream is not far behind the best
                return _plan(objective, none[0], float(own.mean()), 1, budget)
        half = (objective.high - objective.low) / 2
        drawn = cfg.init_std * half * rng.standard_normal((cfg.changes, len(half)), np.float32)
        changes = np.concatenate((none, candidates[:, 0], drawn)).astype(np.float32)
        returns = objective.returns(changes if own is None else changes[1:], cfg.hold)
        if own is not None:
            returns = np.concatenate((own, returns))
        scores = conditional_value_at_risk(returns, self.risk)
        best = int(scores.argmax())
        gain = returns[best] - returns[0]
        error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else 0.0
        if scores[best] - scores[0] <= cfg.margin * error:
            best = 0
        return _plan(objective, changes[best], float(scores[best]), len(changes), budget)


def _plan(
    objective: ChangeObjective, change: Array, score: float, judged: int, budget: Budget
) -> Plan:
    action = np.clip(objective.own + change, objective.low, objective.high)[None]
    kept = change[None, None] if change.any() else np.empty((0, *action.shape), np.float32)
    return Plan(action.astype(np.float32), score, kept, 1, judged, budget.seconds)
