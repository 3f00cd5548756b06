"""What the whole site obeys: a short sidebar, short values, no path of the building machine."""

import tempfile
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.errors import SphinxError

ROOT = str(Path(__file__).parents[2])
_SHOWN = {f"{ROOT}/": "", ROOT: ".", f"{tempfile.gettempdir()}/": "<temporary folder>/"}
"""Beginnings of paths -> what the reference shows in their place."""


def leave_out_of_the_sidebar(app: Sphinx, doctree: nodes.document) -> None:
    """Entries of results are found from their table, not from the sidebar."""
    name = app.env.docname
    if name.startswith("results/entries/"):
        app.env.metadata[name]["orphan"] = True


def shorten_values(app: Sphinx, domain: str, kind: str, content: addnodes.desc_content) -> None:
    """Show a constant's path by its part inside the project, and no value that holds functions."""
    for value in list(content.parent.findall(addnodes.desc_annotation)):
        if "<function" in value.astext():
            value.parent.remove(value)
    for text in list(content.parent.findall(nodes.Text)):
        shown = str(text)
        for path, short in _SHOWN.items():
            shown = shown.replace(path, short)
        if shown != text:
            text.parent.replace(text, nodes.Text(shown))


def refuse_paths(app: Sphinx, page: str, _: str, context: dict[str, Any], tree: Any) -> None:
    """Stop where a page shows a path of this machine after all."""
    if f"{ROOT}/" in context.get("body", ""):
        raise SphinxError(f"the page {page} shows the folder of this checkout, {ROOT}")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the three."""
    app.connect("doctree-read", leave_out_of_the_sidebar)
    app.connect("object-description-transform", shorten_values)
    app.connect("html-page-context", refuse_paths)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
