"""Drawings of how things fit together: V, M, C and the dream; the stages of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scripts.figures.style import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PALE,
    PURPLE,
    arrow,
    box,
    canvas,
    save,
)

_SIZE = (1.75, 0.9)


def draw_system(path: Path) -> None:
    """Left the loop through the real environment, right the same loop inside M."""
    figure, axes = canvas(11, 4.5)
    for left, width, title, colour in (
        (0.15, 6.1, "In reality: V sees, M remembers, C acts", INK),
        (6.45, 4.4, "In the dream: M stands in for the world", PURPLE),
    ):
        axes.add_patch(_panel(left, 0.15, width, 4.2))
        axes.text(left + 0.2, 4.05, title, color=colour, size=12, weight="bold", va="center")
    _reality(axes)
    _dream(axes)
    save(figure, path)


def _panel(x: float, y: float, width: float, height: float) -> Any:
    from matplotlib.patches import FancyBboxPatch

    style = "round,pad=0,rounding_size=0.15"
    return FancyBboxPatch((x, y), width, height, style, fc=PALE, ec="none", zorder=0)


def _reality(axes: Any) -> None:
    world, vision, memory, control = (1.3, 2.2), (3.25, 3.05), (5.15, 2.2), (3.25, 1.15)
    box(axes, world, _SIZE, "the environment\n(CarRacing)")
    box(axes, vision, _SIZE, "V  vision\nframe to 32 numbers", BLUE)
    box(axes, memory, _SIZE, "M  memory\npredicts what is next", PURPLE)
    box(axes, control, _SIZE, "C  controller\n867 numbers", ORANGE)
    arrow(axes, (1.6, 2.68), (2.35, 3.05))
    axes.text(1.55, 2.98, "frame", color=INK, size=10, ha="center")
    arrow(axes, (4.15, 3.05), (4.9, 2.68), BLUE)
    axes.text(4.78, 2.98, "$z$", color=BLUE, size=12, ha="center")
    arrow(axes, (3.25, 2.57), (3.25, 1.63), BLUE)
    axes.text(3.1, 2.1, "$z$", color=BLUE, size=12, ha="center")
    arrow(axes, (4.95, 1.72), (4.15, 1.2), PURPLE)
    axes.text(4.75, 1.3, "$h$", color=PURPLE, size=12, ha="center")
    arrow(axes, (2.35, 1.15), (1.45, 1.72), ORANGE)
    axes.text(1.45, 1.3, "steering,\ngas, brake", color=ORANGE, size=10, ha="center", va="center")
    line = {"connectionstyle": "arc3,rad=0.33", "lw": 1.2, "linestyle": "--"}
    arrow(axes, (3.6, 0.68), (5.45, 1.72), ORANGE, **line)
    axes.text(4.95, 0.62, "its own action", color=ORANGE, size=9, ha="center")


def _dream(axes: Any) -> None:
    memory, control = (8.65, 2.75), (8.65, 1.05)
    box(axes, memory, (2.1, 0.95), "M  memory\ndreams the next $z$,\nreward and end", PURPLE)
    box(axes, control, _SIZE, "C  controller", ORANGE)
    loop = {"connectionstyle": "arc3,rad=-0.45"}
    arrow(axes, (9.75, 2.7), (9.57, 1.05), PURPLE, **loop)
    axes.text(10.35, 1.85, "$z,\\ h$", color=PURPLE, size=12, ha="center")
    arrow(axes, (7.73, 1.05), (7.55, 2.7), ORANGE, **loop)
    axes.text(7.02, 1.85, "action", color=ORANGE, size=10, ha="center")
    axes.text(
        8.65, 1.9, "no frames, no physics:\nhundreds of dreams at once", ha="center", va="center",
        color=MUTED, size=9.5,
    )  # fmt: skip
    axes.text(
        8.65, 3.6, "evolution keeps the C that earn most", color=GREEN, size=10.5, ha="center"
    )
    axes.text(8.65, 0.36, "V paints a $z$ only for us to watch", color=BLUE, size=9.5, ha="center")


def draw_stages(path: Path) -> None:
    """The stages of a run, what each makes, and the way back."""
    figure, axes = canvas(11, 2.6)
    stages = (
        ("collect", "frames, actions,\nrewards", INK),
        ("train V", "vision", BLUE),
        ("encode", "a $z$ for\nevery frame", BLUE),
        ("train M", "memory", PURPLE),
        ("evolve C", "in the dream", ORANGE),
        ("select", "by real\nepisodes", GREEN),
        ("test, report", "one page", INK),
    )
    step = 11 / len(stages)
    for number, (name, makes, colour) in enumerate(stages):
        x = step * (number + 0.5)
        box(axes, (x, 1.65), (1.2, 0.6), name, colour)
        axes.text(x, 1.08, makes, color=MUTED, size=9.5, ha="center", va="center")
        if number:
            arrow(axes, (x - step + 0.63, 1.65), (x - 0.63, 1.65))
    back = {"connectionstyle": "arc3,rad=-0.09", "lw": 1.3, "linestyle": "--"}
    arrow(axes, (step * 5.5, 0.82), (step * 0.5, 0.82), GREEN, **back)
    axes.text(step * 3, 0.62, "again, with a better agent", color=GREEN, size=10, ha="center")
    save(figure, path)


BADGES = {
    "python": ("python", "3.11 to 3.13", BLUE),
    "licence": ("licence", "MIT", GREEN),
    "types": ("types", "mypy strict", PURPLE),
    "gpu": ("GPU", "not needed", ORANGE),
}
"""Name -> what it says, left and right."""


def draw_badge(path: Path) -> None:
    """A badge that is a file like any other: no service counts who looks at it."""
    left, right, colour = BADGES[path.stem.removeprefix("badge-")]
    widths = [round(6.6 * len(text)) + 14 for text in (left, right)]
    total = sum(widths)
    text = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="20" role="img" '
        f'aria-label="{left}: {right}"><clipPath id="r"><rect width="{total}" height="20" rx="3"/>'
        f'</clipPath><g clip-path="url(#r)"><rect width="{widths[0]}" height="20" fill="#444b55"/>'
        f'<rect x="{widths[0]}" width="{widths[1]}" height="20" fill="{colour}"/></g>'
        '<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" '
        f'font-size="11"><text x="{widths[0] / 2}" y="14">{left}</text>'
        f'<text x="{widths[0] + widths[1] / 2}" y="14">{right}</text></g></svg>\n'
    )
    path.write_text(text, encoding="utf-8")
