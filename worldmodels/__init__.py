"""World models: learn an environment from pixels, train an agent inside the learned dream.

Importing the package registers two Gymnasium environments:

* `worldmodels/CarRacing-v3`: Gymnasium's CarRacing, the same physics with faster pixels;
* `worldmodels/Dream-v0`: the world that an agent's memory dreams, as an environment (also
  `worldmodels/CarRacingDream-v0`, its name in earlier versions).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import gymnasium

if TYPE_CHECKING:
    from worldmodels.agent import Agent
    from worldmodels.policies.opening import open_policy
    from worldmodels.tasks import Task, register_task

__version__ = "0.1.0"
__all__ = ["Agent", "Task", "__version__", "open_policy", "register_task"]


_HOMES = {
    "Agent": "worldmodels.agent",
    "Task": "worldmodels.tasks",
    "open_policy": "worldmodels.policies.opening",
    "register_task": "worldmodels.tasks",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, and no sooner, so that `import worldmodels` does not load torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


if "worldmodels/Dream-v0" not in gymnasium.registry:  # once, however often this is imported
    gymnasium.register(
        id="worldmodels/CarRacing-v3",
        entry_point="worldmodels.envs.car_racing:FastCarRacing",
        max_episode_steps=1000,
        reward_threshold=900,
    )
    for _env_id in ("worldmodels/CarRacingDream-v0", "worldmodels/Dream-v0"):
        gymnasium.register(
            id=_env_id,
            entry_point="worldmodels.dream.env:Dream",
            vector_entry_point="worldmodels.dream.env:DreamVector",
        )
