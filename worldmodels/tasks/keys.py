"""Which keys do what where a person acts: those that the task names, else one after the other."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from worldmodels.envs.spaces import ActionSpec
from worldmodels.tasks.task import Key

CHOICES = "1234567890qwertyuiasdfghjkzxcvbnm"
"""Keys of choices that the task does not name."""
PAIRS = (("left", "right"), ("down", "up"), *zip("asfg", "dwht", strict=True))
"""Keys that lower and raise the numbers of a Box, one number after the other."""


@dataclass(frozen=True)
class Keyboard:
    """Turns the keys that are held into actions of one space; keys have pygame's names."""

    spec: ActionSpec
    keys: Mapping[str, Key]
    """what each key does"""
    idle: Key | None = None
    """the choice while none is held; None repeats the last one"""

    @classmethod
    def of(cls, spec: ActionSpec, named: Mapping[str, Key]) -> Self:
        """The keyboard for a space: the task's keys where these fit it, else numbered ones."""
        discrete = spec.kind == "discrete"
        given = [key.action for key in named.values()]
        fits = all(
            discrete and action < spec.dim
            if isinstance(action, int)
            else not discrete and len(action) == spec.dim
            for action in given
        )
        keys = dict(named) if fits and named else _numbered(spec)
        idle = keys.pop("", None)
        return cls(spec, keys, idle)

    @property
    def rest(self) -> int | None:
        """The choice, counted from 0, while none is held; None repeats the last one."""
        return self.idle.action if self.idle and isinstance(self.idle.action, int) else None

    def action(self, held: Collection[str], last: Any = None) -> Any:
        """The environment's action while these keys are held, the newest last.

        ``last`` is the action before, if there was one.
        """
        wanted = [self.keys[name].action for name in held if name in self.keys]
        if self.spec.kind == "box":
            total = at_rest(self.spec) + sum(map(np.array, wanted), np.zeros(self.spec.dim))
            numbers = np.clip(total, self.spec.low, self.spec.high).astype(np.float32)
            return self.spec.to_env(numbers)
        choice = wanted[-1] if wanted else self.rest
        if choice is not None:
            return self.spec.start + int(np.array(choice))
        return self.spec.start if last is None else last

    def __str__(self) -> str:
        """The keys with what they do, such as "left: left, up: gas"."""
        return ", ".join(f"{name}: {key.label}" for name, key in self.keys.items())


def at_rest(spec: ActionSpec) -> NDArray[np.float32]:
    """The numbers that do nothing: 0, or the bound that is next to it."""
    return np.clip(np.zeros(spec.dim), spec.low, spec.high).astype(np.float32)


def _numbered(spec: ActionSpec) -> dict[str, Key]:
    """A key for each choice, or two for each number, as far as there are keys."""
    if spec.kind == "discrete":
        names = zip(CHOICES, range(spec.dim), strict=False)
        return {name: Key(f"choice {spec.start + choice}", choice) for name, choice in names}
    found, rest = {}, at_rest(spec)
    for number, pair in zip(range(spec.dim), PAIRS, strict=False):
        for name, sign, bounds in zip(pair, "-+", (spec.low, spec.high), strict=True):
            step = np.zeros(spec.dim)
            step[number] = bounds[number] - rest[number]
            if step.any():
                found[name] = Key(f"{sign} number {number + 1}", tuple(step.tolist()))
    return found
