"""Numbers as a reader wants them: counts with commas, seconds as minutes, a real minus sign."""

from __future__ import annotations

import math

MISSING = "–"
_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def number(value: object) -> float | None:
    """Return value as a finite float, or None where it is missing, not a number or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def score(value: object, digits: int | None = None) -> str:
    """Format a return: rounded, with a true minus sign; below 10 with two digits that say more."""
    found = number(value)
    if found is None:
        return MISSING
    text = f"{found:,.{digits or 0}f}"
    if digits is None and abs(found) < 10:
        text = f"{found:.2f}".rstrip("0").rstrip(".")
    if not text.strip("-0.,"):
        text = text.lstrip("-")  # no negative zero
    return text.replace("-", "−")


def one_return(value: object) -> str:
    """Format a return without an interval: to one digit after the point, to three below 10."""
    found = number(value)
    return MISSING if found is None else plain(found, 3 if 0 < abs(found) < 10 else 1)


def plain(value: float, digits: int = 0) -> str:
    """Format a number for text that is searched and compared: no commas, an ASCII minus."""
    return f"{value:.{digits}f}"


def decimals(error: float | None) -> int:
    """Digits after the point that a value of this error has.

    The error keeps one digit, two where the first is 1 or 2.
    """
    if error is None or not math.isfinite(error) or error <= 0:
        return 0
    size = math.floor(math.log10(error))
    return max(0, (1 if error / 10**size < 2.95 else 0) - size)


def interval(value: float, low: float, high: float, unit: str = "") -> str:
    """Format a value, with its unit, and its interval, to the digits that the interval allows."""
    digits = decimals((high - low) / 2)
    return f"{score(value, digits)}{unit} ({score(low, digits)} to {score(high, digits)})"


def spread(value: float, std: float | None) -> str:
    """Format a mean and its standard deviation; without one, or at 0, to three digits."""
    if not std:
        return figure(value) if std is None else f"{figure(value)} ± 0"
    digits = decimals(std)
    return f"{score(value, digits)} ± {score(std, digits)}"


def figure(value: object) -> str:
    """Format a figure of unknown error: a count whole, any other number to three digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return count(value)
    found = number(value)
    if found is None:
        return MISSING if value is None or isinstance(value, float) else str(value)
    if found and not 1e-4 <= abs(found) < 1e7:
        return power(found)
    rounded = abs(float(f"{found:.2e}"))  # 0.9996 is 1.00
    return score(found, max(0, 2 - math.floor(math.log10(rounded))) if rounded else 0)


def power(value: float) -> str:
    """Format a number to three digits; far from 1 as a product with a power of ten."""
    size = abs(value)
    if not size or 1e-3 <= size < 1e4:
        return f"{value:g}".replace("-", "−")
    exponent = math.floor(math.log10(size) + 1e-9)
    factor = f"{value / 10**exponent:.3g}".replace("-", "−")
    raised = "10" + str(exponent).translate(_RAISED)
    return raised if factor == "1" else f"{factor}·{raised}"


def short(value: float) -> str:
    """Format a place on an axis of counts: 500, 20k, 1.5M."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:g}"


def count(value: object) -> str:
    """Format a count with commas."""
    found = number(value)
    return MISSING if found is None else f"{int(found):,}"


def cores(number: int) -> str:
    """A number of cores, such as "2 cores"."""
    return f"{number} core{'s' if number != 1 else ''}"


def large(value: float) -> str:
    """Format a count in words where it is too long to grasp: 55.3 million."""
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if value >= size:
            return f"{value / size:.1f} {word}"
    return count(value)


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
    large, small = ("min", "s") if whole < 3600 else ("h", "min")
    first, second = divmod(whole if whole < 3600 else round(whole / 60), 60)
    return f"{first} {large} {second} {small}" if second else f"{first} {large}"


def about(seconds: float) -> str:
    """Format an estimated time: 50 s, 4 min or 2.5 h."""
    if seconds < 57.5:
        return f"{max(5, 5 * round(seconds / 5))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{seconds / 3600:.1f} h"


def percent(value: object) -> str:
    """Format a fraction as a percentage."""
    found = number(value)
    return MISSING if found is None else f"{100 * found:.0f}%"
