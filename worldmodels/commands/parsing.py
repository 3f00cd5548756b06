"""From words to a command: the preset gives the defaults, flags change single settings."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import (
    Annotated,
    Any,
    ClassVar,
    Protocol,
    Self,
    TypeAlias,
    TypeVar,
    runtime_checkable,
)

import tyro

from worldmodels.presets import PRESETS, RunConfig
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


@runtime_checkable
class Selective(Protocol):
    """A command of which not every option has an effect, whatever the others are."""

    def ignored(self) -> Mapping[str, str]:
        """Options without an effect as the others stand, each with the reason.

        A name such as ``planning`` stands for all options that begin with ``planning.`` too.
        """
        ...


@runtime_checkable
class OfData(Protocol):
    """A command whose input says of which environment it is."""

    @classmethod
    def environment(cls, flags: Mapping[str, str]) -> str | None:
        """Id of the environment; None where the input cannot be read."""
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
        UserError: an unknown preset, a value out of its range, or an option without an effect.
        SystemExit: help was asked for (0), or a flag cannot be read (2).
    """
    env = "--env" if "env" in command.__dataclass_fields__ else "--env-id"
    words = [re.sub(r"^--env([-_]id)?(?==|$)", env, word) for word in words]
    flags = read_flags(words)
    env_id = flags.get("env-id")
    if issubclass(command, OfData):
        env_id = command.environment(flags)
    preset = load_preset(flags.get("preset", DEFAULT_PRESET), env_id)
    base = dataclasses.replace(command.defaults(preset, flags), **defaults)
    parsed = tyro.cli(command, args=words, default=base, prog=program)
    if isinstance(parsed, Selective):
        refuse_ignored(parsed, flags)
    return parsed


def refuse_ignored(command: Selective, flags: Mapping[str, str]) -> None:
    """Refuse a flag that was given and has no effect.

    Args:
        command: as it was read from the flags.
        flags: as `read_flags` gives them.

    Raises:
        UserError: names the flag and the reason.
    """
    ignored = command.ignored()
    for flag in flags:
        option = re.sub(r"(^|\.)no-", r"\1", flag)
        for name, reason in ignored.items():
            if option == name or option.startswith(f"{name}."):
                raise UserError(f"--{flag} has no effect here: {reason}")


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
        env_id: environment; what the preset knows of CarRacing alone is left out for another one.

    Raises:
        UserError: there is no such preset.
    """
    if name not in PRESETS:
        raise UserError(f"preset is {name!r}; there are {', '.join(PRESETS)}")
    cfg = PRESETS[name]()
    if env_id is None or "CarRacing" in env_id:
        return cfg if env_id is None else dataclasses.replace(cfg, env_id=env_id)
    return dataclasses.replace(
        cfg,
        env_id=env_id,
        action_repeat=1,
        frame_rows=None,
        mirror=False,
        experience=dataclasses.replace(
            cfg.experience, explore_bias=(), patience=None, driver_patience=None
        ),
        dream=dataclasses.replace(cfg.dream, miss_penalty=0.0),
        starts=dataclasses.replace(cfg.starts, loss_weight=1.0),
        selection=dataclasses.replace(cfg.selection, reward_bound=None),
    )
