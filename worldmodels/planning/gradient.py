"""Planning by gradient: the unrolled model is differentiable in the actions, so climb it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from worldmodels.config import Config, Count, NotNegative, Positive, Size
from worldmodels.planning.plan import Array, Bounds, Budget, Plan

EDGE = 0.98
"""A guess is drawn this far into its bounds; at the bounds themselves tanh has no gradient."""


class DifferentiableObjective(Bounds, Protocol):
    """What the gradient planner maximises."""

    def returns(self, plans: Tensor) -> Tensor:
        """Judge plans (N, T, A): (N,) scores that can be differentiated."""


@dataclass(frozen=True)
class GradientConfig(Config):
    """Optimal control by backpropagation through the unrolled M."""

    iterations: Count = 20
    """steps of Adam"""
    restarts: Size = 4
    """plans that are improved side by side: the warm start, proposals, and random ones"""
    learning_rate: Positive = 0.1
    """of Adam, on actions before they are squashed into their bounds by tanh"""
    init_std: NotNegative = 0.5
    """standard deviation of the random restarts around the warm start, before squashing"""
    clip_norm: NotNegative = 10.0
    """largest norm of one plan's gradient; 0 does not limit it"""
    budget_ms: NotNegative = 0.0
    """same as CEM's"""


@dataclass(frozen=True)
class GradientPlanner:
    """Adam on the actions before squashing: ``a = middle + half tanh(u)``.

    Several plans climb side by side; the best point of all of them is executed.
    """

    cfg: GradientConfig

    def plan(
        self,
        objective: DifferentiableObjective,
        guess: Array,
        candidates: Array,
        rng: np.random.Generator,
    ) -> Plan:
        """Search; see `CEM.plan` for the arguments.

        Raises:
            FloatingPointError: every plan's score is not finite.
        """
        cfg, budget = self.cfg, Budget(self.cfg.budget_ms)
        low, high = torch.from_numpy(objective.low), torch.from_numpy(objective.high)
        u = torch.from_numpy(self._restarts(objective, guess, candidates, rng))
        first, second = torch.zeros_like(u), torch.zeros_like(u)
        best = squash(u.detach(), low, high)
        best_score = torch.full((len(u),), -torch.inf, dtype=torch.float64)
        iteration = 0
        # one score more than steps, so that the last step's point is judged too
        while iteration <= cfg.iterations and (iteration < 2 or budget.allows(iteration)):
            with torch.enable_grad():
                leaf = u.requires_grad_(True)
                plans = squash(leaf, low, high)
                scores = objective.returns(plans)
                total = scores.sum()
            better = scores.detach().double() > best_score
            best = torch.where(better[:, None, None], plans.detach(), best)
            best_score = torch.where(better, scores.detach().double(), best_score)
            if iteration < cfg.iterations:
                (gradient,) = torch.autograd.grad(total, leaf)
                gradient = shortened(gradient, cfg.clip_norm)
                step, first, second = adam(gradient, first, second, iteration)
                u = leaf.detach() + cfg.learning_rate * step
            iteration += 1
        if not torch.isfinite(best_score).any():
            raise FloatingPointError("no plan has a finite score; the model has left its range")
        chosen = int(best_score.argmax())
        done = (iteration - 1, iteration * len(u), budget.seconds)
        return Plan(best[chosen].numpy(), float(best_score[chosen]), candidates[:0], *done)

    def _restarts(
        self, bounds: Bounds, guess: Array, candidates: Array, rng: np.random.Generator
    ) -> Array:
        """Unsquashed plans (R, T, A): the guess, the candidates, then the guess and noise."""
        known = np.concatenate((guess[None], candidates))[: self.cfg.restarts]
        random = self.cfg.restarts - len(known)
        middle, half = (bounds.high + bounds.low) / 2, (bounds.high - bounds.low) / 2
        u = np.arctanh(np.clip((known - middle) / half, -EDGE, EDGE))
        noise = rng.standard_normal((random, *guess.shape), np.float32)
        return np.concatenate((u, u[:1] + self.cfg.init_std * noise)).astype(np.float32)


def squash(u: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Numbers (..., A) into [low, high] by tanh."""
    return (high + low) / 2 + (high - low) / 2 * torch.tanh(u)


def adam(
    gradient: Tensor, first: Tensor, second: Tensor, step: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Adam's direction (Kingma and Ba 2015) and its moments; torch's costs as much as a dream."""
    first = 0.9 * first + 0.1 * gradient
    second = 0.999 * second + 0.001 * gradient.square()
    unbiased = first / (1 - 0.9 ** (step + 1))
    std = (second / (1 - 0.999 ** (step + 1))).sqrt()
    return unbiased / (std + 1e-8), first, second


def shortened(gradient: Tensor, limit: float) -> Tensor:
    """Rows (B, ...) clipped to that norm, or to none at 0; a row that is not finite becomes 0."""
    rows = gradient.flatten(1)
    rows = torch.where(torch.isfinite(rows).all(-1, keepdim=True), rows, 0.0)
    if limit:
        norm = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
        rows = rows * (limit / norm.clamp_min(limit))
    return rows.view_as(gradient)
