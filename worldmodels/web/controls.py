"""Keys, touch and bars for an agent's actions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldmodels.envs.spaces import ActionSpec
from worldmodels.tasks import Task
from worldmodels.tasks.keys import Keyboard, at_rest
from worldmodels.web.weights import Tree

ARROWS = {
    "left": ("ArrowLeft", "←", "left"),
    "right": ("ArrowRight", "→", "left"),
    "down": ("ArrowDown", "↓", "right"),
    "up": ("ArrowUp", "↑", "right"),
}
"""Of an arrow key: its name in a browser, its sign, and the thumb that reaches it."""


def controls(spec: ActionSpec, task: Task) -> tuple[list[Tree], list[float] | None]:
    """Keys with their actions (A,) as M sees them, and what is done while none is held.

    Numbers of a Box are added to those at rest. None repeats the last choice.
    """
    board = Keyboard.of(spec, task.keys)
    rest: NDArray[Any] | None = None
    if spec.kind == "box":
        rest = at_rest(spec)
    elif board.rest is not None:
        rest = _vector(board.rest, spec)
    arrows = set(board.keys) <= set(ARROWS)
    found: list[Tree] = []
    for name in sorted(board.keys, key=[*ARROWS].index) if arrows else board.keys:
        key, sign, side = ARROWS.get(name, (name, name.upper(), None))
        label, action = board.keys[name]
        one: Tree = {"key": key, "sign": sign, "label": label}
        one["action"] = _vector(action, spec).tolist()
        found.append(one | {"side": side} if arrows else one)
    return found, None if rest is None else rest.tolist()


def _vector(action: int | tuple[float, ...], spec: ActionSpec) -> NDArray[Any]:
    return np.eye(spec.size)[action] if isinstance(action, int) else np.array(action, float)


def bars(spec: ActionSpec, keys: list[Tree], task: Task) -> list[Tree]:
    """A bar for each number that M gets as an action: its name and range."""
    unit = (0.0,) * spec.dim, (1.0,) * spec.dim
    low, high = (spec.low, spec.high) if spec.kind == "box" else unit
    idle = Keyboard.of(spec, task.keys).idle
    found = []
    for number in range(spec.size):
        names = [key["label"] for key in keys if key["action"][number]]
        names += [idle.label] if idle is not None and idle.action == number else []
        name = " / ".join(names) or f"action {number + spec.start}"
        found.append({"label": name, "low": low[number], "high": high[number]})
    return found
