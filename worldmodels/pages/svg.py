"""Matplotlib figures as inline SVG that takes its colours and its font from the page.

A figure is drawn with placeholder colours; each becomes a CSS variable, so one drawing serves the
light and the dark scheme. Text stays text, in the page's own font. Each chart is drawn once for
each class of screen, because a drawing that is scaled down to a phone is too small to read.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

Draw = Callable[[int], Figure]

_NAMES = (
    *("ink", "muted", "grid", "surface", "real", "dream", "vision", "memory", "controller"),
    *("other", "alarm"),
)
COLOUR = {name: f"#0f00{index:02x}" for index, name in enumerate(_NAMES)}
"""Placeholder colour of each CSS variable of the page."""

FULL = {"wide": 1060, "medium": 640, "narrow": 340}
"""Screen classes and drawing widths, in CSS pixels, of a chart as wide as the page."""
HALF = {"wide medium": 520, "narrow": 340}
"""The same for a chart that shares its row with another one on a laptop."""

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names of runs and methods may have dollar signs
    "svg.hashsalt": "worldmodels",
    "font.size": 13.0,
    "axes.labelsize": 13.0,
    "xtick.labelsize": 12.5,
    "ytick.labelsize": 12.5,
    "text.color": COLOUR["ink"],
    "axes.labelcolor": COLOUR["muted"],
    "axes.edgecolor": COLOUR["grid"],
    "xtick.color": COLOUR["grid"],
    "ytick.color": COLOUR["grid"],
    "xtick.labelcolor": COLOUR["muted"],
    "ytick.labelcolor": COLOUR["muted"],
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": COLOUR["grid"],
    "grid.linewidth": 0.8,
    "lines.linewidth": 2.0,
    "axes.unicode_minus": True,
}


PAPER = dict(
    zip(
        _NAMES,
        (
            *("#1a1f26", "#565f6b", "#d5d2c9", "#ffffff", "#0b7150", "#6a3cc4", "#0b6b95"),
            *("#ac2f6c", "#b25307", "#757d87", "#bf2a1f"),
        ),
        strict=True,
    )
)
"""Colours of the light scheme, for pictures outside of a page."""


def style(ink: Mapping[str, str]) -> dict[Any, Any]:
    """Matplotlib's settings for figures in given colours, such as `COLOUR` or `PAPER`."""
    named = {placeholder: ink[name] for name, placeholder in COLOUR.items()}
    return {
        key: named.get(value, value) if isinstance(value, str) else value
        for key, value in _STYLE.items()
    }


@dataclass(frozen=True)
class Key:
    """One entry of a legend; the page sets it in HTML, so that it wraps on a phone."""

    mark: str
    """line, dashed, dotted, band, dot, cross, ring or diamond."""
    colour: str
    """Name of a CSS variable of the page."""
    label: str
    """What the mark stands for."""


@dataclass(frozen=True)
class Chart:
    """One chart in all its sizes, ready for the template."""

    name: str
    """Name of the chart, unique on the page."""
    alt: str
    """What a reader who does not see the chart is told."""
    keys: tuple[Key, ...]
    """The legend."""
    variants: tuple[tuple[str, Markup], ...]
    """(screen classes, SVG) pairs; the style sheet shows one of them."""


def chart(
    name: str,
    alt: str,
    widths: Mapping[str, int],
    draw: Draw,
    keys: Sequence[Key] = (),
    tooltips: Mapping[str, Sequence[str]] | None = None,
) -> Chart:
    """Draw a chart for each class of screen.

    Args:
        name: unique on the page; prefix of the identifiers inside the SVG.
        alt: text alternative.
        widths: screen classes -> width in CSS pixels.
        draw: width -> figure.
        keys: the legend.
        tooltips: group id in the figure -> one text for each of the group's markers.
    """
    variants = []
    with matplotlib.rc_context(_STYLE):
        for index, (screens, width) in enumerate(widths.items()):
            markup = to_svg(draw(width), f"{name}-{index}", tooltips or {})
            variants.append((screens, markup))
    return Chart(name, alt, tuple(keys), tuple(variants))


def stacked(width: int, heights: Sequence[int]) -> tuple[Figure, list[Axes]]:
    """Figure of the given width with axes above each other that share x; sizes in CSS pixels."""
    figure = Figure(figsize=(width / 72, sum(heights) / 72), layout="constrained")
    axes = figure.subplots(
        len(heights), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": list(heights)}
    )
    return figure, list(axes[:, 0])


def to_svg(figure: Figure, prefix: str, tooltips: Mapping[str, Sequence[str]]) -> Markup:
    """Render a figure as an `<svg>` element for use inside HTML: no namespaces, no addresses."""
    buffer = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(
        buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    root = ElementTree.fromstring(buffer.getvalue())
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {_local(key): value for key, value in element.attrib.items()}
    _drop(root, {"metadata", "style"})
    _add_tooltips(root, tooltips)
    _rename_ids(root, prefix)
    for element in root.iter():
        if "style" in element.attrib:
            element.set("style", _themed(element.get("style", "")))
    box = root.get("viewBox", "0 0 1 1")
    root.attrib = {"viewBox": box, "aria-hidden": "true", "class": "plot"}
    text = ElementTree.tostring(root, encoding="unicode", method="html")
    return Markup(re.sub(r">\s+<", "><", text))  # our own drawing; its texts are escaped above


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _drop(root: ElementTree.Element, tags: Iterable[str]) -> None:
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in tags:
                parent.remove(child)


def _add_tooltips(root: ElementTree.Element, tooltips: Mapping[str, Sequence[str]]) -> None:
    for group in root.iter("g"):
        texts = tooltips.get(group.get("id", ""))
        marks = list(group.iter("use"))
        if texts is None or len(texts) != len(marks):
            continue
        for mark, text in zip(marks, texts, strict=True):
            ElementTree.SubElement(mark, "title").text = text


def _rename_ids(root: ElementTree.Element, prefix: str) -> None:
    """Keep the identifiers that something refers to, and make them unique on the page."""
    used: set[str] = set()
    for element in root.iter():
        for key, value in element.attrib.items():
            used.update(re.findall(r"url\(#([^)]+)\)", value))
            if key == "href":
                used.add(value.removeprefix("#"))
    short = {name: f"{prefix}-{index}" for index, name in enumerate(sorted(used))}
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            if key == "id":
                if value in short:
                    element.set("id", short[value])
                else:
                    del element.attrib["id"]
            elif key == "href":
                element.set("href", "#" + short[value.removeprefix("#")])
            elif "url(#" in value:
                element.set(
                    key, re.sub(r"url\(#([^)]+)\)", lambda m: f"url(#{short[m[1]]})", value)
                )


def _themed(style: str) -> str:
    style = re.sub(r"font: (?:[a-z]+ )?([\d.]+px)[^;]*", r"font-size: \1", style)
    return re.sub(r"#0f00([0-9a-f]{2})", lambda m: f"var(--{_NAMES[int(m[1], 16)]})", style)
