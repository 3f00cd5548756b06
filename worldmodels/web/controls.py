"""Keys, touch and bars for an agent's actions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldmodels.envs.spaces import ActionSpec
from worldmodels.tasks import Task
from worldmodels.web.weights import Tree

ARROWS = {
    "left": ("ArrowLeft", "←", "left"),
    "right": ("ArrowRight", "→", "left"),
    "down": ("ArrowDown", "↓", "right"),
    "up": ("ArrowUp", "↑", "right"),
}
"""Of a task's key: its name in a browser, its sign, and the thumb that reaches it."""
PAIRS = (("ArrowLeft", "←", "ArrowRight", "→"), ("ArrowDown", "↓", "ArrowUp", "↑"))
PAIRS += tuple((a, a.upper(), b, b.upper()) for a, b in ("ad", "sw", "fh", "gt"))
"""Keys that lower and raise the numbers of a Box, one after the other."""
CHOICES = "1234567890qwertyuiasdfghjk"
"""Keys of Discrete choices."""


def controls(spec: ActionSpec, task: Task) -> tuple[list[Tree], list[float] | None]:
    """Keys with their actions (A,) as M sees them, and what is done while none is held.

    Numbers of a Box are added to those at rest. None repeats the last choice.
    """
    discrete = spec.kind == "discrete"
    fits = (isinstance(key.action, int) == discrete for key in task.keys.values())
    named = task.keys if all(fits) and all(_inside(k.action, spec) for k in task.keys.values()) else {}
    rest = np.clip(np.zeros(spec.size), spec.low, spec.high) if not discrete else None
    if discrete and "" in named:
        rest = _vector(named[""].action, spec)
    found = [
        {"key": key, "sign": sign, "side": side, "label": named[name].label}
        | {"action": _vector(named[name].action, spec).tolist()}
        for name, (key, sign, side) in ARROWS.items()
        if name in named
    ]
    return found or _numbered(spec), None if rest is None else rest.tolist()


def _inside(action: int | tuple[float, ...], spec: ActionSpec) -> bool:
    return action < spec.dim if isinstance(action, int) else len(action) == spec.dim


def _vector(action: int | tuple[float, ...], spec: ActionSpec) -> NDArray[Any]:
    return np.eye(spec.size)[action] if isinstance(action, int) else np.array(action, float)


def _numbered(spec: ActionSpec) -> list[Tree]:
    """A key for each choice, or two for each number, as far as there are keys."""
    if spec.kind == "discrete":
        return [
            {"key": key, "sign": key.upper(), "label": f"choice {choice + spec.start}"}
            | {"action": np.eye(spec.size)[choice].tolist()}
            for choice, key in zip(range(spec.dim), CHOICES, strict=False)
        ]
    found = []
    rest = np.clip(np.zeros(spec.size), spec.low, spec.high)
    for number, pair in zip(range(spec.dim), PAIRS, strict=False):
        for end, sign, bound in ((0, "−", spec.low), (2, "+", spec.high)):
            step = np.eye(spec.size)[number] * (bound[number] - rest[number])
            if step.any():
                label = f"action {number + 1} {sign}"
                found.append({"key": pair[end], "sign": pair[end + 1], "label": label})
                found[-1]["action"] = step.tolist()
    return found


def bars(spec: ActionSpec, keys: list[Tree]) -> list[Tree]:
    """A bar for each number that M gets as an action: its name and range."""
    low, high = (spec.low, spec.high) if spec.kind == "box" else ([0.0] * spec.dim, [1.0] * spec.dim)
    found = []
    for number in range(spec.size):
        names = [key["label"] for key in keys if key["action"][number]]
        name = " / ".join(names) or f"action {number + spec.start}"
        found.append({"label": name, "low": low[number], "high": high[number]})
    return found
