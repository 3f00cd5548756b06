"""Environments: any Gymnasium environment with pixels, and CarRacing with fast ones."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import error

from worldmodels.envs.frames import FrameSpec, to_vision
from worldmodels.envs.spaces import ActionSpec
from worldmodels.protocols import UserError

__all__ = ["ActionSpec", "FrameSpec", "make", "to_vision"]


def make(env_id: str, **kwargs: Any) -> gym.Env[Any, Any]:
    """Make an environment the pipeline can work on, from its Gymnasium id.

    Args:
        env_id: any registered id, or `module:id` to import a module that registers it first.
        kwargs: passed to `gymnasium.make`.

    Returns:
        The environment; its observations are uint8 images and its actions a Box or Discrete space.

    Raises:
        UserError: if the id is unknown, the arguments are refused, the environment's extra packages
            are missing, its observations are no images, or its action space is not supported.
    """
    module, _, name = env_id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ImportError as err:
            raise UserError(
                f"environment {env_id!r}: module {module!r} cannot be imported ({err})"
            ) from err
    try:
        env = gym.make(name, **kwargs)
    except (error.UnregisteredEnv, error.DeprecatedEnv) as err:
        raise UserError(_unknown(name, err)) from err
    except error.DependencyNotInstalled as err:
        raise UserError(f"environment {name!r} lacks a package: {err}") from err
    except (TypeError, error.Error) as err:
        raise UserError(f"environment {name!r} cannot be made with {kwargs}: {err}") from err
    try:
        require_pixels(env.observation_space, name)
        ActionSpec.from_space(env.action_space)
    except UserError as err:
        env.close()
        raise UserError(str(err) if name in str(err) else f"environment {name!r}: {err}") from err
    return env


def require_pixels(space: gym.spaces.Space[Any], env_id: str) -> None:
    """Raise UserError unless the observations are uint8 images, channels last."""
    if (
        isinstance(space, gym.spaces.Box)
        and space.dtype == np.uint8
        and (len(space.shape) == 2 or (len(space.shape) == 3 and space.shape[2] in (1, 3)))
    ):
        return
    raise UserError(
        f"environment {env_id!r} has observations {space}; needed are pixels: "
        "a uint8 Box of shape (H, W), (H, W, 1) or (H, W, 3)"
    )


def _unknown(name: str, err: error.Error) -> str:
    near = difflib.get_close_matches(name, list(gym.registry), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "gymnasium.pprint_registry() lists all"
    return f"environment id {name!r} is unknown: {hint} ({err})"
