"""The mirror image of driving: left and right exchanged in frames and actions.

A symmetric environment obeys the same rules in its mirror image, so every recorded episode is worth
two to V and M. CarRacing's tracks all run anticlockwise, with ten sharp turns to the left for each
one to the right; its cars and roads do not know that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldmodels.envs.frames import CAR_RACING_ROWS, FrameSpec, is_car_racing
from worldmodels.envs.spaces import ActionSpec
from worldmodels.protocols import UserError

FRAME_ROWS = 96
"""Rows of a CarRacing frame, dashboard included."""
LEVEL_BARS = ((15 / 40, 25 / 40), (25 / 40, 35 / 40))
"""Spans of the dashboard's width in which the bars of steering and gyroscope grow from the middle
to the left or right; everything else on it is the same in the mirror."""
STEER_RIGHT, STEER_LEFT = 1, 2
"""Discrete actions."""


@dataclass(frozen=True)
class Mirror:
    """CarRacing's mirror."""

    world_rows: float
    """share of V's frame, from the top, that shows the world; below it is the dashboard"""
    kind: str
    """of the actions: "box" or "discrete" """

    @classmethod
    def for_env(cls, env_id: str, frames: FrameSpec, actions: ActionSpec) -> Mirror:
        """The mirror of an environment.

        Args:
            env_id: Gymnasium id.
            frames: what V sees of its frames.
            actions: its action space.

        Raises:
            UserError: it is not CarRacing, the only environment whose symmetry is known.
        """
        if not is_car_racing(env_id):
            raise UserError(
                f"mirror is on for {env_id}, of which nobody knows whether left and right can be "
                "exchanged; it can be on for CarRacing only"
            )
        rows = min(frames.rows or FRAME_ROWS, FRAME_ROWS)
        return cls(min(1.0, CAR_RACING_ROWS / rows), actions.kind)

    def frames(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Mirror images of V's frames (..., S, S, 3)."""
        size = frames.shape[-2]
        world = round(self.world_rows * size)
        out = frames.copy()
        out[..., :world, :, :] = frames[..., :world, ::-1, :]
        for first, last in LEVEL_BARS:
            bar = slice(round(first * size), round(last * size))
            out[..., world:, bar, :] = frames[..., world:, bar, :][..., ::-1, :]
        return out

    def actions(self, actions: NDArray[Any]) -> NDArray[Any]:
        """The actions (T, 3) or (T,) that do in the mirror what these do in the world."""
        out = actions.copy()
        if self.kind == "discrete":
            out[actions == STEER_LEFT] = STEER_RIGHT
            out[actions == STEER_RIGHT] = STEER_LEFT
        else:
            out[:, 0] = -actions[:, 0]
        return out


__all__ = ["Mirror"]
