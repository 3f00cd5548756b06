"""Policy improvement by rollouts: what the driver would do, and small changes of it, are dreamt.

A plan of actions is followed blindly in a dream; here the driver itself goes on driving in every
dream, so that even a few short ones say what a change now leads to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodels.dream.engine import Act
from worldmodels.planning.config import RolloutConfig
from worldmodels.planning.objective import Belief, Imagination
from worldmodels.planning.plan import Bounds, Budget, Plan
from worldmodels.planning.risk import conditional_value_at_risk

Array = NDArray[np.float32]


class ChangeObjective(Bounds, Protocol):
    """What rollouts compare."""

    @property
    def own(self) -> Array:
        """(A,) what the driver does now, unchanged."""
        ...

    def returns(self, changes: Array, hold: int) -> NDArray[np.float64]:
        """Returns (N, E) of changes (N, A) of the driver's actions that last ``hold`` decisions."""
        ...


class RolloutObjective:
    """Dreams from one belief in which the driver drives, its first actions changed."""

    def __init__(self, imagination: Imagination, belief: Belief, seed: int) -> None:
        """Dream from ``belief`` with the luck of ``seed``, the same for all changes."""
        self.low, self.high = imagination.low, imagination.high
        self._imagination, self._seed = imagination, seed
        self._starts = belief.starts
        z, h = torch.from_numpy(belief.z)[None], torch.from_numpy(belief.h[:1])
        with torch.inference_mode():
            self.own: Array = self._numbers(imagination.controller(z, h))[0].numpy()
        self.steps = 0
        """of M so far"""

    def returns(self, changes: Array, hold: int) -> NDArray[np.float64]:
        """Returns (N, E) of changes (N, A); they are added to the actions, which stay in bounds."""
        imagination = self._imagination
        engine = imagination.engine
        engine.starts = self._starts

        def make_act(population: Tensor) -> Act:
            left = hold

            def act(z: Tensor, h: Tensor) -> Tensor:
                nonlocal left
                action = imagination.controller(z.flatten(0, 1), h.flatten(0, 1))
                if left <= 0:
                    return action
                left -= 1
                numbers = self._numbers(action).view(len(population), -1, len(self.own))
                changed = (numbers + population[:, None]).flatten(0, 1)
                low, high = torch.from_numpy(self.low), torch.from_numpy(self.high)
                return imagination.to_input(torch.clamp(changed, low, high))

            return act

        result = engine.rollout(
            make_act,
            np.ascontiguousarray(changes, np.float32),
            self._seed,
            value=imagination.critic,
        )
        self.steps += result.steps
        return result.returns

    def _numbers(self, action: Tensor) -> Tensor:
        """M's action input (..., A) as a plan's numbers: choices from [0, 1] to [-1, 1]."""
        return action * 2 - 1 if self._imagination.discrete else action


@dataclass(frozen=True)
class Rollouts:
    """One step of policy improvement at every decision.

    The rollout algorithm (Tesauro and Galperin 1996, "On-line policy improvement using Monte-Carlo
    search"), with changes of the driver's action in place of a list of moves, and with a test: the
    driver is only overruled where its dreams say so more clearly than their own scatter.
    """

    cfg: RolloutConfig
    risk: float = 1.0
    """share of the worst dreams that counts"""

    def plan(
        self, objective: ChangeObjective, guess: Array, candidates: Array, rng: np.random.Generator
    ) -> Plan:
        """Compare the driver's own action with changes of it.

        Args:
            objective: dreams in which the driver drives.
            guess: not used; the driver itself is where the search begins.
            candidates: (K, 1, A) changes that were best a decision before.
            rng: draws the changes.

        Returns:
            A plan of one action; ``kept`` is the change that it has in it, if there is any.
        """
        cfg, budget = self.cfg, Budget(0)
        size, none = len(objective.own), np.zeros((1, len(objective.own)), np.float32)
        judged, own = 1, None
        if cfg.alarm:
            own = objective.returns(none, cfg.hold)
            if not self._alarming(own[0]):
                return self._act(objective, none[0], float(own.mean()), judged, budget)
        half = (objective.high - objective.low) / 2
        drawn = cfg.spread * half * rng.standard_normal((cfg.changes, size), np.float32)
        changes = np.concatenate((none, candidates[:, 0], drawn)).astype(np.float32)
        returns = objective.returns(changes if own is None else changes[1:], cfg.hold)
        if own is not None:
            returns = np.concatenate((own, returns))
        judged += len(changes) - 1
        scores = conditional_value_at_risk(returns, self.risk)
        best = int(scores.argmax())
        gain = returns[best] - returns[0]
        error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else 0.0
        if scores[best] - scores[0] <= cfg.margin * error:
            best = 0
        return self._act(objective, changes[best], float(scores[best]), judged, budget)

    def _alarming(self, returns: NDArray[np.float64]) -> bool:
        """Whether the worst of the driver's dreams falls far behind the best."""
        return bool(returns.min() < self.cfg.alarm * returns.max())

    def _act(
        self, objective: ChangeObjective, change: Array, score: float, judged: int, budget: Budget
    ) -> Plan:
        action = np.clip(objective.own + change, objective.low, objective.high)[None]
        kept = change[None, None] if change.any() else np.empty((0, *action.shape), np.float32)
        return Plan(action.astype(np.float32), score, kept, 1, judged, budget.seconds)
