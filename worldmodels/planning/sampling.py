"""Planning by sampling: CEM, iCEM and MPPI. They need a score for each plan, and no gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from worldmodels.config import (
    AtLeast,
    Config,
    Count,
    Decay,
    Limit,
    NotNegative,
    Positive,
    PositiveFraction,
)
from worldmodels.planning.plan import Array, Bounds, Budget, Plan


class Objective(Bounds, Protocol):
    """What sampling planners maximise."""

    def score(self, plans: Array) -> NDArray[np.float64]:
        """Judge plans (N, T, A): (N,) scores, the same for the same plan."""


@dataclass(frozen=True)
class CEMConfig(Config):
    """The cross-entropy method; the settings of `icem` make it iCEM."""

    samples: Annotated[int, AtLeast(2), Limit(65_536)] = 192
    """plans drawn in the first iteration"""
    iterations: Count = 4
    """times that a Gaussian is drawn from and fitted to the best"""
    elite_fraction: PositiveFraction = 0.1
    """fraction of the plans that the Gaussian is fitted to"""
    init_std: NotNegative = 0.5
    """first standard deviation, in units of half the action's range"""
    min_std: NotNegative = 0.02
    """smallest standard deviation, in such units"""
    momentum: Decay = 0.1
    """weight of the previous Gaussian in each fit"""
    beta: NotNegative = 0.0
    """exponent of the noise's power spectrum over time, 1 / f^beta; 0 is white, 2 is Brownian"""
    sample_decay: PositiveFraction = 1.0
    """factor on the number of samples from iteration to iteration"""
    keep_elites: Decay = 0.0
    """fraction of the elites that compete again, in the next iteration and in the next decision"""
    execute: Literal["mean", "best"] = "mean"
    """plan to execute: the Gaussian's mean, unless a proposal is better, or the best plan seen"""
    budget_ms: NotNegative = 0.0
    """stop before an iteration that would not end within so many milliseconds; 0 is no limit, and
    only then a seed fixes the plans"""

    @classmethod
    def icem(cls) -> CEMConfig:
        """Settings of iCEM (Pinneri et al. 2020, arXiv:2008.06389)."""
        return cls(beta=2.0, sample_decay=0.8, keep_elites=0.3, execute="best")


@dataclass(frozen=True)
class MPPIConfig(Config):
    """Model-predictive path integral control (Williams et al. 2017, arXiv:1707.02342)."""

    samples: Annotated[int, AtLeast(2), Limit(65_536)] = 384
    """plans drawn around the mean in each iteration"""
    iterations: Count = 2
    """times that the mean is moved"""
    init_std: NotNegative = 0.3
    """standard deviation of the noise, in units of half the action's range"""
    temperature: Positive = 0.2
    """lambda: plans are weighed by exp(score / lambda), scores standardised over the plans"""
    beta: NotNegative = 1.0
    """exponent of the noise's power spectrum over time, 1 / f^beta"""
    budget_ms: NotNegative = 0.0
    """same as CEM's"""


