"""From words to a command: the preset gives the defaults, flags change single settings."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import (
    Annotated,
    Any,
    ClassVar,
    Protocol,
    Self,
    TypeAlias,
    TypeVar,
    get_args,
    runtime_checkable,
)

import tyro

from worldmodels import envs
from worldmodels.config import ConfigError, Fields, types_of, unchecked, validate
from worldmodels.presets import DEFAULT_ENV, PRESETS, RunConfig
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
T = TypeVar("T")


def parse(command: type[C], words: Sequence[str], program: str, defaults: Mapping[str, Any]) -> C:
    """Read a command line; `--env` and `--env-id` mean the same everywhere.

    What the command is to write is looked at here, so that no work is done for nothing.

    Args:
        command: the subcommand's dataclass.
        words: its flags.
        program: what its help calls it.
        defaults: fields that replace the preset's.

    Raises:
        UserError: an unknown preset, a value out of its range, an option without an effect, or an
            output that cannot be written.
        SystemExit: help was asked for (0), or a flag cannot be read (2).
    """
    fields = command.__dataclass_fields__
    if not fields.keys() & {"env", "env_id", "config"}:  # the last is a whole run
        words = trusted_env(words)
    env = "--env" if "env" in fields else "--env-id"
    words = [re.sub(r"^--env([-_]id)?(?==|$)", env, word) for word in words]
    flags = read_flags(words)
    env_id = flags.get("env-id")
    if issubclass(command, OfData):
        env_id = command.environment(flags)
        env_id = env_id and envs.from_file(env_id, "the input")
    preset = load_preset(flags.get("preset", DEFAULT_PRESET), env_id)
    base = dataclasses.replace(command.defaults(preset, flags), **defaults)
    parsed = read(command, args=words, default=base, prog=program)
    if isinstance(parsed, Selective):
        refuse_ignored(parsed, flags)
    check_outputs(parsed)
    return parsed


def trusted_env(words: Sequence[str]) -> list[str]:
    """Take `--env module:Id-v0` from a command that reads its environment off a file.

    Files import no modules; naming one on the command line does.

    Raises:
        UserError: the module cannot be imported.
    """
    left, rest = [], iter(words)
    for word in rest:
        flag, equals, value = word.partition("=")
        if flag not in ("--env", "--env-id", "--env_id"):
            left.append(word)
        elif ":" in (env_id := value if equals else next(rest, "")):
            envs.import_module(env_id)
        else:
            raise UserError(f"{flag} is {env_id!r}; here it only names a module: module:Id-v0")
    return left


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
        name = re.sub(r"(^|\.)no-", r"\1", flag)
        for prefix, reason in ignored.items():
            if name == prefix or name.startswith(f"{prefix}."):
                raise UserError(f"--{flag} has no effect here: {reason}")


def read(kind: type[T], **options: Any) -> T:
    """Read a command line into a dataclass, and check every value of it.

    Args:
        kind: the dataclass.
        options: of `tyro.cli`.

    Raises:
        ConfigError: a value out of its range; the option is named as it is typed.
        SystemExit: help was asked for (0), or a flag cannot be read (2).
    """
    with unchecked():
        found: T = tyro.cli(kind, **options)
    validate(found, lambda path: option(kind, path))
    return found


def option(command: type, path: Fields) -> str:
    """The option that sets a field of a command's dataclass, or of one inside of it."""
    words, kind = [], command
    for name in path:
        kind = types_of(kind)[name]
        names = [getattr(extra, "name", None) for extra in get_args(kind)[1:]]
        words.append(next((word for word in names if isinstance(word, str)), name))
        kind = get_args(kind)[0] if names else kind
    return "--" + ".".join(word for word in words if word).replace("_", "-")


@contextmanager
def naming_options(command: object) -> Iterator[None]:
    """Name a value that is only refused at work by its option, where it is one option's value."""
    try:
        yield
    except ConfigError as error:
        places = [
            (*path, *error.path)
            for path, part in _parts(command)
            if error.owner in (type(part), object) and _has(part, error)
        ]
        named = error.name and error.owner is not object  # a file's field, say
        if named or len(places) != 1:
            raise
        raise error.named(option(type(command), places[0])) from error


def _has(part: object, error: ConfigError) -> bool:
    """Whether the value that was refused is this part's."""
    found = functools.reduce(lambda obj, name: getattr(obj, name, None), error.path, part)
    return found is not None and found == error.value


def _parts(obj: Any, path: Fields = ()) -> Iterator[tuple[Fields, Any]]:
    """A dataclass and all dataclasses inside of it, with the fields that lead there."""
    yield path, obj
    for field in dataclasses.fields(obj):
        if dataclasses.is_dataclass(part := getattr(obj, field.name)):
            yield from _parts(part, (*path, field.name))


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
        raise UserError(f"--preset is {name!r}; it must be one of {', '.join(PRESETS)}")
    return PRESETS[name](DEFAULT_ENV if env_id is None else env_id)
