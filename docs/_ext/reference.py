"""Make the generated reference readable: short titles, field docstrings as they were written."""

import re
from typing import Any

from sphinx.application import Sphinx

_WRITTEN: dict[str, list[str]] = {}


def shorten_title(app: Sphinx, docname: str, source: list[str]) -> None:
    """Turn the title "worldmodels.memory.train module" into "memory.train"."""
    if docname.startswith("api"):
        title, _, rest = source[0].partition("\n")
        name = title.removesuffix(" module").removesuffix(" package")
        short = name.removeprefix("worldmodels.")
        source[0] = f"{short}\n{rest}"


def keep(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Remember a field's docstring before napoleon reads "one: two" as a type and a text."""
    if what == "attribute":
        _WRITTEN[name] = list(lines)


def escape(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keep an argument that is explained by one letter, "dreams: B.", from becoming a list."""
    lines[:] = [re.sub(r"^(\s+\w+: \w)\.", r"\1\\.", line) for line in lines]


def restore(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Put the field's docstring back."""
    if what == "attribute":
        lines[:] = _WRITTEN.pop(name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the four, three of them around napoleon, whose priority is 500."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("source-read", shorten_title)
    app.connect("autodoc-process-docstring", keep, priority=400)
    app.connect("autodoc-process-docstring", escape, priority=450)
    app.connect("autodoc-process-docstring", restore, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
