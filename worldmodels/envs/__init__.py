"""Environments: any Gymnasium environment with pixels, and CarRacing with fast ones."""

from __future__ import annotations

import difflib
import importlib
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium import error

from worldmodels.envs.checks import CheckedEnv, note_endless, require_limit, time_limit
from worldmodels.envs.frames import FrameSpec, to_vision
from worldmodels.envs.spaces import ActionSpec, require_pixels
from worldmodels.protocols import UserError

__all__ = [
    "ActionSpec",
    "CheckedEnv",
    "FrameSpec",
    "from_file",
    "import_module",
    "make",
    "note_endless",
    "require_limit",
    "time_limit",
    "to_vision",
]


def import_module(env_id: str) -> None:
    """Import the module of `module:id`, or say why not; for ids that the user has typed."""
    if module := env_id.rpartition(":")[0]:
        try:
            importlib.import_module(module)
        except Exception as err:  # the module is the user's
            raise UserError(
                f"environment {env_id!r}: module {module!r} cannot be imported ({err})"
            ) from err


def from_file(env_id: str, source: str | Path) -> str:
    """An id that a file names, if making it imports no module that only the file names.

    Returns:
        The id to make: without its module where it is registered already.

    Raises:
        UserError: its module is not imported, which would run code that the file (`source`) chose.
    """
    module, _, name = env_id.rpartition(":")
    if not module or module in sys.modules:
        return env_id
    if name in gym.registry:
        return name
    raise UserError(
        f"{source} names the environment {env_id!r}, and files decide about no imports; if you "
        f"trust the module {module}, give --env {env_id} (in Python: import it first)"
    )


def make(env_id: str, **kwargs: Any) -> gym.Env[Any, Any]:
    """Make an environment the pipeline can work on, from its Gymnasium id.

    Its observations are uint8 images and its actions a Box or Discrete space, and it is held to
    that at every step (`CheckedEnv`).

    Args:
        env_id: any registered id, or `module:id` to import a module that registers it first.
        kwargs: passed to `gymnasium.make`.

    Raises:
        UserError: the id is unknown, the environment cannot be made with these arguments, or its
            spaces are not supported.
    """
    import_module(env_id)
    name = env_id.rpartition(":")[2]
    try:
        # our own checks take the place of Gymnasium's, which only warn
        env = gym.make(name, **{"disable_env_checker": True, **kwargs})
    except (error.UnregisteredEnv, error.DeprecatedEnv) as err:
        near = difflib.get_close_matches(name, list(gym.registry), n=3, cutoff=0.5)
        hint = "gymnasium.pprint_registry() lists all"
        if near:
            hint = f"did you mean {' or '.join(near)}?"
        raise UserError(f"environment id {name!r} is unknown: {hint} ({err})") from err
    except error.DependencyNotInstalled as err:
        raise UserError(f"environment {name!r} lacks a package: {err}") from err
    except Exception as err:  # the environment is the user's
        raise UserError(
            f"environment {name!r} cannot be made with {kwargs}: {type(err).__name__}: {err}"
        ) from err
    try:
        require_pixels(env.observation_space, name)
        ActionSpec.from_space(env.action_space)
    except UserError as err:
        env.close()
        raise UserError(str(err) if name in str(err) else f"environment {name!r}: {err}") from err
    return CheckedEnv(env, name)