@dataclass(frozen=True)
class CEM:
    """The cross-entropy method (Rubinstein 1999) with the optional additions of iCEM.

    A Gaussian over plans, independent between their numbers, is drawn from and fitted to the best.
    """

    cfg: CEMConfig

    def plan(
        self, objective: Objective, guess: Array, candidates: Array, rng: np.random.Generator
    ) -> Plan:
        """Maximise an objective over plans that ``rng`` draws.

        The first mean is ``guess`` (T, A), or the best of ``candidates`` (K, T, A), which also
        compete with the first plans that are drawn; K may be 0.
        """
        cfg, budget = self.cfg, Budget(self.cfg.budget_ms)
        half = (objective.high - objective.low) / 2
        mean, judged = best_start(objective, guess, candidates)
        kept = candidates
        std = np.broadcast_to(cfg.init_std * half, mean.shape)
        best, best_score, iteration = mean, -np.inf, 0
        while iteration < cfg.iterations and budget.allows(iteration):
            number = max(2, round(cfg.samples * cfg.sample_decay**iteration))
            noise = coloured_noise(rng, (number, *mean.shape), cfg.beta)
            noise[0] = 0.0  # the mean itself is among them
            drawn = np.clip(mean + std * noise, objective.low, objective.high)
            plans = np.concatenate((drawn, kept)).astype(np.float32)
            scores = objective.score(plans)
            order = np.argsort(-scores, kind="stable")
            elite = plans[order[: max(2, round(cfg.elite_fraction * number))]]
            if scores[order[0]] > best_score:
                best, best_score = plans[order[0]], float(scores[order[0]])
            mean = cfg.momentum * mean + (1 - cfg.momentum) * elite.mean(0)
            std = cfg.momentum * std + (1 - cfg.momentum) * elite.std(0)
            std = np.maximum(std, cfg.min_std * half)
            kept = elite[: round(cfg.keep_elites * len(elite))]
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
    """Path integral control: the mean of all plans, weighed by the exponential of their scores."""

    cfg: MPPIConfig

    def plan(
        self, objective: Objective, guess: Array, candidates: Array, rng: np.random.Generator
    ) -> Plan:
        """Search; see `CEM.plan` for the arguments."""
        cfg, budget = self.cfg, Budget(self.cfg.budget_ms)
        half = (objective.high - objective.low) / 2
        (mean, judged), iteration = best_start(objective, guess, candidates), 0
        while iteration < cfg.iterations and budget.allows(iteration):
            noise = cfg.init_std * half * coloured_noise(rng, (cfg.samples, *mean.shape), cfg.beta)
            noise[0] = 0.0
            drawn = np.clip(mean + noise, objective.low, objective.high)
            plans = np.concatenate((drawn, candidates)).astype(np.float32)
            scores = objective.score(plans)
            weight = np.exp((scores - scores.max()) / (cfg.temperature * (scores.std() + 1e-9)))
            mean = np.einsum("n,nta->ta", weight / weight.sum(), plans).astype(np.float32)
            judged += len(plans)
            iteration += 1
        score = float(objective.score(mean[None])[0])
        return Plan(mean, score, candidates[:0], iteration, judged + 1, budget.seconds)


def best_start(objective: Objective, guess: Array, candidates: Array) -> tuple[Array, int]:
    """The best of the guess (T, A) and the candidates (K, T, A), and how many were judged."""
    if len(candidates) == 0:
        return guess.astype(np.float32), 0
    starts = np.concatenate((guess[None], candidates)).astype(np.float32)
    best: Array = starts[objective.score(starts).argmax()]
    return best, len(starts)


def coloured_noise(rng: np.random.Generator, shape: tuple[int, int, int], beta: float) -> Array:
    """Gaussian noise (N, T, A) of variance 1 with a power spectrum 1 / f^beta over time T.

    The spectral method of Timmer and Koenig (1995): random Fourier coefficients, scaled. Frequency
    0 has the scale of the lowest frequency above it. A beta of 0 is white noise.
    """
    number, steps, size = shape
    if beta == 0 or steps < 2:
        return rng.standard_normal(shape, np.float32)
    frequency = np.fft.rfftfreq(steps)
    frequency[0] = frequency[1]
    scale = frequency ** (-beta / 2)
    parts = rng.standard_normal((2, number, size, len(frequency)))
    parts[1, ..., 0] = 0.0  # frequency 0 is real, and so is the highest of an even number of steps
    parts[0, ..., 0] *= np.sqrt(2)
    power = 2 * scale[0] ** 2 + 4 * (scale[1:] ** 2).sum()
    if steps % 2 == 0:
        parts[1, ..., -1] = 0.0
        parts[0, ..., -1] *= np.sqrt(2)
        power -= 2 * scale[-1] ** 2
    noise = np.fft.irfft((parts[0] + 1j * parts[1]) * scale, steps, axis=-1)
    unit = noise * (steps / np.sqrt(power))
    return np.ascontiguousarray(unit.transpose(0, 2, 1)).astype(np.float32)
