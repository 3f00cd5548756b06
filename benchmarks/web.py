"""The dream player in a headless Chromium: size, first frame, frames a second, equality.

    python benchmarks/web.py [--agents car-racing runs/quick] [--json FILE]

Frames a second count C's action, M's step and V's picture, all on the page's one thread; with
``--throttle 4`` the browser slows that thread down to a quarter, as on a phone.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from tests.browser import Page, browser
from tests.web.test_player import in_python, noise
from worldmodels.policies.opening import open_member
from worldmodels.runs import machine, write_json
from worldmodels.web.page import export
from worldmodels.web.weights import chosen_starts


@dataclass(frozen=True)
class Args:
    """What to measure."""

    agents: tuple[str, ...] = ("car-racing",)
    """folders, runs, or names of bundled agents"""
    rounds: int = 5
    """loads of the page, and measurements of its speed"""
    throttle: int = 4
    """how many times slower the browser is made for the second speed"""
    real: bool = True
    """record a real episode, which needs the environment"""
    json: Path | None = None
    """where to write the figures"""
    picture: Path | None = None
    """where to write a PNG of the page, ten seconds into the dream, for the documents"""


def equality(tab: Page, agent: str) -> dict[str, float]:
    """Largest differences from Python over 50 steps from every start, actions given or C's."""
    member = open_member(agent)
    assert member.starts is not None
    given, free, pixels = list[float](), list[float](), list[int]()
    tab.js("dreamPlayer.player.pause(true)")
    for start in range(len(chosen_starts(len(member.starts)))):
        uniform, normal = noise(member, start)
        own, _ = in_python(member, start, uniform, normal)
        actions = [step["action"] for step in own]
        expected, picture = in_python(member, start, uniform, normal, actions)
        words = ", ".join(json.dumps(x) for x in (start, uniform.tolist(), normal.tolist()))
        found = tab.js(f"dreamPlayer.follow({words}, {json.dumps(actions)})")
        given.append(distance(found["steps"], expected))
        painted = np.array(found["picture"]).reshape(64, 64, 4)[..., :3]
        pixels.append(int(np.abs(painted - picture.astype(int)).max()))
        free.append(distance(tab.js(f"dreamPlayer.follow({words})")["steps"], own))
    return {
        "z, given actions": max(given),
        "z, C acts, median start": statistics.median(free),
        "picture, levels of 255": max(pixels),
    }


def distance(steps: list[dict[str, Any]], others: list[dict[str, Any]]) -> float:
    """Largest difference of any number of z."""
    z, other = (np.array([step["z"] for step in each]) for each in (steps, others))
    return float(np.abs(z - other).max())


def measure(agent: str, args: Args) -> dict[str, Any]:
    """All figures of one agent's page."""
    with tempfile.TemporaryDirectory() as folder, browser() as tab:
        page = export(agent, Path(folder) / "dream.html", real=args.real)
        firsts, speeds, slow = list[float](), list[float](), list[float]()
        for _ in range(args.rounds):
            tab.open(page)
            tab.wait("window.dreamPlayer && dreamPlayer.whole")
            firsts.append(tab.js("performance.getEntriesByName('first-frame')[0].startTime"))
            speeds.append(tab.js("dreamPlayer.speed(1000)"))
            tab.call("Emulation.setCPUThrottlingRate", rate=args.throttle)
            slow.append(tab.js("dreamPlayer.speed(1000)"))
            tab.call("Emulation.setCPUThrottlingRate", rate=1)
        assert not tab.problems, tab.problems
        if args.picture is not None:
            tab.open(page, height=960)
            tab.wait("window.dreamPlayer && dreamPlayer.dream.steps > 100")
            tab.screenshot(args.picture)
        return {
            "MB": page.stat().st_size / 1e6,
            "first frame, ms (median, worst)": (statistics.median(firsts), max(firsts)),
            "frames/s (median, worst)": (statistics.median(speeds), min(speeds)),
            f"frames/s, {args.throttle} times slower": statistics.median(slow),
            "difference from Python": equality(tab, agent),
        }


def main() -> None:
    """Measure and print."""
    args = tyro.cli(Args, description=__doc__)
    figures = {agent: measure(agent, args) for agent in args.agents}
    for agent, found in figures.items():
        print(agent)
        for name, value in found.items():
            print(f"  {name:34} {value}")
    if args.json is not None:
        write_json(args.json, {"machine": machine(), "figures": figures})


if __name__ == "__main__":
    main()
