"""From an environment, or an id, to its task."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from worldmodels import envs
from worldmodels.protocols import UserError
from worldmodels.tasks.task import DEFAULT, Task

_TASKS: dict[str, Task] = {}
_BY_ID: dict[str, Task] = {}


def register_task(task: Task, *env_ids: str) -> None:
    """Make a task known to every stage, in this process.

    A module that registers environments calls it beside `gymnasium.register`; then
    ``--env module:Name-v0`` finds both.

    Args:
        task: found for every environment that `Task.matches`; of several, the last registered wins.
            It replaces a task of the same name.
        env_ids: whole ids that have this task without being made first.

    Raises:
        UserError: an id has a module in front, or the task has the default's name.
    """
    if task.name == DEFAULT.name:
        raise UserError(f"Task.name is {task.name!r}, which is the default's; choose another")
    for env_id in env_ids:
        if ":" in env_id:
            raise UserError(f"register_task: the id {env_id!r} names a module; leave it out")
    _TASKS.pop(task.name, None)
    _TASKS[task.name] = task
    for known in [known for known, other in _BY_ID.items() if other.name == task.name]:
        del _BY_ID[known]
    _BY_ID.update(dict.fromkeys(env_ids, task))
    _FOUND.clear()


def task_of(env: gym.Env[Any, Any]) -> Task:
    """The task of an environment, by its class and spaces; by its id where a task has only ids."""
    for task in reversed(_TASKS.values()):
        if task.matches is not None and task.matches(env):
            return task
    by_id = DEFAULT if env.spec is None else _BY_ID.get(env.spec.id, DEFAULT)
    return by_id if by_id.matches is None else DEFAULT


_FOUND: dict[str, Task] = {}


def task_for(env_id: str) -> Task:
    """The task of an id, with or without its module.

    An id that is not registered for a task is made once, to look at its class and spaces. One that
    cannot be made has the default task; whoever needs the environment itself says what is wrong.
    """
    if env_id in _BY_ID:
        return _BY_ID[env_id]
    if env_id not in _FOUND:
        try:
            env = envs.make(env_id)
        except UserError:
            return DEFAULT
        try:
            found = _BY_ID.get(env_id.rpartition(":")[2]) or task_of(env)
        finally:
            env.close()
        _FOUND[env_id] = found
    return _FOUND[env_id]


def named(name: str | None, env_id: str) -> Task:
    """The task of a recorded run, without making its environment.

    Args:
        name: as the run recorded it; None for runs that recorded none.
        env_id: the run's environment.
    """
    if name is None:
        return _BY_ID.get(env_id, DEFAULT)
    return _TASKS.get(name, DEFAULT)
