"""From words to a command: the preset gives the defaults, flags change single settings."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import os
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias, TypeVar, cast

import tyro
from gymnasium import spaces

from worldmodels import envs
from worldmodels.commands import help
from worldmodels.config import ConfigError, Fields, fault, types_of, unchecked, validate
from worldmodels.executors import usable_cores
from worldmodels.presets import PRESETS
from worldmodels.protocols import UserError, shipped
from worldmodels.run_config import DEFAULT_ENV, RunConfig
from worldmodels.runs import check_outputs, require_device

Input: TypeAlias = Literal["data", "latents", "vision"]
"""Options that name the output of an earlier command."""
ENV = "--env([-_]id)?"
"""The option of an environment, as a regular expression: `--env-id` is its older spelling."""
DEFAULT_PRESET = "quick"
"""Preset by default."""

AgentName: TypeAlias = Annotated[
    str, tyro.conf.arg(metavar="{" + ",".join([*shipped(), "FOLDER"]) + "}")
]
PresetName: TypeAlias = Annotated[str, tyro.conf.arg(metavar="{" + ",".join(PRESETS) + "}")]


class Command(ABC):
    """Base of every subcommand, a frozen dataclass: its fields are the flags."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    common: ClassVar[str] = ""
    """options that `--help` shows, apart from those that must be given; empty for all"""
    unused: ClassVar[Mapping[str, str]] = {}
    """settings that never have an effect here, each with the reason"""
    reads: ClassVar[Input | None] = None
    """option whose first file or folder tells the environment"""

    @classmethod
    def defaults(cls, preset: RunConfig, flags: Mapping[str, str]) -> Self:
        """The command with the preset's settings, where fields have the same names.

        Defaults may depend on the flags given; `tyro.MISSING` marks what the user must give.
        """
        return blank(cls, {**vars(preset), "preset": flags.get("preset", DEFAULT_PRESET)})

    def ignored(self) -> Mapping[str, str]:
        """Options without an effect beside the others, each with the reason.

        A name such as ``planning`` includes all options that begin with ``planning.``.
        """
        return {}

    def chosen(self, preset: RunConfig, given: Mapping[str, str]) -> RunConfig:
        """The preset with other defaults, where what was read tells of better ones.

        ``given`` are the flags on the command line.
        """
        return preset

    @abstractmethod
    def execute(self) -> None:
        """Do the work; a UserError is what the user can fix."""


C = TypeVar("C", bound=Command)
T = TypeVar("T")


def blank(kind: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass of its defaults; other fields take a fitting value, or `tyro.MISSING`."""
    given = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]  # it is a dataclass
        if field.default is field.default_factory is dataclasses.MISSING:
            value = values.get(field.name, tyro.MISSING)
            given[field.name] = tyro.MISSING if fault(value, types_of(kind)[field.name]) else value
    with unchecked():
        return kind(**given)


def parse(command: type[C], words: Sequence[str], program: str) -> C:
    """Read the flags of a command; `--env` and `--env-id` mean the same everywhere.

    Raises:
        UserError: an unknown preset, a value out of its range, an option without an effect, or an
            output that cannot be written.
        SystemExit: help was asked for (0), or a flag cannot be read (2).
    """
    fields, words = command.__dataclass_fields__, whole_env(words, command)
    if not fields.keys() & {"env", "env_id", "config"}:  # the last is a whole run
        words = trusted_env(words)
    words = [re.sub(r"^--(test[-_])?env[-_]id(?==|$)", r"--\1env", word) for word in words]
    flags, env_id = read_flags(words), None
    if command.reads is None:
        env_id = flags.get("env")
    elif not help.ASKS.intersection(words) and (found := data_env(flags, command.reads)):
        env_id = envs.from_file(found, "the input")
    preset = load_preset(flags.get("preset", DEFAULT_PRESET), env_id)
    parsed = read(command, words, command.defaults(preset, flags), program)
    refuse_ignored({**command.unused, **parsed.ignored()}, flags)
    check_outputs(parsed)
    require_device(getattr(parsed, "device", "cpu"))
    with naming_options(parsed):
        better = parsed.chosen(preset, flags)
    if better is not preset:
        return read(command, words, command.defaults(better, flags), program)
    return parsed


def whole_env(words: Sequence[str], kind: type | None = None) -> list[str]:
    """Put `--obs-key` and `--env-kwargs` into the id that `--env` gives, in its one form.

    So whatever stores or passes the id carries them. A command that has these options itself has an
    id without an option, before which `--env` may stand.

    Raises:
        UserError: they are no arguments, or there is no `--env`.
    """
    if kind is not None and "obs_key" in types_of(kind):
        return [re.sub(f"^{ENV}=", "", word) for word in words if not re.fullmatch(ENV, word)]
    left, kwargs, rest = list[str](), dict[str, Any](), iter(words)
    for word in rest:
        flag, equals, value = word.partition("=")
        if flag not in ("--obs-key", "--obs_key", "--env-kwargs", "--env_kwargs"):
            left.append(word)
            continue
        value = value if equals else next(rest, "")
        if flag.startswith("--obs"):
            kwargs["obs_key"] = value
        else:
            kwargs |= json_object(flag, value)
    named = [place for place, word in enumerate(left) if re.match(f"{ENV}(=|$)", word)]
    if kwargs and not named and not help.ASKS.intersection(words):
        raise UserError("--obs-key and --env-kwargs are of an environment; give --env too")
    for place in named:
        flag, equals, value = left[place].partition("=")
        if equals:
            left[place] = f"{flag}={envs.with_kwargs(value, kwargs)}"
        elif place + 1 < len(left):
            left[place + 1] = envs.with_kwargs(left[place + 1], kwargs)
    return left


def json_object(flag: str, text: str) -> dict[str, Any]:
    """The arguments in the value of `--env-kwargs`."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{flag} is {text!r}; it must be a JSON object: '{{\"frame_skip\": 4}}'")
    return found


