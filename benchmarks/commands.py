"""Seconds that people wait for: `--help`, an evaluation, and films.

    python benchmarks/commands.py [--repeats 3] [--json FILE]

Each command runs in a process of its own, as a person would type it. Its CPU time counts that of
its workers, and the median of the repeats is printed. "Former" are the figures of the version of
28 November 2026 on a machine of the same kind. A film is compared with the seconds that it shows.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as iio
import tyro

from worldmodels.runs import machine, versions, write_json

FILM = "film.mp4"
COMMANDS = {
    "--help": ["--help"],
    "evaluate, 3 episodes": ["evaluate", "--agent", "car-racing", "--episodes", "3"],
    "film of reality": ["play", "--agent", "car-racing", "--video", FILM],
    "film of a dream": ["play", "--agent", "car-racing", "--dream", "--video", FILM],
}
FORMER = {"--help": 2.1, "evaluate, 3 episodes": 25.0}
"""Seconds of CPU time before."""


@dataclass(frozen=True)
class Args:
    """What to measure."""

    repeats: int = 3
    """measurements of each, of which the median counts"""
    json: Path | None = None
    """where to write the figures"""


def timed(arguments: list[str], folder: str) -> dict[str, float]:
    """Seconds of one command, by the clock and of CPU, and those that its film shows."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "worldmodels", *arguments]
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}  # the code of this checkout
    done = subprocess.run(
        command, cwd=folder, env=here, capture_output=True, text=True, check=False
    )
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found = {"seconds": seconds, "cpu_seconds": cpu}
    if FILM in arguments:
        found["shown_seconds"] = float(iio.immeta(Path(folder) / FILM)["duration"])
    return found


def main(args: Args) -> None:
    """Measure and print."""
    print(machine())
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        timed(["--help"], folder)  # reads everything from the disk once
        for name, arguments in COMMANDS.items():
            rounds = [timed(arguments, folder) for _ in range(args.repeats)]
            figures[name] = {
                key: statistics.median(one[key] for one in rounds) for key in rounds[0]
            }
            if name in FORMER:
                figures[name]["former_cpu_seconds"] = FORMER[name]
    print(f"{'':22} {'seconds':>8} {'of CPU':>8} {'former':>8} {'shown':>8} {'of shown':>8}")
    for name, found in figures.items():
        former = f"{FORMER[name]:8.1f}" if name in FORMER else " " * 8
        line = f"{name:22} {found['seconds']:8.2f} {found['cpu_seconds']:8.2f} {former}"
        if "shown_seconds" in found:
            shown = found["shown_seconds"]
            line += f" {shown:8.1f} {found['seconds'] / shown:8.0%}"
        print(line)
    if args.json is not None:
        write_json(args.json, {"machine": machine(), "versions": versions(), "commands": figures})


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
