"""The documents' equations: all of them can be shown, in the font that comes along."""

from __future__ import annotations

import html
import importlib.util
import pkgutil
import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("latex2mathml")
ttlib = pytest.importorskip("fontTools.ttLib")  # matplotlib brings it
sphinx_errors = pytest.importorskip("sphinx.errors")
addnodes = pytest.importorskip("sphinx.addnodes")
nodes = pytest.importorskip("docutils.nodes")

DOCS = Path(__file__).parents[1] / "docs"
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
EQUATION = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", re.DOTALL)


def load(name: str) -> ModuleType:
    """An extension of docs/_ext."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / "_ext" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def to_mathml() -> Callable[[str], str]:
    convert: Callable[[str], str] = load("mathml").to_mathml
    return convert


def equations() -> Iterator[str]:
    for page in DOCS.rglob("*.md"):
        for block, inline in EQUATION.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
            yield block or inline


def test_every_equation_has_known_commands_only(to_mathml: Callable[[str], str]) -> None:
    found = [to_mathml(equation) for equation in equations()]
    assert len(found) > 100
    assert all(written.startswith("<math") for written in found)


def test_every_space_has_a_length_that_browsers_know(to_mathml: Callable[[str], str]) -> None:
    for equation in equations():
        for width in re.findall(r'<mspace width="([^"]*)"', to_mathml(equation)):
            assert re.fullmatch(r"-?\d+(\.\d+)?em", width), equation


def test_the_font_that_comes_along_has_every_character(to_mathml: Callable[[str], str]) -> None:
    font = ttlib.TTFont(DOCS / "_static/fonts/STIXTwoMath.woff")
    assert "MATH" in font  # how parentheses grow, where indices sit
    known = font.getBestCmap()
    for equation in equations():
        shown = html.unescape(re.sub(r"<[^>]+>", "", to_mathml(equation)))
        for character in unicodedata.normalize("NFC", shown):
            assert ord(character) in known or character.isspace(), (character, equation)
    italic = [0x1D434, 0x1D467, 0x1D6FC, 0x1D71B]  # what browsers make of single letters
    assert all(letter in known for letter in italic)


def test_norms_do_not_grow_and_a_sign_is_close(to_mathml: Callable[[str], str]) -> None:
    norm = to_mathml(r"\lVert x\rVert^2")
    assert norm.count('<mo fence="true" stretchy="false">&#x02016;</mo>') == 2
    assert '(</mo><mo form="prefix">\N{MINUS SIGN}' in html.unescape(to_mathml("f(-x)"))


def test_an_unknown_command_stops_the_build(to_mathml: Callable[[str], str]) -> None:
    with pytest.raises(sphinx_errors.SphinxError, match=r"unknown command \\arg"):
        to_mathml(r"x = \arg\max_a f(a)")


def test_a_path_of_the_machine_is_shortened_or_refused() -> None:
    site = load("site_rules")
    content = addnodes.desc_content()
    text = nodes.Text(f" = PosixPath('{site.ROOT}/worldmodels/agents')")
    addnodes.desc("", addnodes.desc_signature("", "", text), content)
    made = addnodes.desc_annotation("", "", nodes.Text(" = {'a': <function <lambda>>}"))
    content.parent.insert(1, made)
    site.shorten_values(None, "py", "data", content)
    assert content.parent.astext().strip() == "= PosixPath('worldmodels/agents')"
    site.refuse_paths(None, "page", "", {"body": "worldmodels/agents"}, None)
    with pytest.raises(sphinx_errors.SphinxError, match="the page page shows the folder"):
        site.refuse_paths(None, "page", "", {"body": f"<p>{site.ROOT}/docs</p>"}, None)


def test_every_name_that_a_page_links_exists() -> None:
    found = set()
    for page in [*DOCS.glob("*.md"), *DOCS.glob("tasks/*.md"), *DOCS.glob("results/*.md")]:
        text = page.read_text(encoding="utf-8")
        found |= set(re.findall(r"\{py:\w+\}`(?:[^`<]*<)?~?([\w.]+)>?`", text))
    assert len(found) > 20
    for name in found:
        assert pkgutil.resolve_name(name) is not None, name
