"""Pages made of sections: the conclusion and its chart first, then figures, warnings, settings.

The report of a run has a template of its own; every other page is a `Document`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from worldmodels.pages.media import Medium
from worldmodels.pages.svg import Chart
from worldmodels.pages.tables import Table, settings_tables
from worldmodels.pages.template import render
from worldmodels.runs import atomic_write


@dataclass(frozen=True)
class Plot:
    """A chart in a card."""

    kind: ClassVar[str] = "plot"
    chart: Chart
    title: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Figures:
    """A table of numbers; the first column names the row."""

    kind: ClassVar[str] = "figures"
    table: Table
    label: str
    """what a reader who does not see the table is told"""
    note: str = ""
    """a line below"""
    prose: bool = False
    """whether cells are sentences, which wrap"""


@dataclass(frozen=True)
class Media:
    """Pictures and films under each other."""

    kind: ClassVar[str] = "media"
    media: Sequence[Medium]


@dataclass(frozen=True)
class Pair:
    """Plots side by side where the screen is wide enough."""

    kind: ClassVar[str] = "pair"
    plots: Sequence[Plot]


@dataclass(frozen=True)
class Points:
    """Sentences, one a line."""

    kind: ClassVar[str] = "points"
    texts: Sequence[str]
    folded: str = ""
    """title under which they are folded; empty shows them"""


@dataclass(frozen=True)
class Warnings:
    """What limits the page's conclusions; `calm` is shown where there is nothing."""

    kind: ClassVar[str] = "warnings"
    texts: Sequence[str]
    calm: str = ""
    one: str = "warning"
    """what one of them is called"""
    many: str = "warnings"


@dataclass(frozen=True)
class Missing:
    """A part that the run has not made, and the command that makes it."""

    kind: ClassVar[str] = "missing"
    what: str
    command: str


@dataclass(frozen=True)
class Settings:
    """Tables of settings, folded."""

    kind: ClassVar[str] = "settings"
    groups: Sequence[tuple[str, Table]]


@dataclass(frozen=True)
class Guide:
    """Short articles: (title, text)."""

    kind: ClassVar[str] = "guide"
    articles: Sequence[tuple[str, str]]


Block: TypeAlias = Plot | Figures | Media | Pair | Points | Warnings | Missing | Settings | Guide


@dataclass(frozen=True)
class Section:
    """A part of a page with an entry in its navigation; one without blocks and lead is left out."""

    title: str
    blocks: Sequence[Block] = ()
    lead: str = ""
    """a paragraph below the title"""

    @property
    def anchor(self) -> str:
        """The section's identifier."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


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
    facts: Sequence[tuple[str, str, str]] = field(default=())
    """(label, value, explanation) below the conclusion"""

    def write(self, path: Path) -> Path:
        """Write the page, whole or not at all."""
        shown = [section for section in self.sections if section.blocks or section.lead]
        atomic_write(path, render("document.html.j2", page=self, title=self.title, sections=shown))
        return path


def setup(record: Mapping[str, Any]) -> Section:
    """The last section: ``config``, ``versions`` and ``machine`` of `RunFolder.read_config`."""
    groups = settings_tables(
        record["config"], record.get("versions") or {}, record.get("machine") or {}
    )
    return Section("Setup", [Settings(groups)])
