"""How long V is trained: for as long as what it loses of moving parts falls."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from worldmodels._training import TrainingLoop

WARM_UP = 0.05
"""Fraction of the steps in which the learning rate rises."""
FALL, WITHIN = 0.03, 300
"""The error falls by this fraction from so many steps to the next, or the training draws in."""
LEAST = 0.4
"""Fraction of the steps before which it never does: V may stand still at first, too."""


class Pace:
    """Learning rate of every step, and how many steps there are.

    An adaptive training stays at the peak while the mean error of `WITHIN` steps falls, for `LEAST`
    to two thirds of the steps; then it draws in, half as long again, on a cosine to a hundredth of
    the peak. Any other rises and falls once (`one_cycle`).
    """

    def __init__(self, loop: TrainingLoop[Any], peak: float, adaptive: bool) -> None:
        """Plan the loop's steps, or continue with the plan of its checkpoint."""
        self.loop, self.peak, self.adaptive, self.most = loop, peak, adaptive, loop.steps
        self.turn: int = loop.resumed.get("turn", 2 * self.most // 3) if adaptive else 0
        """step from which the rate falls"""
        self.errors: list[list[float]] = loop.resumed.get("errors", [])
        """steps, and the fraction of what moves that V did not explain then"""
        if adaptive:
            self._plan()

    def _plan(self) -> None:
        self.loop.steps = min(self.most, self.turn + -(-self.turn // 2))

    def rate(self, step: int) -> float:
        """Learning rate at a step."""
        if not self.adaptive:
            return one_cycle(step, self.most, self.peak)
        rise = max(1, round(WARM_UP * self.most))
        if step < rise:
            return self.peak * (step + 1) / rise
        return cosine(self.peak, max(0, step - self.turn) / max(1, self.loop.steps - self.turn))

    def look(self, step: int, error: float | None) -> None:
        """After ``step`` steps, draw in if the error has not fallen enough, and print the reason.

        ``error`` is None where none was measured.
        """
        if not self.adaptive or error is None or step > self.turn:
            return
        self.errors.append([step, error])
        now = np.mean([past for at, past in self.errors if at > step - WITHIN])
        old = [past for at, past in self.errors if step - 2 * WITHIN < at <= step - WITHIN]
        slow = old and now > (1 - FALL) * float(np.mean(old))
        if slow and step >= max(LEAST * self.most, 2 * WITHIN):
            self.turn = step
            self._plan()
        elif step < self.turn:
            return
        told = f"{now:.1%} of what moves is unexplained in the {WITHIN:,} steps to {step:,}"
        told += f", {np.mean(old):.1%} in those before" if old else ""
        end = f"to step {self.loop.steps:,} (at most {self.most:,})"
        print(f"{self.loop.name}: {told}; the rate falls from here {end}")

    def state(self) -> dict[str, Any]:
        """What a resume needs."""
        return {"turn": self.turn, "errors": self.errors} if self.adaptive else {}


def one_cycle(step: int, steps: int, peak: float) -> float:
    """Learning rate at ``step`` of ``steps``: linear warm-up, then a cosine to ``peak / 100``."""
    rise = max(1, round(WARM_UP * steps))
    if step < rise:
        return peak * (step + 1) / rise
    return cosine(peak, (step - rise) / max(1, steps - rise))


def cosine(peak: float, fraction: float) -> float:
    """From ``peak`` at 0 to its hundredth at 1."""
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fraction)))
