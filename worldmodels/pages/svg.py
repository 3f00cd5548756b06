"""Charts as inline SVG with the page's colours and font.

Placeholder colours become CSS variables, so one drawing serves the light and the dark scheme. Each
chart is drawn for each class of screen, since a drawing scaled down to a phone is hard to read.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib import rc_context, rc_params_from_file
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

Ink: TypeAlias = Mapping[str, str]
"""Name of a CSS variable of the page -> colour: `COLOUR` on a page, `PAPER` elsewhere."""
Heights: TypeAlias = Sequence[int] | Callable[[int], Sequence[int]]
"""Heights of axes above each other in CSS pixels, or what gives them for a width."""

PAPER: Ink = {
    "ink": "#1a1f26",
    "muted": "#565f6b",
    "grid": "#d5d2c9",
    "surface": "#ffffff",
    "real": "#0b7150",
    "dream": "#6a3cc4",
    "vision": "#0b6b95",
    "memory": "#ac2f6c",
    "controller": "#b25307",
    "other": "#757d87",
    "alarm": "#bf2a1f",
}
"""Colours of the light scheme, for pictures outside of a page."""
COLOUR: Ink = {name: f"#0f00{index:02x}" for index, name in enumerate(PAPER)}
"""Placeholders, which become CSS variables."""

Dash: TypeAlias = Literal["-", "--", ":"]
DASHES: Mapping[str, Dash] = {"line": "-", "dashed": "--", "dotted": ":"}
STYLE = Path(__file__).parent / "templates" / "page.mplstyle"
FULL = {"wide": 1060, "medium": 640, "narrow": 340}
"""Screen classes and drawing widths, in CSS pixels, of a chart as wide as the page."""
HALF = {"wide medium": 520, "narrow": 340}
"""The same for a chart in half a row."""


def style(ink: Ink) -> dict[Any, Any]:
    """Matplotlib's settings for figures in given colours."""
    inks = {
        "ink": ("text.color",),
        "muted": ("axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"),
        "grid": ("axes.edgecolor", "xtick.color", "ytick.color", "grid.color"),
    }
    colours = {setting: ink[name] for name, settings in inks.items() for setting in settings}
    return {**rc_params_from_file(STYLE, use_default_template=False), **colours}


@dataclass(frozen=True)
class Key:
    """One entry of a legend; the page sets it in HTML, so that it wraps on a phone."""

    mark: str
    """line, dashed, dotted, band, dot, cross, ring or diamond"""
    colour: str
    """name of a CSS variable of the page"""
    label: str

    @property
    def dash(self) -> Dash:
        """Matplotlib's style of a line of this mark."""
        return DASHES[self.mark]


@dataclass(frozen=True)
class Chart:
    """One chart in all its sizes, ready for the template."""

    name: str
    alt: str
    """text alternative"""
    keys: tuple[Key, ...]
    variants: tuple[tuple[str, Markup], ...]
    """(screen classes, SVG) pairs; the style sheet shows one of them"""


def chart(
    name: str,
    alt: str,
    widths: Mapping[str, int],
    heights: Heights,
    draw: Callable[..., None],
    keys: Iterable[Key] = (),
    tooltips: Mapping[str, Sequence[str]] | None = None,
    columns: int = 1,
) -> Chart:
    """Draw a chart for each class of screen.

    Args:
        name: unique on the page; prefix of the identifiers inside the SVG.
        alt: text alternative.
        widths: screen classes -> width in CSS pixels.
        heights: of the rows of axes.
        draw: gets all axes as arguments.
        keys: the legend.
        tooltips: group id in the figure -> a text for each of its markers.
        columns: axes beside each other.
    """
    variants = []
    with rc_context(style(COLOUR)):
        for index, (screens, width) in enumerate(widths.items()):
            figure, axes = grid(width, heights, columns)
            draw(*axes)
            variants.append((screens, _to_svg(figure, f"{name}-{index}", tooltips or {})))
    return Chart(name, alt, tuple(keys), tuple(variants))


def grid(width: int, heights: Heights, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """Figure and its axes, row by row; those above each other share x. Sizes in CSS pixels."""
    rows = list(heights(width) if callable(heights) else heights)
    figure = Figure(figsize=(width / 72, sum(rows) / 72), layout="constrained")
    axes = figure.subplots(len(rows), columns, sharex="col", squeeze=False, height_ratios=rows)
    return figure, list(axes.flat)


def width_of(axes: Axes) -> int:
    """Width of the whole drawing in CSS pixels."""
    assert isinstance(axes.figure, Figure)
    return round(72 * axes.figure.get_figwidth())


def _to_svg(figure: Figure, prefix: str, tooltips: Mapping[str, Sequence[str]]) -> Markup:
    """Render a figure as an `<svg>` element for use inside HTML: no namespaces, no addresses."""
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(buffer, metadata=nothing)
    root = ElementTree.fromstring(buffer.getvalue())
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {_local(key): value for key, value in element.attrib.items()}
    for parent in root.iter():
        for child in list(parent):
            if child.tag in ("metadata", "style"):
                parent.remove(child)
    _add_tooltips(root, tooltips)
    for element in root.iter():
        if element.tag == "g":  # nothing refers to a group
            element.attrib.pop("id", None)
        if "style" in element.attrib:
            element.set("style", _themed(element.attrib["style"]))
    box = root.get("viewBox", "0 0 1 1")
    root.attrib = {"viewBox": box, "aria-hidden": "true", "class": "plot"}
    text = ElementTree.tostring(root, encoding="unicode", method="html")
    # unique on the page, and the same every time: matplotlib's own hang on addresses in memory
    order: dict[str, int] = {}
    text = re.sub(
        r'( id="| href="#|url\(#)([^")]+)',
        lambda found: f"{found[1]}{prefix}-{order.setdefault(found[2], len(order))}",
        text,
    )
    return Markup(re.sub(r">\s+<", "><", text))  # our own drawing; its texts are escaped above


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _add_tooltips(root: ElementTree.Element, tooltips: Mapping[str, Sequence[str]]) -> None:
    for group in root.iter("g"):
        texts = tooltips.get(group.get("id", ""))
        marks = list(group.iter("use")) or list(group.iter("path"))  # paths where sizes differ
        if texts is not None and len(texts) == len(marks):
            for mark, text in zip(marks, texts, strict=True):
                ElementTree.SubElement(mark, "title").text = text


def _themed(css: str) -> str:
    css = re.sub(r"font: (?:[a-z]+ )?([\d.]+px)[^;]*", r"font-size: \1", css)
    return re.sub(r"#0f00([0-9a-f]{2})", lambda m: f"var(--{list(COLOUR)[int(m[1], 16)]})", css)
