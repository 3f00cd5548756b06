"""World models: learn an environment from pixels, train a driver inside the learned dream.

Importing the package registers two Gymnasium environments:

* `worldmodels/CarRacing-v3`: Gymnasium's CarRacing, the same physics with faster pixels;
* `worldmodels/Dream-v0`: the world that an agent's memory dreams, as an environment (also
  `worldmodels/CarRacingDream-v0`, its name in earlier versions).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium

if TYPE_CHECKING:
    from worldmodels.agent import Agent
    from worldmodels.policies.opening import open_driver
    from worldmodels.tasks import Task, register_task

__version__ = "0.1.0"
__all__ = ["Agent", "Task", "__version__", "open_driver", "register_task"]


def _register_environments() -> None:
    """Tell Gymnasium about both environments, once however often the package is imported."""
    if "worldmodels/CarRacing-v3" not in gymnasium.registry:
        gymnasium.register(
            id="worldmodels/CarRacing-v3",
            entry_point="worldmodels.envs.car_racing:FastCarRacing",
            max_episode_steps=1000,
            reward_threshold=900,
        )
    for env_id in ("worldmodels/Dream-v0", "worldmodels/CarRacingDream-v0"):
        if env_id not in gymnasium.registry:
            gymnasium.register(
                id=env_id,
                entry_point="worldmodels.dream.env:Dream",
                vector_entry_point="worldmodels.dream.env:DreamVector",
            )


def __getattr__(name: str) -> Any:
    """Import what is asked for, and no sooner, so that `import worldmodels` does not load torch."""
    if name == "Agent":
        from worldmodels.agent import Agent

        return Agent
    if name == "open_driver":
        from worldmodels.policies.opening import open_driver

        return open_driver
    if name in ("Task", "register_task"):
        from worldmodels import tasks

        return getattr(tasks, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_register_environments()
