"""How long a training goes on: for as long as its held-out error falls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from worldmodels._training import TrainingLoop


class Rule(NamedTuple):
    """When an adaptive training draws in."""

    least: float
    """fraction of the steps before which it never does"""
    within: int
    """steps whose mean error is compared with that of as many before"""
    falls: Callable[[float, float], bool]
    """whether an error has fallen enough from the first to the second"""
    told: str
    """what the error is, with {} for its value"""
    form: str
    """format of that"""


class Pace:
    """How many steps there are, and when their learning rate falls.

    An adaptive training from scratch stays at the peak while the error falls, for `Rule.least` to
    two thirds of the steps; then it draws in, half as long again.
    """

    def __init__(self, loop: TrainingLoop[Any], rule: Rule | None) -> None:
        """Plan the loop's steps, or go on with the plan of its checkpoint; all without a rule."""
        self.loop, self.rule, self.most = loop, rule, loop.steps
        self.turn: int = loop.resumed.get("turn", 2 * self.most // 3) if rule else 0
        """step from which the rate falls"""
        self.errors: list[list[float]] = loop.resumed.get("errors", [])
        """steps, and the error then"""
        if rule:
            self._plan()

    def _plan(self) -> None:
        self.loop.steps = min(self.most, self.turn + -(-self.turn // 2))

    def falling(self, step: int) -> tuple[int, int]:
        """Steps since the rate began to fall, and of the whole fall."""
        return max(0, step - self.turn), self.loop.steps - self.turn

    def look(self, step: int, error: float | None) -> None:
        """After ``step`` steps, draw in if the error has not fallen enough, and print the reason.

        ``error`` is None where none was measured.
        """
        if self.rule is None or error is None or step > self.turn:
            return
        self.errors.append([step, error])
        width = self.rule.within
        now = np.mean([past for at, past in self.errors if at > step - width])
        old = [past for at, past in self.errors if step - 2 * width < at <= step - width]
        slow = old and not self.rule.falls(float(np.mean(old)), float(now))
        if slow and step >= max(self.rule.least * self.most, 2 * width):
            self.turn = step
            self._plan()
        elif step < self.turn:
            return
        told = self.rule.told.format(format(now, self.rule.form))
        told += f" in the {width:,} steps to {step:,}"
        told += f", {np.mean(old):{self.rule.form}} in those before" if old else ""
        end = f"to step {self.loop.steps:,} (at most {self.most:,})"
        print(f"{self.loop.name}: {told}; the rate falls from here {end}")

    def state(self) -> dict[str, Any]:
        """What a resume needs."""
        return {"turn": self.turn, "errors": self.errors} if self.rule else {}
