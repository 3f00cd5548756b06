"""The documents' equations: all of them can be shown."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("latex2mathml")
sphinx_errors = pytest.importorskip("sphinx.errors")

DOCS = Path(__file__).parents[1] / "docs"
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
EQUATION = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", re.DOTALL)


@pytest.fixture(scope="module")
def to_mathml() -> Callable[[str], str]:
    spec = importlib.util.spec_from_file_location("mathml", DOCS / "_ext" / "mathml.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    convert: Callable[[str], str] = module.to_mathml
    return convert


def test_every_equation_has_known_commands_only(to_mathml: Callable[[str], str]) -> None:
    count = 0
    for page in DOCS.rglob("*.md"):
        for block, inline in EQUATION.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
            assert to_mathml(block or inline).startswith("<math")
            count += 1
    assert count > 100


def test_an_unknown_command_stops_the_build(to_mathml: Callable[[str], str]) -> None:
    with pytest.raises(sphinx_errors.SphinxError, match=r"unknown command \\arg"):
        to_mathml(r"x = \arg\max_a f(a)")
