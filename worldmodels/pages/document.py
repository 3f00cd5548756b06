"""Pages: templates, pictures and tables in them, and pages made of sections.

Every page is a `Document`.
"""

from __future__ import annotations

import base64
import functools
import io
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from worldmodels.metrics import Row
from worldmodels.pages import text
from worldmodels.pages.svg import Chart
from worldmodels.runs import atomic_write

T = TypeVar("T")


@functools.cache
def _templates() -> jinja2.Environment:
    """Templates of this package, which refuse names they do not know; pages escape every text."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("worldmodels.pages"),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats = (
        text.plain,
        text.score,
        text.cores,
        text.count,
        text.large,
        text.duration,
        text.percent,
        text.figure,
    )
    made.filters.update({format.__name__: format for format in formats} | {"quote": shlex.quote})
    return made


def render(name: str, **values: Any) -> str:
    """Fill a template."""
    return _templates().get_template(name).render(**values)


@dataclass(frozen=True)
class Medium:
    """A picture or a video of the page."""

    path: str
    """relative to the page, for a file that is linked; empty for a drawn picture"""
    uri: str
    """content as a data address; empty where the page has no room for it"""
    title: str
    headline: str = ""
    """the return of the episode that a video shows"""
    caption: str = ""
    size: tuple[int, int] | None = None
    """width and height in pixels, where they are known"""
    crisp: bool = False
    """whether pixels of a picture stay squares when it is enlarged"""

    @property
    def wide(self) -> bool:
        """Whether the video needs a row of its own, as all films do; early ones have no size."""
        return self.size is None or self.size[0] >= 2 * self.size[1]

    @property
    def moves(self) -> bool:
        """Whether it is a video."""
        return self.path.endswith(".mp4")


def data_uri(content: bytes, suffix: str) -> str:
    """Bytes of a file with this suffix as a data address."""
    kind = {".png": "image/png", ".mp4": "video/mp4"}[suffix]
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def drawn(picture: NDArray[np.uint8], title: str, caption: str = "") -> Medium:
    """A picture (H, W) or (H, W, 3) for a page, its pixels kept square."""
    height, width = picture.shape[:2]
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    uri = data_uri(buffer.getvalue(), ".png")
    return Medium("", uri, title, caption=caption, size=(width, height), crisp=True)


@dataclass(frozen=True)
class Table:
    """A table of texts; the first column names the row, and a second line of a text is small."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def table(items: Iterable[T], columns: Mapping[str, Callable[[T], str]]) -> Table:
    """A table with a row for each item; a column is its title and what it says of an item."""
    return Table(list(columns), [[say(item) for say in columns.values()] for item in items])


def settings_tables(
    config: Row, versions: Row | None = None, machine: Row | None = None, name: str = "run"
) -> list[tuple[str, Table]]:
    """(name, table) pairs: one for the settings, one for each nested config, versions, machine."""
    named = [(name, config), *groups(config), ("versions", versions), ("machine", machine)]
    found = []
    for title, group in named:
        plain = {k: v for k, v in (group or {}).items() if not isinstance(v, Mapping)}
        if plain:
            rows = [[key, _setting(value)] for key, value in plain.items()]
            found.append((title, Table(["setting", "value"], rows)))
    return found


