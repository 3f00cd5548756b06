"""Planning by sampling: CEM, iCEM and MPPI. They need a score for each plan, and no gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worldmodels.planning.config import CEMConfig, MPPIConfig
from worldmodels.planning.plan import Budget, Objective, Plan, coloured_noise

Array = NDArray[np.float32]


@dataclass(frozen=True)
class CEM:
    """The cross-entropy method (Rubinstein 1999) with what iCEM adds to it, all of it optional.

    A Gaussian over plans, independent between their numbers, is drawn from and fitted to the best
    of what was drawn, again and again.
    """

    cfg: CEMConfig

    def plan(
        self, objective: Objective, guess: Array, candidates: Array, rng: np.random.Generator
    ) -> Plan:
        """Search.

        Args:
            objective: what to maximise, and the bounds of the actions.
            guess: (T, A) first mean, unless a candidate is better.
            candidates: (K, T, A) plans that compete with the first ones drawn; K may be 0.
            rng: draws the plans.
        """
        cfg, budget = self.cfg, Budget(self.cfg.budget_ms)
        half = (objective.high - objective.low) / 2
        mean, judged = best_start(objective, guess, candidates)
        kept = candidates
        deviation = np.broadcast_to(cfg.spread * half, mean.shape)
        best, best_score, iteration = mean, -np.inf, 0
        while iteration < cfg.iterations and budget.allows(iteration):
            number = max(2, round(cfg.samples * cfg.decay**iteration))
            noise = coloured_noise(rng, (number, *mean.shape), cfg.beta)
            noise[0] = 0.0  # the mean itself is among them
            drawn = np.clip(mean + deviation * noise, objective.low, objective.high)
            plans = np.concatenate((drawn, kept)).astype(np.float32)
            scores = objective.score(plans)
            order = np.argsort(-scores, kind="stable")
            elite = plans[order[: max(2, round(cfg.elites * number))]]
            if scores[order[0]] > best_score:
                best, best_score = plans[order[0]], float(scores[order[0]])
            mean = cfg.momentum * mean + (1 - cfg.momentum) * elite.mean(0)
            deviation = cfg.momentum * deviation + (1 - cfg.momentum) * elite.std(0)
            deviation = np.maximum(deviation, cfg.floor * half)
            kept = elite[: round(cfg.keep * len(elite))]
            judged += len(plans)
            iteration += 1
        if cfg.execute == "mean":
            finalists = np.concatenate((mean[None], candidates)).astype(np.float32)
            scores = objective.score(finalists)
            best, best_score = finalists[scores.argmax()], float(scores.max())
            judged += len(finalists)
        return Plan(best, best_score, kept, iteration, judged, budget.seconds)


@dataclass(frozen=True)
class MPPI:
    """Path integral control: the mean of all drawn plans, weighed by the exponential of scores."""

    cfg: MPPIConfig

    def plan(
        self, objective: Objective, guess: Array, candidates: Array, rng: np.random.Generator
    ) -> Plan:
        """Search; arguments as of `CEM.plan`."""
        cfg, budget = self.cfg, Budget(self.cfg.budget_ms)
        half = (objective.high - objective.low) / 2
        (mean, judged), iteration = best_start(objective, guess, candidates), 0
        while iteration < cfg.iterations and budget.allows(iteration):
            noise = cfg.spread * half * coloured_noise(rng, (cfg.samples, *mean.shape), cfg.beta)
            noise[0] = 0.0
            drawn = np.clip(mean + noise, objective.low, objective.high)
            plans = np.concatenate((drawn, candidates)).astype(np.float32)
            scores = objective.score(plans)
            weight = np.exp((scores - scores.max()) / (cfg.temperature * (scores.std() + 1e-9)))
            mean = np.einsum("n,nta->ta", weight / weight.sum(), plans).astype(np.float32)
            judged += len(plans)
            iteration += 1
        score = float(objective.score(mean[None])[0])
        return Plan(
            mean,
            score,
            np.empty((0, *mean.shape), np.float32),
            iteration,
            judged + 1,
            budget.seconds,
        )


def best_start(objective: Objective, guess: Array, candidates: Array) -> tuple[Array, int]:
    """The best of the guess (T, A) and the candidates (K, T, A), and how many were judged."""
    if len(candidates) == 0:
        return guess.astype(np.float32), 0
    starts = np.concatenate((guess[None], candidates)).astype(np.float32)
    best: Array = starts[objective.score(starts).argmax()]
    return best, len(starts)
