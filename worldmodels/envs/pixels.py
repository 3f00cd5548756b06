"""What environments show and take, made into images and choices by Gymnasium's own wrappers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs import classic_control as classic
from gymnasium.wrappers import (
    AddRenderObservation,
    HumanRendering,
    TransformAction,
    TransformObservation,
)
from numpy.typing import NDArray

from worldmodels.envs.checks import BrokenPromise
from worldmodels.envs.spaces import SMALLEST_RANGE, fault_of_pixels
from worldmodels.protocols import UserError

MOST_CHOICES = 64
"""Most combinations of a MultiDiscrete or MultiBinary space that become choices of one Discrete:
M sees a choice as a one-hot vector, and exploration has to try each of them."""
SMALLEST_SIDE = 8
"""Height and width from which numbers in rows and columns are taken for an image."""
MOST_CHANNELS = 16
"""Most channels, or stacked frames, of an axis that is taken for one of these."""
ALPHA = (..., slice(3))
"""What is taken of RGBA."""
DRAWN = "rgb_array"
"""The render mode whose frames can stand for observations."""


CLASSIC = (
    *(classic.AcrobotEnv, classic.CartPoleEnv, classic.PendulumEnv),
    *(classic.MountainCarEnv, classic.Continuous_MountainCarEnv),
)
"""Gymnasium's environments that draw on a `screen` of their own."""
RGB_MASKS = (0xFF, 0xFF << 8, 0xFF << 16, 0)
"""Where a pixel's red, green and blue lie, and that it has no alpha."""


def _copy_in_one_piece(env: Any) -> None:
    """Have classic control draw the same frames in a half to a quarter of the time.

    Its screen has four bytes a pixel, in another order than a frame's, and is copied value by
    value. One that already holds RGB is copied in one piece.
    """
    if type(env) in CLASSIC and env.render_mode == DRAWN:
        import pygame  # it has drawn once, so it is there

        env.screen = pygame.Surface(env.screen.get_size(), depth=24, masks=RGB_MASKS)


class Drawn(AddRenderObservation[Any, Any, Any]):
    """Shows what an environment draws; frames that nobody looks at need not be drawn."""

    draws_observations = True
    """whether observations are drawn anew; else the last drawing is handed out again"""
    _drawn: Any = None

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        """Draw once, which tells the shape of all frames."""
        super().__init__(env, render_only=True)
        _copy_in_one_piece(self.unwrapped)

    def observation(self, observation: Any) -> Any:
        """What is drawn."""
        return self.draw_last() if self.draws_observations else self._drawn

    def draw_last(self) -> Any:
        """Draw the state that the last step led to."""
        self._drawn = self.render()
        return self._drawn


def drawer_of(env: gym.Env[Any, Any]) -> Any:
    """What has `draws_observations` and `draw_last` in an environment; None if nothing does.

    Nor where a wrapper changes what is drawn.
    """
    while isinstance(env, gym.Wrapper):
        if isinstance(env, Drawn):
            return env
        if isinstance(env, gym.ObservationWrapper):
            return None
        env = env.env
    return env if hasattr(env, "draws_observations") else None


@dataclass(frozen=True)
class Layout:
    """How an image lies in an array: what is taken of it, then whether channels come first."""

    shape: tuple[int, ...]
    """shape of the image: (H, W), (H, W, 1) or (H, W, 3)"""
    index: tuple[Any, ...] = ()
    channels_first: bool = False
    words: tuple[str, ...] = ()
    """what was done, for the user"""

    def of(self, array: NDArray[Any]) -> NDArray[Any]:
        """The image (H, W) or (H, W, C) in an array; a view."""
        image: NDArray[Any] = array[self.index]
        return image.transpose(1, 2, 0) if self.channels_first else image


def layout(shape: tuple[int, ...]) -> Layout | None:
    """How an image lies in arrays of a shape; None where there seems to be none.

    Stacks are Gymnasium's: the newest frame is the last.
    """
    if len(shape) == 4:
        inner = layout(shape[1:])
        if inner is None:
            return None
        words = (f"the newest of {shape[0]} frames is kept", *inner.words)
        return Layout(inner.shape, (-1, *inner.index), inner.channels_first, words)
    if len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3)):
        return Layout(shape)
    if len(shape) != 3:
        return None
    height, width, channels = shape
    first = height in (1, 3) or height < channels
    if first:
        channels, height, width = shape
    if not 0 < channels <= MOST_CHANNELS:
        return None
    moved = ("channels come last",) if first else ()
    if channels == 4 and not first:
        return Layout((height, width, 3), ALPHA, words=("alpha is dropped",))
    if channels in (1, 3):
        return Layout((height, width, channels), (), first, moved)
    kept = 3 if channels % 3 == 0 else 1
    newest = (f"the newest of {channels // kept} frames is kept",)
    if first and kept == 1:
        return Layout((height, width), (-1,), words=newest)
    index = (slice(-kept, None),) if first else (..., slice(-kept, None))
    return Layout((height, width, kept), index, first, (*newest, *moved))


