"""Pages about runs: tables of figures, pictures and films, in one file that needs no network."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from worldmodels.runs import atomic_write


@dataclass(frozen=True)
class Section:
    """A part of a page; what is empty is left out."""

    title: str
    """its heading"""
    text: str = ""
    """a paragraph"""
    head: Sequence[str] = ()
    """names of the table's columns"""
    rows: Sequence[Sequence[str]] = ()
    """the table, the first column naming the row"""
    pictures: Sequence[tuple[str, str]] = ()
    """captions and data addresses"""
    film: str = ""
    """data address of an mp4"""


def write_page(
    path: Path, title: str, sections: Sequence[Section], record: Mapping[str, Any]
) -> Path:
    """Write a page, whole or not at all.

    Args:
        path: of the page.
        title: its heading.
        sections: its parts.
        record: ``config``, ``versions`` and ``machine`` of the run, as `RunFolder.read_config` has
            them.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sparse_gan.gan"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html.j2").render(
        title=title,
        sections=sections,
        config=json.dumps(record["config"], indent=2),
        versions=record["versions"],
        machine=record["machine"],
    )
    atomic_write(path, page)
    return path


def table(rows: Mapping[str, Mapping[str, float]]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of a table of figures: one row a name, one column a figure."""
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = [
        [name, *(text(row[c]) if c in row else "" for c in columns)] for name, row in rows.items()
    ]
    return ["", *columns], lines


def text(value: Any) -> str:
    """A figure as a page shows it, four digits if it has a fraction."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def figure_address(figure: Figure) -> str:
    """A matplotlib figure as a data address."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return _address(buffer.getvalue(), "image/png")


def picture_address(picture: NDArray[np.uint8]) -> str:
    """A picture (H, W, 3) as a data address."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    return _address(buffer.getvalue(), "image/png")


def film_address(path: Path) -> str:
    """An mp4 as a data address."""
    return _address(path.read_bytes(), "video/mp4")


def _address(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
