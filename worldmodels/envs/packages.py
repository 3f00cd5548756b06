"""Environments of other packages, by their plain ids: what is imported, and how they are made.

`worldmodels.envs.make` reads this table, so that every command, every worker and every baseline
gets the same environment. What else is known about one of them is its task's.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit, TransformObservation

from worldmodels.envs.car_racing import STOCK
from worldmodels.envs.ids import Scalar
from worldmodels.protocols import UserError, install_extra

TAKE_COVER_TICS = 2100
"""Longest game of TakeCover, in tics of 1/35 s: a minute, as in the paper."""
TAKE_COVER_ROWS = 5 / 6
"""Fraction of the screen above the weapon: the paper crops to the first 400 of 480 rows."""
DOOM_TICS, ATARI_FRAMES = 35, 60
"""Frames of a second, which steps skip some of."""
FREEWAY_FRAMES = 8192
"""Frames of a game of Freeway, which its own clock ends."""
DOOM_INI = os.path.join(tempfile.gettempdir(), "worldmodels-vizdoom.ini")
"""Where Doom writes its own settings, which would otherwise litter the current folder."""
TILE = 8
"""Pixels of a MiniGrid tile: the agent's 7x7 tiles are 56x56 pixels, near V's 64x64."""


def _as_it_is(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    return env


@dataclass(frozen=True)
class Recipe:
    """How environments with one beginning of their ids are made."""

    module: str
    """registers the ids when it is imported"""
    extra: str
    """of this package, which installs the other: see `install_extra`"""
    kwargs: Mapping[str, Scalar] = field(default_factory=dict)
    """arguments that it is made with where nobody gives others"""
    wrap: Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]] = _as_it_is


def paced(env: gym.Env[Any, Any], frames: float, skip: Any) -> gym.Env[Any, Any]:
    """Say how many steps of ``skip`` frames are a second of a game with so many frames in one."""
    if isinstance(skip, int) and skip > 0:
        env.metadata = {**env.metadata, "render_fps": frames / skip}
    return env


def take_cover(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """TakeCover's screen without its lowest sixth, and games of at most 2,100 tics."""
    inner: Any = env.unwrapped
    seen = env.observation_space
    assert isinstance(seen, spaces.Dict)
    screen = seen["screen"]
    assert isinstance(screen, spaces.Box)
    rows = round(screen.shape[0] * TAKE_COVER_ROWS)
    cropped = spaces.Box(0, 255, (rows, *screen.shape[1:]), screen.dtype.type)
    env = TransformObservation(
        env,
        lambda obs: {**obs, "screen": obs["screen"][:rows]},
        spaces.Dict({**seen, "screen": cropped}),
    )
    limited = TimeLimit(env, max(1, TAKE_COVER_TICS // inner.frame_skip))
    return paced(limited, DOOM_TICS, inner.frame_skip)


def doom(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """A scenario with its own timeout in tics as a time limit in steps, where it has one."""
    inner: Any = env.unwrapped
    tics = inner.game.get_episode_timeout()
    limited = TimeLimit(env, max(1, tics // inner.frame_skip)) if tics else env
    return paced(limited, DOOM_TICS, inner.frame_skip)


def atari(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """A game with its own limit of frames as a time limit in steps, which the id does not tell."""
    kwargs = env.spec.kwargs if env.spec is not None else {}
    frames, skip = kwargs.get("max_num_frames_per_episode"), kwargs.get("frameskip", 1)
    if frames and isinstance(skip, int):
        env = TimeLimit(env, max(1, frames // skip))
    return paced(env, ATARI_FRAMES, skip)


def car_racing(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """The stock environment, which need not draw the frames that nobody looks at."""
    from worldmodels.envs.car_racing.stock import spare

    return spare(env)


def minigrid(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """What the agent sees as pixels instead of codes, and the environment's own time limit.

    In render mode rgb_array it stays as it is, so that the whole grid can be drawn instead.
    """
    from minigrid.minigrid_env import MiniGridEnv
    from minigrid.wrappers import RGBImgPartialObsWrapper

    inner: Any = env.unwrapped
    if not isinstance(inner, MiniGridEnv):
        return env
    if env.render_mode != "rgb_array":
        env = RGBImgPartialObsWrapper(env, tile_size=TILE)
    return TimeLimit(env, inner.max_steps)


RECIPES: dict[str, Recipe] = {
    STOCK: Recipe("gymnasium.envs.box2d", "box2d", wrap=car_racing),
    "VizdoomTakeCover-v1": Recipe(
        "vizdoom.gymnasium_wrapper",
        "doom",
        # An action lasts four tics, and pays for each: returns are tics for any number of them.
        kwargs={"frame_skip": 4, "doom_config_path": DOOM_INI},
        wrap=take_cover,
    ),
    "Vizdoom": Recipe(
        "vizdoom.gymnasium_wrapper", "doom", kwargs={"doom_config_path": DOOM_INI}, wrap=doom
    ),
    "ALE/Freeway-v5": Recipe(
        "ale_py", "atari", kwargs={"max_num_frames_per_episode": FREEWAY_FRAMES}, wrap=atari
    ),
    "ALE/": Recipe("ale_py", "atari", wrap=atari),
    "MiniGrid-": Recipe("minigrid", "minigrid", wrap=minigrid),
    "BabyAI-": Recipe("minigrid", "minigrid", wrap=minigrid),
}
"""By the beginning of an id; of several that fit, the first counts."""


def recipe(name: str) -> Recipe | None:
    """How an environment is made that another package registers; None where nothing is known."""
    return next((found for start, found in RECIPES.items() if name.startswith(start)), None)


def import_package(name: str, found: Recipe) -> None:
    """Import what registers an id, unless it is registered; `UserError` where it is missing."""
    if name in gym.registry:
        return
    try:
        importlib.import_module(found.module)
    except ImportError as err:
        raise UserError(
            f"environment {name!r} lacks a package: {install_extra(found.extra)} ({err})"
        ) from err