@dataclass(frozen=True)
class View:
    """Turns observations into uint8 images; refuses those that are not what is declared."""

    space: spaces.Box
    """of the observation, or of the part of a Dict that is taken"""
    layout: Layout
    key: str | None = None
    """of that part"""

    @property
    def stretches(self) -> bool:
        """Whether values are scaled from the space's bounds to 0 to 255."""
        low, high = _bounds(self.space)
        return self.space.dtype != np.uint8 or high - low < SMALLEST_RANGE

    def __call__(self, obs: Any) -> NDArray[np.uint8]:
        """The image (H, W) or (H, W, C) of an observation."""
        if self.key is not None:
            if not isinstance(obs, Mapping) or self.key not in obs:
                raise BrokenPromise("the observation", obs, f"a dict with {self.key!r}")
            obs = obs[self.key]
        what = "the observation" if self.key is None else f"the observation's {self.key!r}"
        declared = f"{self.space.dtype} {self.space.shape}"
        right = isinstance(obs, np.ndarray) and obs.dtype == self.space.dtype
        if not right or obs.shape != self.space.shape:
            raise BrokenPromise(what, obs, f"{declared}, as its space declares")
        image = self.layout.of(obs)
        if not self.stretches:
            return image
        low, high = _bounds(self.space)
        if not (image.min() >= low and image.max() <= high):
            declared = f"{declared} from {low:g} to {high:g}"
            raise BrokenPromise(what, obs, f"{declared}, as its space declares")
        numbers = image.astype(np.result_type(image.dtype, np.float32))
        return np.rint((numbers - low) * (255 / (high - low))).astype(np.uint8)

    def to_space(self) -> spaces.Box:
        """The space of the images."""
        if self.stretches:
            return spaces.Box(0, 255, self.layout.shape, np.uint8)
        low, high = self.layout.of(self.space.low), self.layout.of(self.space.high)
        return spaces.Box(low, high, dtype=np.uint8)

    def words(self) -> tuple[str, ...]:
        """What is done to the observations, for the user."""
        low, high = _bounds(self.space)
        part = (f"{self.key!r} is taken of its Dict",) if self.key is not None else ()
        scaled = (f"{low:g} to {high:g} is stretched to 0 to 255",) if self.stretches else ()
        return (*part, *self.layout.words, *scaled)


def _bounds(space: spaces.Box) -> tuple[float, float]:
    return float(space.low.min()), float(space.high.max())


def view_of(space: spaces.Space[Any], key: str | None = None) -> View | None:
    """How to see observations of a space; None where it shows no image."""
    if not isinstance(space, spaces.Box) or space.dtype.kind not in "fiu" or 0 in space.shape:
        return None
    found, (low, high) = layout(space.shape), _bounds(space)
    if found is None or min(found.shape[:2]) < SMALLEST_SIDE or not low < high:
        return None
    return View(space, found, key) if np.isfinite((low, high)).all() else None


