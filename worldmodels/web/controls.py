"""Keys, touch and bars for an agent's actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldmodels.envs.spaces import ActionSpec
from worldmodels.tasks import Key, Task
from worldmodels.web.weights import Tree

ARROWS = {
    "left": ("ArrowLeft", "←", "left"),
    "right": ("ArrowRight", "→", "left"),
    "down": ("ArrowDown", "↓", "right"),
    "up": ("ArrowUp", "↑", "right"),
}
"""Of a task's key: its name in a browser, its sign, and the thumb that reaches it."""
PAIRS = (
    *(("ArrowLeft", "←", "ArrowRight", "→"), ("ArrowDown", "↓", "ArrowUp", "↑")),
    *((a, a.upper(), b, b.upper()) for a, b in ("ad", "sw", "fh", "gt")),
)
"""Keys that lower and raise the numbers of a Box, one after the other."""
CHOICES = "1234567890qwertyuiasdfghjk"
"""Keys of Discrete choices."""


def controls(spec: ActionSpec, task: Task) -> tuple[list[Tree], list[float] | None]:
    """Keys with their actions (A,) as M sees them, and what is done while none is held.

    Numbers of a Box are added to those at rest. None repeats the last choice.
    """
    discrete = spec.kind == "discrete"
    named = _named(spec, task)
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


def _named(spec: ActionSpec, task: Task) -> Mapping[str, Key]:
    """The task's keys, if they are of this action space: a task may have several."""
    fit = [
        spec.kind == "discrete" and action < spec.dim
        if isinstance(action := key.action, int)
        else spec.kind == "box" and len(action) == spec.dim
        for key in task.keys.values()
    ]
    return task.keys if all(fit) else {}


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


def bars(spec: ActionSpec, keys: list[Tree], task: Task) -> list[Tree]:
    """A bar for each number that M gets as an action: its name and range."""
    unit = (0.0,) * spec.dim, (1.0,) * spec.dim
    low, high = (spec.low, spec.high) if spec.kind == "box" else unit
    idle = _named(spec, task).get("")
    found = []
    for number in range(spec.size):
        names = [key["label"] for key in keys if key["action"][number]]
        names += [idle.label] if idle is not None and idle.action == number else []
        name = " / ".join(names) or f"action {number + spec.start}"
        found.append({"label": name, "low": low[number], "high": high[number]})
    return found