def data_env(flags: Mapping[str, str], source: Input) -> str | None:
    """The environment of a command's first input; None if it cannot be read."""
    from worldmodels import stages  # heavy, and most commands do without
    from worldmodels.experience.store import EpisodeStore

    if not (path := flags.get(source)):
        return None
    try:
        if source == "data":
            return EpisodeStore(path).env_id
        kind = stages.LatentsFile if source == "latents" else stages.VisionFile
        return kind.load(Path(path)).source.env_id
    except UserError:  # refused when the command reads it again
        return None


def trusted_env(words: Sequence[str]) -> list[str]:
    """Import the module of `--env module:Id-v0`, and take the flag from the words.

    For commands whose environment is named by a file: files import no modules. A module that cannot
    be imported is a UserError.
    """
    left, rest = [], iter(words)
    for word in rest:
        flag, equals, value = word.partition("=")
        if not re.fullmatch(ENV, flag):
            left.append(word)
        elif envs.parse(env_id := value if equals else next(rest, "")).module:
            envs.import_module(env_id)
        else:
            raise UserError(f"{flag} is {env_id!r}; here it only names a module: module:Id-v0")
    return left


def refuse_ignored(ignored: Mapping[str, str], flags: Mapping[str, str]) -> None:
    """Refuse a flag that has no effect: a UserError with the reason in ``ignored``."""
    for flag in flags:
        name = re.sub(r"(^|\.)no-", r"\1", flag)
        for prefix, reason in ignored.items():
            if name == prefix or name.startswith(f"{prefix}."):
                raise UserError(f"--{flag} has no effect here: {reason}")


def of_choices(env_id: str, option: str) -> dict[str, str]:
    """An option for numbers as one without an effect, where the actions are choices."""
    try:
        env = envs.make(env_id)
    except UserError:  # refused when the command makes it
        return {}
    try:
        found = isinstance(env.action_space, spaces.Discrete)
    finally:
        env.close()
    return {option: f"the actions of {env_id} are choices (Discrete)"} if found else {}


def read(
    kind: type[T],
    args: Sequence[str] | None = None,
    default: T | None = None,
    program: str | None = None,
    description: str | None = None,
) -> T:
    """Read a command line into a dataclass, and check every value of it.

    What is not given is the process's own, or the dataclass's.

    Raises:
        ConfigError: a value out of its range; the option is named as it is typed.
        SystemExit: help was asked for (0), or a flag cannot be read (2).
    """
    words = whole_env(sys.argv[1:] if args is None else args, kind)
    if asked := help.ASKS.intersection(words):
        shown = blank(kind, {}) if default is None else default
        everything = "--help-all" in asked
        print(help.page(kind, shown, program or sys.argv[0], description, everything), flush=True)
        raise SystemExit(0)
    with unchecked():
        found = tyro.cli(kind, args=words, default=default, prog=program)
    validate(found, lambda path: f"--{help.option_name(kind, path)}")
    return cast(T, found)


@contextmanager
def naming_options(command: object) -> Iterator[None]:
    """Name the option of a value that is refused during the work, if it is one option's value."""
    try:
        yield
    except ConfigError as error:
        places = [(*path, *error.path) for path, part in _parts(command) if _has(part, error)]
        named = error.name and error.owner is not object  # a file's field, say
        if named or len(places) != 1:
            raise
        raise error.named(f"--{help.option_name(type(command), places[0])}") from error


def _has(part: object, error: ConfigError) -> bool:
    """Whether the part has the value that was refused."""
    if error.owner not in (type(part), object):
        return False
    found = functools.reduce(lambda obj, name: getattr(obj, name, None), error.path, part)
    return found is not None and found == error.value


def _parts(obj: Any, path: Fields = ()) -> Iterator[tuple[Fields, Any]]:
    """A dataclass and all dataclasses inside of it, with the fields that lead there."""
    yield path, obj
    for field in dataclasses.fields(obj):
        if dataclasses.is_dataclass(part := getattr(obj, field.name)):
            yield from _parts(part, (*path, field.name))


def read_flags(words: Sequence[str]) -> dict[str, str]:
    """Flags and the word after each (or after its `=`), unchecked; the last of equal ones."""
    found = {}
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            found[name.replace("_", "-")] = value if equals else following
    return found


def load_preset(name: str, env_id: str | None = None) -> RunConfig:
    """The configuration of a preset for an environment; an unknown one is a UserError."""
    if name not in PRESETS:
        raise UserError(f"--preset is {name!r}; it must be one of {', '.join(PRESETS)}")
    return PRESETS[name](DEFAULT_ENV if env_id is None else env_id)


def use_all_cores() -> None:
    """Let torch compute on every usable core, unless OMP_NUM_THREADS says otherwise."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(usable_cores())
