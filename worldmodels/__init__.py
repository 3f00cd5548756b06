"""World models: learn an environment from pixels, train an agent inside the learned dream.

Importing the package registers two Gymnasium environments:

* `worldmodels/CarRacing-v3`: Gymnasium's CarRacing, the same physics with faster pixels;
* `worldmodels/Dream-v0`: the world that an agent's memory dreams, as an environment (also
  `worldmodels/CarRacingDream-v0`, its name in earlier versions).

The names here are imported when they are asked for. `run` and `evaluate` do what the commands do;
`Agent` has V, M, C and the dream; `open_policy` opens what acts; `EpisodeStore` opens recorded
episodes, and `export_minari` writes them for other libraries; `make` makes any environment with
pixels; `Task` and `register_task` say what is known about one; `UserError` is a mistake that the
user can fix.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import gymnasium

if TYPE_CHECKING:
    from worldmodels.agent import Agent
    from worldmodels.api import evaluate, run
    from worldmodels.envs import make
    from worldmodels.experience.export import export_minari
    from worldmodels.experience.store import EpisodeStore
    from worldmodels.policies.opening import open_policy
    from worldmodels.protocols import UserError
    from worldmodels.tasks import Task, register_task

__version__ = "0.1.0"
__all__ = ["Agent", "EpisodeStore", "Task", "UserError", "evaluate", "export_minari", "make"]
__all__ += ["open_policy", "register_task", "run"]


_HOMES = {
    "Agent": "worldmodels.agent",
    "EpisodeStore": "worldmodels.experience.store",
    "Task": "worldmodels.tasks",
    "UserError": "worldmodels.protocols",
    "evaluate": "worldmodels.api",
    "export_minari": "worldmodels.experience.export",
    "make": "worldmodels.envs",
    "open_policy": "worldmodels.policies.opening",
    "register_task": "worldmodels.tasks",
    "run": "worldmodels.api",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, and no sooner, so that `import worldmodels` does not load torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """What is public, whatever has been imported."""
    return sorted([*__all__, "__version__", "__doc__", "__name__", "__file__", "__path__"])


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