def _setting(value: Any) -> str:
    """A setting in words: lists with commas, lists in lists in brackets, "none" for nothing."""
    if value is None or value in ([], {}):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_setting(one)}" for name, one in value.items())
    if isinstance(value, list):
        inner = (isinstance(item, list | Mapping) for item in value)
        parts = zip(value, inner, strict=True)
        return ", ".join(f"({_setting(one)})" if nested else _setting(one) for one, nested in parts)
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def groups(config: Row, prefix: str = "") -> Iterator[tuple[str, Row]]:
    """Yield (dotted name, values) of every nested config, outer before inner."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield f"{prefix}{key}", value
            yield from groups(value, f"{prefix}{key}.")


class Block:
    """A part of a section."""

    @property
    def kind(self) -> str:
        """What the template shows it as."""
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Plot(Block):
    """A chart in a card."""

    chart: Chart
    title: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Figures(Block):
    """A table of numbers; the first column names the row."""

    table: Table
    label: str
    """text alternative"""
    note: str = ""
    """a line below"""
    folded: str = ""
    """title under which it is folded; empty shows it"""
    prose: bool = False
    """whether cells are sentences, which wrap"""


@dataclass(frozen=True)
class Media(Block):
    """Pictures and films."""

    media: Sequence[Medium]
    layout: Literal["stack", "beside", "three", "rows"] = "stack"
    """under each other; beside each other, or three in a row, where the screen is wide enough; or
    one in a row, with its caption beside it"""


@dataclass(frozen=True)
class Pair(Block):
    """Blocks two in a row where the screen is wide enough."""

    blocks: Sequence[Block]


@dataclass(frozen=True)
class Heading(Block):
    """A title inside of a section."""

    text: str


@dataclass(frozen=True)
class Text(Block):
    """A paragraph."""

    text: str
    quiet: bool = False
    """smaller and paler"""


@dataclass(frozen=True)
class Points(Block):
    """Sentences, one a line."""

    texts: Sequence[str]
    folded: str = ""
    """title under which they are folded; empty shows them"""


@dataclass(frozen=True)
class Link(Block):
    """A link to a file beside the page, and the rest of its sentence."""

    address: str
    """relative to the page"""
    title: str
    rest: str


@dataclass(frozen=True)
class Warnings(Block):
    """What limits the page's conclusions; ``calm`` is shown if there is nothing."""

    texts: Sequence[str]
    calm: str = ""
    one: str = "warning"
    """what one of them is called"""
    many: str = "warnings"


@dataclass(frozen=True)
class Missing(Block):
    """A part that the run has not made, and the command that makes it."""

    what: str
    command: str


@dataclass(frozen=True)
class Settings(Block):
    """Tables of settings, folded."""

    groups: Sequence[tuple[str, Table]]


@dataclass(frozen=True)
class Guide(Block):
    """Short articles: (title, text)."""

    articles: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Section:
    """A part of a page with an entry in its navigation; one without blocks and lead is left out."""

    title: str
    blocks: Sequence[Block] = ()
    lead: str = ""
    """a paragraph below the title"""
    anchor: str = ""
    """its identifier (default: made of the short title)"""
    short: str = ""
    """title in the navigation (default: the title)"""

    @property
    def name(self) -> str:
        """The section's identifier."""
        made = re.sub(r"[^a-z0-9]+", "-", (self.short or self.title).lower())
        return self.anchor or made.strip("-")


@dataclass(frozen=True)
class Document:
    """A page."""

    title: str
    eyebrow: str
    """what kind of page it is, in the small line above the title"""
    conclusion: Sequence[str]
    """the result in sentences, first on the page"""
    sections: Sequence[Section]
    command: str
    """that makes the page"""
    running: str = ""
    """what is being done, on a page that is written again and reloads itself until it is done; what
    is missing is then left out"""
    top: Sequence[Block] = ()
    """below the conclusion"""
    tab: str = ""
    """title of the browser's tab (default: the title)"""

    def write(self, path: Path) -> Path:
        """Write the page, whole or not at all."""
        sections, top = self.sections, self.top
        if self.running:
            sections = [replace(one, blocks=_there(one.blocks)) for one in sections]
            top = _there(top)
        shown = [section for section in sections if section.blocks or section.lead]
        atomic_write(path, render("document.html.j2", page=self, top=top, sections=shown))
        return path


def _there(blocks: Sequence[Block]) -> list[Block]:
    """Blocks without those that name something missing, and without headings of nothing."""
    found: list[Block] = []
    for block in reversed(blocks):
        if isinstance(block, Pair):
            block = replace(block, blocks=_there(block.blocks))
        nothing = isinstance(block, Missing) or (isinstance(block, Pair) and not block.blocks)
        if isinstance(block, Heading):
            nothing = not found or isinstance(found[-1], Heading)
        found += [] if nothing else [block]
    return found[::-1]


def setup(record: Mapping[str, Any]) -> Section:
    """The last section: ``config``, ``versions`` and ``machine`` of `RunFolder.read_config`."""
    groups = settings_tables(record["config"], record.get("versions"), record.get("machine"))
    return Section("Setup", [Settings(groups)])
