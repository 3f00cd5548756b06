"""How charts of several series tell them apart, and rows of values with their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes

from worldmodels.pages.svg import Key

Ink = Mapping[str, str]
"""Name of a CSS variable -> colour: `COLOUR` on a page, `PAPER` elsewhere."""

SERIES = ("real", "controller", "dream", "memory", "vision", "other")
_DASHES: tuple[Literal["-", "--", ":"], ...] = ("-", "--", ":")
_MARKS = ("line", "dashed", "dotted")


@dataclass(frozen=True)
class Look:
    """How one series is drawn everywhere."""

    colour: str
    dash: Literal["-", "--", ":"]
    mark: str


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for each series, in order: all colours first, then dashed, then dotted."""
    found = {}
    for index, name in enumerate(names):
        turn = index // len(SERIES) % len(_DASHES)
        found[name] = Look(SERIES[index % len(SERIES)], _DASHES[turn], _MARKS[turn])
    return found


def legend(found: Mapping[str, Look]) -> tuple[Key, ...]:
    """Keys of all series."""
    return tuple(Key(look.mark, look.colour, name) for name, look in found.items())


def dash_of(key: Key) -> Literal["-", "--", ":"]:
    """Line style of a key."""
    return _DASHES[_MARKS.index(key.mark)]


@dataclass(frozen=True)
class Interval:
    """A value on a line of its own."""

    label: str
    value: float
    low: float
    high: float
    colour: str
    """name of a CSS variable"""


def intervals(axes: Axes, rows: Sequence[Interval], ink: Ink, width: int) -> None:
    """Draw one line for each row, its label above it, in a figure of this width (CSS pixels)."""
    room = width // 8  # characters
    for place, row in enumerate(rows):
        colour = ink[row.colour]
        axes.plot([row.low, row.high], [place, place], color=colour, linewidth=5, alpha=0.4)
        axes.plot([row.value], [place], "o", color=colour, markersize=7)
        label = row.label if len(row.label) <= room else f"{row.label[: room - 1]}…"
        axes.annotate(
            label,
            (0.0, place - 0.36),
            xycoords=("axes fraction", "data"),
            color=ink["ink"],
            va="center",
            in_layout=False,
        )
    axes.set(yticks=[], ylim=(len(rows) - 0.4, -0.75))
    axes.grid(True, axis="x")
    axes.spines["left"].set_visible(False)
