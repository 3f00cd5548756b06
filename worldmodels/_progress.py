"""Progress for a terminal (a bar) and for a log file (a line now and then).

Part of `worldmodels.runs`; import it from there.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterator
from typing import Generic, Self, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")

LOG_SECONDS = 5.0
"""Without a terminal, at most one line in this many seconds."""


class progress(Generic[T]):
    """Progress over a collection, with rate and time left: a bar on a terminal, else sparse lines.

    Use it as an iterator (`for item in progress(items, "text")`) or, where work completes out of
    order, as a context (`with progress(range(9), "text") as bar: bar.advance(3, loss=0.1)`).
    """

    def __init__(self, work: Collection[T], description: str, unit: str = "it") -> None:
        """Say what is done to the ``work``, and what is counted ("frames" gives frames/s)."""
        self._work, self._total = work, len(work)
        self._description, self._unit = description, unit
        self._done = self._printed = 0
        self._note = ""
        self._start = self._logged = time.monotonic()
        self._bar: Progress | None = None

    def __iter__(self) -> Iterator[T]:
        """Yield the items of the work, advancing by one after each."""
        with self:
            for item in self._work:
                yield item
                self.advance()

    def __enter__(self) -> Self:
        """Start the clock and show the bar."""
        self._start = self._logged = time.monotonic()
        if sys.stdout.isatty():
            self._bar = _new_bar(self._unit)
            self._task = self._bar.add_task(self._description, total=self._total, rate="", note="")
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close the bar; without a terminal, print the closing line unless it was quick."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        elif kind is None and self._done > self._printed:
            if time.monotonic() - self._start >= LOG_SECONDS:
                self._print_line()

    def advance(self, units: int = 1, **shown: float | int | str) -> None:
        """Count finished units and show figures beside the bar (`loss=0.1`)."""
        self._done += units
        if shown:
            self._note = "  ".join(f"{key} {_short(value)}" for key, value in shown.items())
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, advance=units, rate=self._rate(now)[1], note=self._note)
        elif now - self._logged >= LOG_SECONDS:
            self._logged = now
            self._print_line()

    def _rate(self, now: float) -> tuple[float, str]:
        rate = self._done / max(now - self._start, 1e-9)
        return rate, f"{_short(rate)} {self._unit}/s"

    def _print_line(self) -> None:
        self._printed, now = self._done, time.monotonic()
        rate, said = self._rate(now)
        of_all = f"/{self._total} ({self._done / self._total:.0%})" if self._total else ""
        left = f"{_clock(now - self._start)} taken"
        if 0 < self._done < self._total:
            left = f"{_clock((self._total - self._done) / rate)} left"
        parts = [f"{self._description}: {self._done}{of_all}", said, left, self._note]
        print(", ".join(filter(None, parts)), flush=True)


def _new_bar(unit: str) -> Progress:
    """Build the terminal's bar: text, bar, percentage, rate, time left, figures."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TextColumn(unit, style="dim", markup=False),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("[dim]left[/]"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
        console=Console(file=sys.stdout),
    )


def _short(value: float | int | str) -> str:
    """Format a figure for people: four significant digits, thousands separated."""
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _clock(seconds: float) -> str:
    """Format a duration as 12s, 3m04s or 2h05m."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"