def four_channels(env: gym.Env[Any, Any]) -> gym.Env[Any, Any] | None:
    """The environment below the wrapper that drops a fourth channel as alpha; None without one."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, TransformObservation):
            view = env.func
            if isinstance(view, View) and view.key is None and view.layout.index == ALPHA:
                return env.env
        env = env.env
    return None


def must_draw(env: gym.Env[Any, Any], obs_key: str | None) -> bool:
    """Whether what an environment draws has to stand for its observations, and can.

    Of a Dict, whose parts the user may know better, only where the render mode says so.
    """
    space = env.observation_space
    if obs_key is not None or fault_of_pixels(space) is None or view_of(space) is not None:
        return False
    if isinstance(space, spaces.Dict):
        return env.render_mode == DRAWN and not _images(space)
    return can_draw(env)


def can_draw(env: gym.Env[Any, Any]) -> bool:
    """Whether an environment has frames to hand out beside its observations."""
    return DRAWN in (env.metadata or {}).get("render_modes", [])


def drawn(env: gym.Env[Any, Any], name: str, window: bool) -> tuple[gym.Env[Any, Any], str]:
    """An environment of render mode `rgb_array` that shows what it draws, and a note about that.

    Raises:
        UserError: it cannot draw, for want of a display, say.
    """
    try:
        env = Drawn(env)
        seen: gym.Env[Any, Any] = HumanRendering(env) if window else env
    except Exception as err:  # the environment is the user's
        text = f"{type(err).__name__}: {' '.join(str(err).split())}"
        raise UserError(f"environment {name!r} cannot draw what it shows: {text}") from err
    return seen, "what it draws stands for its observations (AddRenderObservation)"


def seen(
    env: gym.Env[Any, Any], name: str, obs_key: str | None
) -> tuple[gym.Env[Any, Any], tuple[str, ...]]:
    """An environment whose observations are images, where they hold one, and what was done.

    Raises:
        UserError: a Dict without an image, or with several of which none is chosen.
    """
    space = env.observation_space
    if isinstance(space, spaces.Dict):
        view: View | None = _part(env, space, name, obs_key)
    elif obs_key is not None:
        raise UserError(
            f"environment {name!r}: --obs-key is {obs_key!r}, but its observations are no Dict; "
            "leave it out"
        )
    else:
        view = None if fault_of_pixels(space) is None else view_of(space)
    if view is None:  # what is an image needs nothing; what is none is refused by the caller
        return env, ()
    return TransformObservation(env, view, view.to_space()), view.words()


def _images(space: spaces.Dict) -> dict[str, View]:
    found = {key: view_of(part, key) for key, part in space.items()}
    return {key: view for key, view in found.items() if view is not None}


def _part(env: gym.Env[Any, Any], space: spaces.Dict, name: str, obs_key: str | None) -> View:
    """The view of a Dict's only image, or of the chosen one."""
    images = _images(space)
    chosen = next(iter(images)) if obs_key is None and len(images) == 1 else obs_key
    if chosen in images:
        return images[chosen]
    names = ", ".join(map(repr, images))
    if chosen is not None:
        raise UserError(
            f"environment {name!r}: --obs-key is {chosen!r}; images among its observations: "
            f"{names or 'none'}; all: {_listed(space)}"
        )
    if images:
        raise UserError(
            f"environment {name!r} shows several images, {names}: choose one, for example by "
            f"--obs-key {next(iter(images))}"
        )
    draws = '; --env-kwargs \'{"render_mode": "rgb_array"}\' takes what it draws instead'
    raise UserError(
        f"environment {name!r} has a Dict of observations without an image ({_listed(space)}): "
        "gymnasium.wrappers.TransformObservation, or a wrapper of its own package, can make one"
        + (draws if can_draw(env) else "")
    )


def _listed(space: spaces.Dict) -> str:
    kinds = {
        key: f"{part.dtype} {part.shape}" if isinstance(part, spaces.Box) else type(part).__name__
        for key, part in space.items()
    }
    return ", ".join(f"{key!r} ({kind})" for key, kind in kinds.items())


@dataclass(frozen=True)
class Combination:
    """Turns a choice into the numbers of a MultiDiscrete or MultiBinary action."""

    space: spaces.MultiDiscrete | spaces.MultiBinary

    def sizes(self) -> list[int]:
        """How many values each number has."""
        if isinstance(self.space, spaces.MultiBinary):
            return [2] * math.prod(self.space.shape)
        return [int(size) for size in self.space.nvec.ravel()]

    def __call__(self, choice: Any) -> NDArray[Any]:
        """The action, in the shape and type of its space."""
        numbers: NDArray[Any] = np.array(
            np.unravel_index(int(choice), self.sizes()), self.space.dtype
        )
        numbers = numbers.reshape(self.space.shape)
        start: Any = 0 if isinstance(self.space, spaces.MultiBinary) else self.space.start
        action: NDArray[Any] = (numbers + start).astype(self.space.dtype)
        return action


def chosen(env: gym.Env[Any, Any]) -> tuple[gym.Env[Any, Any], tuple[str, ...]]:
    """An environment with one choice in place of several, and what was done.

    Raises:
        UserError: too many combinations.
    """
    space = env.action_space
    if not isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary):
        return env, ()
    combination = Combination(space)
    number = math.prod(combination.sizes())
    if number > MOST_CHOICES:
        count = f"{number:,}" if number < 10**12 else "more than 10^12"
        raise UserError(
            f"action space {space} has {count} combinations; at most {MOST_CHOICES} become choices "
            "of one Discrete space: gymnasium.wrappers.TransformAction can offer fewer"
        )
    done = f"the {number} combinations of {space} are choices of one Discrete"
    return TransformAction(env, combination, spaces.Discrete(number)), (done,)
