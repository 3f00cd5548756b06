"""CarRacing: all that the rest of the package knows about it.

Its symmetry: tracks all run anticlockwise, with ten sharp turns to the left for each one to the
right; its cars and roads do not know that, so every recorded episode is worth two to V and M.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from worldmodels.envs.frames import FrameSpec
from worldmodels.envs.spaces import ActionSpec
from worldmodels.tasks.task import Key, Task, Words

SIZE, WORLD_ROWS = 96, 84
"""Height and width of a frame, and its rows above the dashboard."""
LEVEL_BARS = ((15 / 40, 25 / 40), (25 / 40, 35 / 40))
"""Spans of the dashboard's width in which the bars of steering and gyroscope grow from the middle
to the left or right; everything else on it is the same when flipped."""
STEER_RIGHT, STEER_LEFT, NUM_CHOICES = 1, 2, 5  # of discrete actions
PEDALS = ((-1.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""Bounds of steering, gas and brake."""


def is_car_racing(env: gym.Env[Any, Any]) -> bool:
    """Whether an environment is Gymnasium's CarRacing, or made from it, with its own spaces."""
    module = sys.modules.get("gymnasium.envs.box2d.car_racing")
    if module is None or not isinstance(env.unwrapped, module.CarRacing):
        return False
    shape, actions = env.observation_space.shape, env.action_space
    if shape is None or shape[:2] != (SIZE, SIZE):
        return False
    if isinstance(actions, spaces.Discrete):
        return int(actions.n) == NUM_CHOICES
    return isinstance(actions, spaces.Box) and np.array_equal((actions.low, actions.high), PEDALS)


@dataclass(frozen=True)
class Flip:
    """Left and right exchanged."""

    world_rows: float
    """fraction of V's frame, from the top, that shows the world; below it is the dashboard"""
    kind: str
    """of the actions: "box" or "discrete" """

    @classmethod
    def of(cls, frames: FrameSpec, actions: ActionSpec) -> Flip:
        """The flip of what V sees of the frames, and of the actions."""
        rows = min(frames.rows or SIZE, SIZE)
        return cls(min(1.0, WORLD_ROWS / rows), actions.kind)

    def frames(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `Symmetry.frames`."""
        size, out = frames.shape[-2], frames.copy()
        world = round(self.world_rows * size)
        out[..., :world, :, :] = frames[..., :world, ::-1, :]
        for first, last in LEVEL_BARS:
            bar = slice(round(first * size), round(last * size))
            out[..., world:, bar, :] = frames[..., world:, bar, :][..., ::-1, :]
        return out

    def actions(self, actions: NDArray[Any]) -> NDArray[Any]:
        """See `Symmetry.actions`."""
        out = actions.copy()
        if self.kind == "discrete":
            out[actions == STEER_LEFT] = STEER_RIGHT
            out[actions == STEER_RIGHT] = STEER_LEFT
        else:
            out[:, 0] = -actions[:, 0]
        return out


_DRIVING = {
    "horizontal_flip": True,
    "action_repeat": 4,
    "frame_rows": SIZE,
    "vision.standardized": False,  # the published agents' V
    "vision_training.adaptive": False,
    "memory_training.exact": False,
    "experience.patience": 80,
    "experience.agent_patience": 200,
    "dream.no_event_penalty": 2.0,
    "residual.training.no_event_penalty": 2.0,
    "starts.off_track_weight": 8.0,
    # the best laps take about 560 steps
    "selection.reward_bound": 1.8,
}

CAR_RACING = Task(
    name="car-racing",
    matches=is_car_racing,
    rows=WORLD_ROWS,  # as the paper does
    squash=("tanh", "half", "clip"),  # the paper's steering, gas and brake
    # Little gas, the brake now and then. Blind driving leaves the road sooner or later: over 250
    # steps this bias has wheels on it in a third of the frames and visits 11 tiles; more gas brings
    # more grass (a fifth and 8 tiles at -0.2).
    explore_bias=(0.0, -0.8, -1.2),
    random_controller_bias=(0.0, 0.0, -1.0),
    symmetry=Flip.of,
    stock={"worldmodels/CarRacing-v3": "CarRacing-v3"},
    finished_key="lap_finished",
    solved=900.0,
    lost=600.0,
    # all tiles of a track are worth 1000 together, and each frame costs 0.1
    returns=(-100.0, 1000.0),
    words=Words(
        episode="track",
        agent="driver",
        verb="drive",
        finished=("lap finished", "laps finished"),
        score="A track has N tiles. A new tile pays 1000 / N, each frame costs 0.1. A whole lap in "
        "700 frames is worth 930; standing still for 1000 frames −100. Nobody can score more than "
        "1000. A mean of 900 over 100 tracks counts as solved.",
    ),
    keys={
        "left": Key("left", (-1.0, 0.0, 0.0)),
        "right": Key("right", (1.0, 0.0, 0.0)),
        "up": Key("gas", (0.0, 1.0, 0.0)),
        "down": Key("brake", (0.0, 0.0, 1.0)),
    },
    settings={
        "smoke": {
            "horizontal_flip": True,
            "vision.standardized": False,
            "dream.no_event_penalty": 0.5,
            "residual.training.no_event_penalty": 2.0,
        },
        "quick": {
            **_DRIVING,
            # as `full` begins: five seeds drive better with these than with QUICK's
            "vision_training.steps": 2500,
            "vision_training.finetune_steps": 1000,
            "memory_training.finetune_steps": 3000,
            "controller.evolve.generations": 60,
            "controller.memory_iterations": 1,
            # not shown to be better here, and they take time
            "from_scratch.iterations": 0,
            "from_scratch.memory_steps": None,
        },
        "full": _DRIVING,
    },
)
