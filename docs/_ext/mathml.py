"""Write equations as MathML while building: pages need no script and no network.

The font that they are set in comes along (`_static/style.css`).
"""

import re

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.errors import SphinxError
from sphinx.writers.html5 import HTML5Translator

_REPAIRS = (
    (r'width="negativethinmathspace"', 'width="-0.167em"'),  # browsers know lengths only
    (r"<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>"),  # a relation, not an accent
    (r'<mo accent="true">&#x02015;</mo>', '<mo stretchy="true">&#x0203E;</mo>'),  # over all of it
    (r"<mo>(&#x02016;)</mo>", r'<mo fence="true" stretchy="false">\1</mo>'),  # of a norm
    (r"(&#x00028;</mo>)<mo>(&#x02212;)", r'\1<mo form="prefix">\2'),  # a sign, no difference
    (r"(<mi>(?:log|ln|exp|max|min)</mi>)(?!<mo|</)", r'\1<mspace width="0.167em"/>'),
)
"""What the converter writes -> what browsers show as meant."""


def to_mathml(equation: str, display: str = "inline") -> str:
    """Turn LaTeX into MathML.

    Args:
        equation: LaTeX.
        display: inline or block.

    Raises:
        SphinxError: a command that the converter does not know, which it would write out as it is.
    """
    mathml: str = convert(equation.strip(), display=display)
    if "\\" in mathml:
        command = mathml[mathml.index("\\") :].split("<")[0]
        raise SphinxError(f"the equation {equation.strip()!r} has the unknown command {command}")
    for written, meant in _REPAIRS:
        mathml = re.sub(written, meant, mathml)
    return mathml


def visit_inline(writer: HTML5Translator, node: nodes.math) -> None:
    """Write an equation within a line."""
    writer.body.append(to_mathml(node.astext()))
    raise nodes.SkipNode


def visit_block(writer: HTML5Translator, node: nodes.math_block) -> None:
    """Write an equation on a line of its own, which scrolls where the screen is narrow."""
    writer.body.append(f'<div class="equation">{to_mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer with Sphinx."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
