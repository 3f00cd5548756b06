"""Numbers as a reader wants them: counts with commas, seconds as minutes, a real minus sign."""

from __future__ import annotations

from typing import Any

import jinja2

from worldmodels.report.data import number

MISSING = "–"


def score(value: object, digits: int = 0) -> str:
    """Format a return: rounded, with a true minus sign."""
    found = number(value)
    if found is None:
        return MISSING
    text = f"{found:,.{digits}f}"
    if not text.strip("-0.,"):
        text = text.lstrip("-")  # no negative zero
    return text.replace("-", "−")


def count(value: object) -> str:
    """Format a count with commas."""
    found = number(value)
    return MISSING if found is None else f"{int(found):,}"


def large(value: float) -> str:
    """Format a count in words where it is too long to grasp: 55.3 million."""
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if value >= size:
            return f"{value / size:.1f} {word}"
    return f"{int(value):,}"


def duration(seconds: object) -> str:
    """Format seconds as hours, minutes and seconds, two units at most."""
    found = number(seconds)
    if found is None:
        return MISSING
    if 0 < found < 9.95:
        return f"{found:.1f} s"
    whole = round(found)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    minutes = round(whole / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"


def percent(value: object) -> str:
    """Format a share as a percentage."""
    found = number(value)
    return MISSING if found is None else f"{100 * found:.0f}%"


def install(environment: jinja2.Environment) -> None:
    """Make the formats usable as filters in templates."""
    filters: dict[str, Any] = {
        "score": score,
        "count": count,
        "duration": duration,
        "percent": percent,
    }
    environment.filters.update(filters)
