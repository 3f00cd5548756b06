"""The pages of `--help` (the common options) and `--help-all`, from a command's dataclass.

The texts are the docstrings of its fields.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import shutil
import sys
import textwrap
import types
from abc import ABCMeta
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import tyro

from worldmodels.config import Fields, types_of

ASKS = frozenset({"-h", "--help", "--help-all"})
"""Words that ask for help."""
COLUMN = 26
"""Where the texts begin."""


class Option(NamedTuple):
    """One option, or one positional argument."""

    name: str
    """without dashes, such as "dream.temperature" """
    usage: str
    """as it is typed"""
    text: str
    required: bool
    group: str
    """the settings that it belongs to; empty for an option of the command itself"""


def page(command: type, defaults: Any, program: str, about: str | None, everything: bool) -> str:
    """The help of a command's dataclass: its `Command.common` options, or all but the unused.

    ``defaults`` has `tyro.MISSING` where the user must give something; ``about`` (default: the
    dataclass's docstring) says what the command does.
    """
    width = min(max(shutil.get_terminal_size().columns, 80), 100)
    unused, common = getattr(command, "unused", {}), getattr(command, "common", "").split()
    found = [option for option in options(command, defaults) if option.name not in unused]
    order = list(dict.fromkeys(["", *(option.group for option in found)]))
    found.sort(key=lambda option: (order.index(option.group), not option.required))
    shown = [o for o in found if everything or not common or o.required or o.name in common]
    usage = ["usage:", program, *(o.usage for o in found if o.required), "[OPTIONS]"]
    lines = _wrapped(" ".join(usage), width, 8)
    for paragraph in inspect.cleandoc(about or command.__doc__ or "").split("\n\n"):
        literal = paragraph.startswith("    ")
        lines += ["", *(paragraph.split("\n") if literal else _wrapped(paragraph, width))]
    lines.append("")
    for group, members in itertools.groupby(shown, lambda option: option.group):
        lines += ["", f"{group}:"] if group and everything else []
        for option in members:
            text = [" " * COLUMN + line for line in _wrapped(option.text, width - COLUMN)]
            usage_fits = len(option.usage) <= COLUMN - 4
            first = f"  {option.usage:{COLUMN - 2}}{text[0].strip() if usage_fits and text else ''}"
            lines += [first.rstrip(), *text[usage_fits:]]
    rest = len(found) - len(shown)
    more = f"{rest} more options" if rest else "All options are shown, as by"
    return "\n".join([*lines, "", f"{more}: {program} --help-all"])


def options(command: type, obj: Any, path: Fields = (), group: str = "") -> Iterator[Option]:
    """Every option of a command's dataclass and of the settings inside of it."""
    texts = texts_of(type(obj))
    for field, kind in types_of(type(obj)).items():
        value, text = getattr(obj, field), texts.get(field, "")
        name = option_name(command, (*path, field))
        if dataclasses.is_dataclass(value):
            inner = f"{name} ({text})" if name and text else name
            yield from options(command, value, (*path, field), inner)
            continue
        required = value is tyro.MISSING
        values = metavar(kind)
        if len(values) > 50:  # a choice of many
            text, values = f"{text}; one of {values[1:-1].replace(',', ', ')}", "NAME"
        before, _, last = name.rpartition(".")
        usage = f"--{name} {values}" if values else f"--{before}{'.' * bool(before)}[no-]{last}"
        if tyro.conf.Positional in get_args(kind):
            usage = name.upper() + " ..." * values.endswith("...")
        yield Option(name, usage, text + ("" if required else default_text(value)), required, group)


def option_name(command: type, path: Fields) -> str:
    """Name of the option that sets a field of a command's dataclass, or of one inside of it."""
    words, kind = [], command
    for name in path:
        kind = types_of(kind)[name]
        names = [getattr(extra, "name", None) for extra in get_args(kind)[1:]]
        words.append(next((word for word in names if isinstance(word, str)), name))
        kind = get_args(kind)[0] if names else kind
    return ".".join(word for word in words if word).replace("_", "-")


def texts_of(cls: type) -> dict[str, str]:
    """Docstrings of a dataclass's fields, each as one line."""
    found = {}
    for base in filter(dataclasses.is_dataclass, reversed(cls.__mro__)):
        for pair in itertools.pairwise(_bodies(base.__module__)[base.__name__]):
            match pair:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    found[name] = " ".join(text.split())
    return found


@functools.cache
def _bodies(module: str) -> dict[str, list[ast.stmt]]:
    """The statements of a module's classes."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node.body for node in tree.body if isinstance(node, ast.ClassDef)}


def metavar(kind: Any) -> str:
    """The placeholder of an option's values; empty for a switch."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        own = next((word for extra in inner if (word := getattr(extra, "metavar", None))), None)
        return own or metavar(inner[0])
    if origin in (Union, types.UnionType):
        return metavar(next(part for part in inner if part is not type(None)))
    if origin is Literal:
        return "{" + ",".join(map(str, inner)) + "}"
    if origin is tuple:
        return f"{metavar(inner[0])} ..."
    return "" if kind is bool else str(kind.__name__).upper()


def default_text(value: Any) -> str:
    """The end of an option's text; the text itself explains a default of None."""
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return f" (default: {'on' if value else 'off'})"
    return f" (default: {' '.join(map(str, value)) if isinstance(value, tuple) else value})"


def _wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()), width, subsequent_indent=" " * indent, break_on_hyphens=False
    )


# --- without heavy libraries

HEAVY = frozenset(
    "torch numba scipy cma matplotlib PIL rich safetensors zstandard imageio_ffmpeg "
    "stable_baselines3 sb3_contrib".split()
)


def _anything(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Anything


class _AnythingMeta(ABCMeta):
    def __getattr__(cls, name: str) -> Any:
        return _anything(name)


class _Anything(metaclass=_AnythingMeta):
    """Stands for any class, function or decorator of a module."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return _Anything


class _StandIns(MetaPathFinder, Loader):
    """Imports a module that has any attribute in place of every heavy library."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name.partition(".")[0] in HEAVY else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = ModuleType(spec.name)
        module.__path__ = []
        module.__getattr__ = _anything  # type: ignore[method-assign]  # as PEP 562 has it
        return module

    def exec_module(self, module: ModuleType) -> None: ...


@contextmanager
def stand_ins() -> Iterator[None]:
    """Import stand-ins for heavy libraries, and forget them and their importers at the end.

    Help needs configurations alone, which lie beside networks; compare Sphinx's
    `autodoc_mock_imports`.
    """
    finder, before = _StandIns(), set(sys.modules)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in {*HEAVY, "worldmodels", "baselines", "sparse_gan"}:
                del sys.modules[name]
