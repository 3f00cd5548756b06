"""What is known about an environment before its first frame: one record and one file each.

A task is found by the environment's class and spaces, or by an id that was registered for it, never
by a piece of a name. `register_task` adds one; what is known nowhere is `DEFAULT`.
"""

from __future__ import annotations

from worldmodels.tasks.atari import FREEWAY
from worldmodels.tasks.car_racing import CAR_RACING
from worldmodels.tasks.classic import CART_POLE, PENDULUM
from worldmodels.tasks.minigrid import MEMORY, MEMORY_IDS
from worldmodels.tasks.take_cover import TAKE_COVER
from worldmodels.tasks.task import (
    DEFAULT,
    Key,
    Symmetry,
    Words,
    named,
    register_task,
    task_for,
    task_of,
)
from worldmodels.tasks.task import Task as Task  # not in __all__: `worldmodels` has it already

register_task(CAR_RACING, "worldmodels/CarRacing-v3", "CarRacing-v3")
register_task(TAKE_COVER, "VizdoomTakeCover-v1")
register_task(CART_POLE, "CartPole-v1")
register_task(PENDULUM, "Pendulum-v1")
register_task(FREEWAY, "ALE/Freeway-v5")
register_task(MEMORY, *MEMORY_IDS)

__all__ = [
    "DEFAULT",
    "Key",
    "Symmetry",
    "Words",
    "named",
    "register_task",
    "task_for",
    "task_of",
]
