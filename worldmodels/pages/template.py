"""The one template environment of all pages."""

from __future__ import annotations

import functools
from typing import Any

import jinja2

from worldmodels.pages import text


@functools.cache
def environment() -> jinja2.Environment:
    """Templates of this package, which escape every text and refuse names they do not know."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("worldmodels.pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text.install(made)
    return made


def render(name: str, **values: Any) -> str:
    """Fill a template."""
    return environment().get_template(name).render(**values)
