"""Gymnasium's CartPole and Pendulum, seen as they are drawn.

Both are symmetric: pictures, rules and first states know no left or right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldmodels.envs.frames import FrameSpec
from worldmodels.envs.spaces import ActionSpec
from worldmodels.tasks.task import Key, Task, Words


@dataclass(frozen=True)
class ReversingFlip:
    """A flip of the whole picture that reverses the actions, which run from left to right."""

    spec: ActionSpec

    @classmethod
    def of(cls, frames: FrameSpec, actions: ActionSpec) -> ReversingFlip:
        """The flip of what V sees of the frames, and of the actions."""
        return cls(actions)

    def frames(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Symmetry.frames`."""
        return frames[..., ::-1, :].copy()

    def actions(self, actions: NDArray[Any]) -> NDArray[Any]:
        """See `Symmetry.actions`."""
        if self.spec.kind == "box":
            return -actions
        flipped: NDArray[Any] = 2 * self.spec.start + self.spec.dim - 1 - actions
        return flipped


CART_POLE = Task(
    name="cart-pole",
    symmetry=ReversingFlip.of,
    solved=475.0,
    returns=(0.0, 500.0),
    keys={"left": Key("left", 0), "right": Key("right", 1)},
    words=Words(
        verb="balance",
        score="Each step pays 1 as long as the pole is within 12 degrees of upright and the cart "
        "within 2.4 of the middle, at most 500 steps. A mean of 475 over 100 episodes counts as "
        "solved.",
    ),
)

PENDULUM = Task(
    name="pendulum",
    symmetry=ReversingFlip.of,
    # a step costs at most 16.3, but a pendulum that hangs still and is never moved 9.9
    returns=(-2000.0, 0.0),
    keys={"left": Key("left", (2.0,)), "right": Key("right", (-2.0,))},
    words=Words(
        verb="swing up",
        score="Each of 200 steps costs angle² + 0.1 velocity² + 0.001 torque², the angle measured "
        "from upright in radians: nothing where the pendulum stands still on its head, 9.9 where "
        "it hangs. The best policies lose some 150 on the way up.",
    ),
)
