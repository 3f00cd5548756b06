"""An environment's id with everything that makes it: `module:Name-v0?frame_skip=4&obs_key=screen`.

Whatever stores or passes an id carries its arguments along, and `parse` alone reads them.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote, unquote

import gymnasium as gym

from worldmodels.executors import user_modules
from worldmodels.protocols import UserError

Scalar: TypeAlias = str | int | float | bool | None
"""An argument: data that an id in a file may name, too."""


@dataclass(frozen=True)
class EnvId:
    """The parts of an id; `str` gives its one form, with the arguments in order."""

    name: str
    """what Gymnasium calls it"""
    module: str = ""
    """imported first, as it registers the name; may be empty"""
    kwargs: Mapping[str, Scalar] = field(default_factory=dict)
    """arguments of `worldmodels.envs.make`"""

    def __str__(self) -> str:
        """The id, as `parse` reads it."""
        head = f"{self.module}:{self.name}" if self.module else self.name
        query = "&".join(f"{key}={_text(value)}" for key, value in sorted(self.kwargs.items()))
        return f"{head}?{query}" if query else head


def parse(env_id: str) -> EnvId:
    """Read an id; `UserError` where its arguments are not `name=value`, each value a scalar."""
    head, _, query = env_id.partition("?")
    module, _, name = head.rpartition(":")
    kwargs: dict[str, Scalar] = {}
    for part in query.split("&") if query else []:
        key, equals, text = part.partition("=")
        if not equals or not key.isidentifier() or key in kwargs:
            raise UserError(
                f"environment {env_id!r}: {part!r} is no argument; give each once, as name=value"
            )
        kwargs[key] = require_scalar(key, _value(unquote(text)))
    return EnvId(name, module, kwargs)


def with_kwargs(env_id: str, kwargs: Mapping[str, Any]) -> str:
    """An id in its one form, with more arguments; `UserError` where one is no scalar."""
    found = parse(env_id)
    for key, value in kwargs.items():
        if not key.isidentifier():
            raise UserError(f"the environment's argument {key!r} is no name")
        require_scalar(key, value)
    if not found.kwargs and not kwargs:
        return env_id
    return str(replace(found, kwargs={**found.kwargs, **kwargs}))


def require_scalar(key: str, value: Any) -> Scalar:
    """Refuse what is not plain data."""
    if value is not None and not isinstance(value, str | int | float):
        raise UserError(
            f"the environment's argument {key} is {json.dumps(value)}; it must be one number, "
            "text, true, false or null (register an id of your own for anything else)"
        )
    return value


def _value(text: str) -> Any:
    """JSON, or the text itself where it is none."""

    def refuse(constant: str) -> None:  # NaN and Infinity are no JSON
        raise ValueError(constant)

    try:
        return json.loads(text, parse_constant=refuse)
    except ValueError:
        return text


def _text(value: Scalar) -> str:
    bare = isinstance(value, str) and _value(value) == value
    return quote(str(value) if bare else json.dumps(value), safe="/:,'\"")


def import_module(env_id: str) -> None:
    """Import the module of `module:id`, or say why not; for ids that the user has typed.

    One that is found nowhere else may lie in the current folder.
    """
    module = parse(env_id).module
    if not module:
        return
    user_modules.add(module)
    if module in sys.modules:
        return
    try:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as err:
            here = os.getcwd()
            if err.name != module.partition(".")[0] or here in sys.path:
                raise
            sys.path.append(here)  # at the end: files in it take no other module's place
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
        UserError: its module is not imported, which would run code that the file (`source`) chose;
            or an argument is no scalar.
    """
    found = parse(env_id)
    if not found.module or found.module in sys.modules:
        return env_id
    if found.name in gym.registry:
        return str(replace(found, module=""))
    raise UserError(
        f"{source} names the environment {env_id!r}, and files decide about no imports; if you "
        f"trust the module {found.module}, give --env {env_id} (in Python: import it first)"
    )
