"""Environments: any Gymnasium environment with pixels, and CarRacing with fast ones."""

from __future__ import annotations

import difflib
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
from gymnasium import error

from worldmodels.envs import engines, packages, pixels
from worldmodels.envs.checks import CheckedEnv, note_endless, require_limit, time_limit
from worldmodels.envs.frames import FrameSpec, to_vision
from worldmodels.envs.ids import EnvId, from_file, import_module, parse, with_kwargs
from worldmodels.envs.spaces import ActionSpec, require_pixels
from worldmodels.protocols import UserError

__all__ = [
    "ActionSpec",
    "CheckedEnv",
    "EnvId",
    "FrameSpec",
    "from_file",
    "import_module",
    "make",
    "note_endless",
    "parse",
    "require_limit",
    "time_limit",
    "to_vision",
    "with_kwargs",
]


_told: set[str] = set()
"""Names of environments of whose wrappers this process has told."""


def make(env_id: str, **kwargs: Any) -> gym.Env[Any, Any]:
    """Make an environment the pipeline can work on, from its Gymnasium id.

    The package of a known id is imported, and it is made as `packages` says (TakeCover, Atari,
    MiniGrid). Its observations are uint8 images and its actions a Box or Discrete space, by
    Gymnasium's wrappers where it has others (see `pixels`), and it is held to that at every step
    (`CheckedEnv`). What the wrappers do is told once in a process.

    Args:
        env_id: any registered id, or `module:id` to import a module that registers it first; either
            with arguments, as in `Id-v0?frame_skip=4`.
        kwargs: more arguments, passed to `gymnasium.make`; but `obs_key` names the image among
            several observations.

    Raises:
        UserError: the id is unknown, the environment cannot be made with these arguments, or its
            spaces are not supported.
    """
    found = parse(env_id)
    _without_display()
    import_module(env_id)
    kwargs = {**found.kwargs, **kwargs}
    obs_key = kwargs.pop("obs_key", None)
    env = _made(found.name, kwargs)
    try:
        notes: tuple[str, ...] = ()
        if pixels.must_draw(env, obs_key):
            if env.render_mode != pixels.DRAWN:
                env.close()
                env = _made(found.name, {**kwargs, "render_mode": pixels.DRAWN})
            env, note = pixels.drawn(env, found.name, kwargs.get("render_mode") == "human")
            notes = (note,)
        env, seen = pixels.seen(env, found.name, obs_key)
        require_pixels(env.observation_space, found.name)
        env, chosen = pixels.chosen(env)
        ActionSpec.from_space(env.action_space)
    except UserError as err:
        env.close()
        text, name = str(err), found.name
        raise UserError(text if name in text else f"environment {name!r}: {text}") from err
    except BaseException:
        env.close()
        raise
    _tell(found.name, (*notes, *seen, *chosen))
    return CheckedEnv(env, found.name)


def _without_display() -> None:
    """Keep SDL from looking for a window where there is none; it complains in every process."""
    if sys.platform.startswith("linux") and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def _made(name: str, kwargs: Mapping[str, Any]) -> gym.Env[Any, Any]:
    """Gymnasium's environment, or one line that says why there is none."""
    known = packages.recipe(name)
    if known is not None:
        packages.import_package(name, known)
        kwargs = {**known.kwargs, **kwargs}
    try:
        # our own checks take the place of Gymnasium's, which only warn
        with engines.watched():
            env = gym.make(name, **{"disable_env_checker": True, **kwargs})
        return env if known is None else known.wrap(env)
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
            f"environment {name!r} cannot be made with {dict(kwargs)}: {type(err).__name__}: {err}"
        ) from err


def _tell(name: str, done: Sequence[str]) -> None:
    """Say once what was done to an environment; workers leave it to the process above them."""
    if done and name not in _told and multiprocessing.parent_process() is None:
        _told.add(name)
        print(f"note: environment {name!r}: {'; '.join(done)}", flush=True)
