"""The record of what is known about one environment, and from an environment to its record."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from worldmodels import envs
from worldmodels.envs.frames import Crop, FrameSpec
from worldmodels.envs.spaces import ActionSpec
from worldmodels.protocols import Squash, UserError


class Symmetry(Protocol):
    """A flip of the world that leaves its rules unchanged, such as left and right exchanged."""

    def frames(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Flipped copies of V's frames (..., S, S, 3)."""
        ...

    def actions(self, actions: NDArray[Any]) -> NDArray[Any]:
        """The actions (T, A) or (T,) that do in the flipped world what these do in the world."""
        ...


@dataclass(frozen=True)
class Words:
    """What reports and films call things."""

    episode: str = "episode"
    """one episode, in the singular"""
    agent: str = "agent"
    """what acts"""
    verb: str = "act"
    """what it does"""
    finished: tuple[str, str] | None = None
    """an episode that reached its goal, and several, where the environment tells: "lap finished",
    "laps finished" """
    score: str | None = None
    """what returns are made of, in a few sentences"""


class Key(NamedTuple):
    """What a key does while a person holds it."""

    label: str
    """what it is called, such as "gas" """
    action: int | tuple[float, ...]
    """a Discrete choice, counted from 0, or what is added to the numbers of a Box"""


@dataclass(frozen=True)
class Task:
    """What is known about one environment before its first frame; every part has a default."""

    name: str
    """stands in run folders; unique among registered tasks"""
    matches: Callable[[gym.Env[Any, Any]], bool] | None = None
    """whether an environment, wrapped or not, is one of these, by its class and spaces; None for a
    task that has whole ids only"""
    rows: int | None = None
    """rows of the environment's frames that V sees, from the top; None for all"""
    crop: Crop | None = None
    """pixels cropped from these at the top, bottom, left and right (None: nothing)"""
    squash: tuple[Squash, ...] | None = None
    """how C's outputs become the numbers of a Box action; None scales tanh to the bounds"""
    choice_order: tuple[int, ...] | None = None
    """Discrete choices, counted from 0, along the one output of ``controller.discrete thresholds``,
    such as left, none, right; None for the order of the space"""
    explore_bias: tuple[float, ...] | None = None
    """centre of random Box actions in unit coordinates (-1 to 1); None for 0"""
    random_controller_bias: tuple[float, ...] | None = None
    """the same for random linear controllers"""
    symmetry: Callable[[FrameSpec, ActionSpec], Symmetry] | None = None
    """builds the flip of what V sees and of the actions; None where none is known"""
    stock: Mapping[str, str] = field(default_factory=dict)
    """from the id of a faster environment to the stock one that the final test uses"""
    finished_key: str | None = None
    """key of `info` in the last step that says whether the goal was reached; absent means no"""
    solved: float | None = None
    """mean return from which the task counts as solved"""
    lost: float | None = None
    """return below which an episode counts as lost"""
    returns: tuple[float, float] | None = None
    """smallest and largest return that reports draw; no policy can reach more than the second"""
    words: Words = field(default_factory=Words)
    keys: Mapping[str, Key] = field(default_factory=dict)
    """what "left", "right", "up" and "down" do where a person acts; "" is the choice while none is
    held. Empty numbers the choices, and lets the keys move one number after the other"""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """from a preset's name to settings that it takes here, such as ``{"dream.horizon": 250}``"""

    @property
    def frame_spec(self) -> FrameSpec:
        """From the environment's frames to V's."""
        return FrameSpec(rows=self.rows, crop=self.crop)

    def flips(self, frames: FrameSpec) -> bool:
        """Whether a flip is known of what V sees."""
        return self.symmetry is not None and frames.crop in (None, self.crop)

    def flip(self, env_id: str, frames: FrameSpec, actions: ActionSpec) -> Symmetry:
        """The symmetry of what V sees and of the actions; `UserError` where none is known."""
        if self.symmetry is None:
            raise UserError(
                f"horizontal_flip is on for {env_id}, of which no symmetry is known; turn it off, "
                "or register a task with one (worldmodels.register_task)"
            )
        if not self.flips(frames):
            raise UserError(
                f"horizontal_flip is on, and crop is {frames.crop}: the symmetry of {env_id} is "
                "one of uncut frames; leave one of them out"
            )
        return self.symmetry(frames, actions)

    def test_env(self, env_id: str) -> str:
        """Where the final test is run: the stock environment of a faster one, else the same."""
        head, query, kwargs = env_id.partition("?")
        return self.stock.get(head, head) + query + kwargs


DEFAULT = Task("default")
"""The task of an environment that nobody has described."""
_TASKS: dict[str, tuple[Task, tuple[str, ...]]] = {}
"""Registered tasks with their ids, by name; the newest is last."""


def register_task(task: Task, *env_ids: str) -> None:
    """Make a task known to every stage, in this process.

    A module that registers environments calls it beside `gymnasium.register`; then
    ``--env module:Name-v0`` finds both.

    Args:
        task: found for every environment that `Task.matches`; of several, the last registered wins.
            It replaces a task of the same name.
        env_ids: whole ids, without a module, that have this task without being made first.
    """
    if task.name == DEFAULT.name:
        raise UserError(f"Task.name is {task.name!r}, which is the default's; choose another")
    for env_id in env_ids:
        if ":" in env_id:
            raise UserError(f"register_task: the id {env_id!r} names a module; leave it out")
    _TASKS.pop(task.name, None)
    _TASKS[task.name] = task, env_ids
    _look.cache_clear()


def task_of(env: gym.Env[Any, Any]) -> Task:
    """The task of an environment, by its class and spaces; by its id where a task has only ids."""
    for task, _ in reversed(_TASKS.values()):
        if task.matches is not None and task.matches(env):
            return task
    found = None if env.spec is None else _by_id(env.spec.id)
    return DEFAULT if found is None or found.matches is not None else found


def task_for(env_id: str) -> Task:
    """The task of an id, with or without its module and arguments.

    An id that is not registered for a task is made once, to look at its class and spaces. One that
    cannot be made has the default task; whoever needs the environment itself says what is wrong.
    """
    try:
        return _by_id(env_id) or _look(env_id)
    except UserError:
        return DEFAULT


@functools.cache
def _look(env_id: str) -> Task:
    env, found = envs.make(env_id), envs.parse(env_id)
    try:  # arguments may change the spaces, by which a task is found
        return (None if found.kwargs else _by_id(found.name)) or task_of(env)
    finally:
        env.close()


def named(name: str | None, env_id: str) -> Task:
    """The task that a run recorded by name (None: it recorded none), without its environment."""
    if name is None:
        return _by_id(env_id.partition("?")[0]) or DEFAULT
    return _TASKS[name][0] if name in _TASKS else DEFAULT


def _by_id(env_id: str) -> Task | None:
    return next((task for task, ids in reversed(_TASKS.values()) if env_id in ids), None)
