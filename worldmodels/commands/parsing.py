"""From words to a command: the preset gives the defaults, flags change single settings."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Protocol, Self, TypeAlias, TypeVar

import tyro

from worldmodels.presets import PRESETS, RunConfig
from worldmodels.protocols import UserError
from worldmodels.runs import check_outputs

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

    What the command is to write is looked at here, so that no work is done for nothing.

    Args:
        command: the subcommand's dataclass.
        words: its flags.
        program: what its help calls it.
        defaults: fields that replace the preset's.

    Raises:
        UserError: an unknown preset, a value out of its range, or an output that cannot be
            written.
        SystemExit: help was asked for (0), or a flag cannot be read (2).
    """
    env = "--env" if "env" in command.__dataclass_fields__ else "--env-id"
    words = [re.sub(r"^--env([-_]id)?(?==|$)", env, word) for word in words]
    flags = read_flags(words)
    preset = load_preset(flags.get("preset", DEFAULT_PRESET), flags.get("env-id"))
    base = dataclasses.replace(command.defaults(preset, flags), **defaults)
    read = tyro.cli(command, args=words, default=base, prog=program)
    check_outputs(read)
    return read


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
