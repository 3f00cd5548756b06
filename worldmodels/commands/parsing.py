"""From words to a command: the preset gives the defaults, flags change single settings."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Protocol, Self, TypeAlias, TypeVar

import tyro

from worldmodels.presets import DEFAULT_ENV, PRESETS, RunConfig
from worldmodels.protocols import UserError

DEFAULT_PRESET = "quick"
"""Preset whose settings hold where none is named."""

PresetName: TypeAlias = Annotated[str, tyro.conf.arg(metavar="{" + ",".join(PRESETS) + "}")]


class Command(Protocol):
    """What every subcommand is: a frozen dataclass that can do what it says."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @classmethod
    def defaults(cls, preset: RunConfig, flags: Mapping[str, str]) -> Self:
        """The command with a preset's settings; `tyro.MISSING` marks what the user must give.

        Args:
            preset: where the defaults come from.
            flags: what the command line gives, unread, for defaults that depend on it.
        """
        ...

    def execute(self) -> None:
        """Do it.

        Raises:
            UserError: what the user can mend.
        """
        ...


C = TypeVar("C", bound=Command)


def parse(command: type[C], words: Sequence[str], program: str, defaults: Mapping[str, Any]) -> C:
    """Read a command line; `--env` and `--env-id` mean the same everywhere.

    Args:
        command: the subcommand's dataclass.
        words: its flags.
        program: what its help calls it.
        defaults: fields that replace the preset's.

    Raises:
        UserError: an unknown preset, or a value out of its range.
        SystemExit: help was asked for (0), or a flag cannot be read (2).
    """
    env = "--env" if "env" in command.__dataclass_fields__ else "--env-id"
    words = [re.sub(r"^--env([-_]id)?(?==|$)", env, word) for word in words]
    flags = read_flags(words)
    preset = load_preset(flags.get("preset", DEFAULT_PRESET), flags.get("env-id"))
    base = dataclasses.replace(command.defaults(preset, flags), **defaults)
    return tyro.cli(command, args=words, default=base, prog=program)


def read_flags(words: Sequence[str]) -> dict[str, str]:
    """Flags and the word after each (or after its `=`), the last of equals; not checked yet."""
    found = {}
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            found[name.replace("_", "-")] = value if equals else following
    return found


def load_preset(name: str, env_id: str | None = None) -> RunConfig:
    """The configuration of a preset.

    Args:
        name: of the preset.
        env_id: environment; its task may change settings of the preset.

    Raises:
        UserError: there is no such preset.
    """
    if name not in PRESETS:
        raise UserError(f"preset is {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name](DEFAULT_ENV if env_id is None else env_id)
