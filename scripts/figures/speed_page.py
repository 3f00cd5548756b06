"""The page of speed, docs/results/speed.md, from the committed results of the benchmarks.

It has one table for each question, made from `benchmarks/results/speed`. Its sentences quote no
figure that these files do not hold, but for what was timed by hand, which the page says.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2

from scripts.figures.style import ROOT

FOLDER, PAGE = "benchmarks/results/speed", "docs/results/speed.md"
TEMPLATE = "scripts/figures/speed.md.j2"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; its first column is text."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def environment(found: dict[str, Any]) -> str:
    """Frames a second of our CarRacing, Gymnasium's and EnvPool's, and of physics alone."""
    names = {
        "stock": "Gymnasium's CarRacing-v3",
        "EnvPool": "EnvPool's CarRacing-v3",
        "ours": "`worldmodels/CarRacing-v3`",
        "physics": "the limit: its physics alone",
    }

    def row(key: str, name: str) -> list[str]:
        cells = [name]
        for cores in ("one core", "two cores"):
            rate = found["rates"][f"{key}, {cores}"]["per_second"]
            ratio = found["rates"][f"ours, {cores}"]["per_second"] / rate
            cells += [f"{rate:,.0f}", "" if key == "ours" else f"{ratio:.2g}"]
        return cells

    head = ("steps a second", "one core", "ours is times that", "two cores", "ours is times that")
    return table(head, (row(*pair) for pair in names.items()))


def parity(found: dict[str, Any]) -> str:
    """Whole episodes of ours beside stock's."""

    def row(kind: str) -> list[str]:
        one = found[kind]
        theirs, ours = one["mean_return"]
        return [
            kind,
            f"{one['identical_episodes']} of {one['episodes']}",
            f"{one['steps']:,}",
            f"{one['mean_error']:.3f}",
            f"{one['worst_frame_error']:.3f}",
            f"{theirs:.2f} / {ours:.2f}",
        ]

    return table(
        (
            "20 episodes each",
            "identical rewards, ends and infos",
            "steps",
            "mean error of pixels (of 255)",
            "worst frame",
            "mean return, stock / ours",
        ),
        map(row, ("driven", "random")),
    )


def dream(found: dict[str, Any]) -> str:
    """Dream steps a second, and their share of the bare products."""
    names = {
        "kernels bfloat16": "compiled kernels, bfloat16",
        "kernels float32": "compiled kernels, float32",
        "torch bfloat16": "torch, bfloat16",
        "torch float32": "torch, float32",
        "products bfloat16": "the limit: the two bfloat16 products of a step, nothing else",
    }
    limit = found["rates"]["products bfloat16"][0]
    rows = (
        [name, f"{found['rates'][key][0]:,.0f}", f"{found['rates'][key][0] / limit:.0%}"]
        for key, name in names.items()
    )
    return table(("", "steps a second", "of the limit"), rows)


def cores(found: dict[str, Any]) -> str:
    """Dreams with several memories on one thread, two threads and two processes."""
    scaled: dict[str, float] = found["scaling"]
    members = sorted({name.split(", ")[0] for name in scaled})
    ways = list(dict.fromkeys(name.split(", ")[1] for name in scaled))

    def row(memories: str) -> list[str]:
        rates = [scaled[f"{memories}, {way}"] for way in ways]
        own = [f"{rate:,.0f} ({rate / rates[0]:.2f})" for rate in rates[1:]]
        return [memories.replace("1 memories", "1 memory"), f"{rates[0]:,.0f}", *own]

    head = ["steps a second (times one thread)", *ways[:1]]
    return table([*head, *(f"{way}" for way in ways[1:])], map(row, members))


def peers(found: dict[str, Any]) -> str:
    """Training of V and M beside ctallec/world-models and the machine's products."""
    trainings = list(dict.fromkeys(name.split(", ")[0] for name in found if ", " in name))
    units = {"V": "images", "M": "steps"}

    def row(training: str) -> list[str]:
        kind, size = training.split()
        name = f"V, {size} frames" if kind == "V" else f"M, {size.replace('x', ' x ')}"
        cells = [f"{name} ({units[kind]})"]
        for threads in (1, 2):
            one = found[f"{training}, {threads} threads"]
            theirs, ours = (statistics.median(one[key]) for key in ("theirs", "ours"))
            cells += [f"{theirs:,.0f}", f"{ours:,.0f}"]
            cells += [f"{one['ratio']:.2f}", f"{one['of_the_product']:.0%}"]
        return cells

    each = ("theirs, {}", "ours", "ratio", "of the limit")
    head = ["a second", *(cell.format(n) for n in ("one thread", "two threads") for cell in each)]
    return table(head, map(row, trainings))


def busy(found: dict[str, Any]) -> str:
    """Trainings alone and beside loops, with torch's threads and with parts."""
    trainings = list(dict.fromkeys(name.split(", ")[0] for name in found if ", " in name))
    loops = sorted({int(name.split(", ")[2].split()[0]) for name in found if ", " in name})
    words = {
        "V": "V, {} frames",
        "M": "M, {}",
        "GAN": "GAN, {} pictures",
        "DrSAE": "DrSAE, {} samples",
    }

    def row(training: str) -> list[str]:
        kind, size = training.split()
        cells = [words[kind].format(size.replace("x", " x "))]
        for way in ("former", "parts"):
            for number in loops:
                one = found[f"{training}, {way}, {number} loops"]
                share = "" if number == 0 else f" ({one['of_the_fair_share']:.0%})"
                cells.append(f"{statistics.median(one['rates']):,.0f}{share}")
        return cells

    beside = ["alone", *(f"beside {n}" for n in loops[1:])]
    head = ["a second (of the fair share)", *(f"torch's threads, {where}" for where in beside)]
    return table([*head, *(f"now, {where}" for where in beside)], map(row, trainings))


def collection(found: dict[str, Any]) -> str:
    """Collection as `quick` has it, by one call and by a call for each behaviour."""
    names = {
        ("before", "agents"): "by agents, a call for each behaviour",
        ("after", "agents"): "by agents, one call",
        ("before", "random"): "at random, a call for each behaviour",
        ("after", "random"): "at random, one call",
    }

    def row(way: tuple[str, str]) -> list[str]:
        one, two = (found[way[0]][workers][way[1]] for workers in "12")
        speed, both = one["frames_per_second"], two["frames_per_second"]
        return [
            names[way],
            f"{speed:,.0f}",
            f"{both:,.0f}",
            f"{both / speed:.2f}",
            f"{two['busy']:.0%}",
        ]

    head = ("frames a second", "one worker", "two workers", "ratio", "time that two worked")
    return table(head, map(row, names))


def memory(found: dict[str, Any]) -> str:
    """Peak memory of the parts of learning."""
    limited = found["limited"]
    large, limit = limited["raw_store_mib"] / 1024, limited["limit_mib"] / 1024
    names = {
        "collection": "collection, its workers not counted",
        "vision": "V, and encoding",
        "memory": "M",
        "limited": f"V and M on {large:.1f} GiB of frames, {limit:.1f} GiB allowed",
    }
    rows = ([name, f"{found[key]['peak_memory_mib']:,.0f}"] for key, name in names.items())
    return table(("", "peak, MiB"), rows)


def learning(found: dict[str, Any]) -> str:
    """Rates of the parts of learning, with all cores."""
    rows = [
        ["collection into the store, frames", found["collection"]["frames_per_second"]],
        ["V, images", found["vision"]["images_per_second"]],
        ["encoding, images", found["vision"]["encoded_per_second"]],
        ["M in float32, steps", found["memory"]["steps_per_second"]],
    ]
    return table(("", "a second"), ([name, f"{rate:,.0f}"] for name, rate in rows))


def commands(found: dict[str, Any]) -> str:
    """Seconds of commands, by the clock and of CPU time."""
    names = {"--help": "`worldmodels --help`", "evaluate, 3 episodes": "`evaluate --episodes 3`"}

    def row(name: str, one: dict[str, float]) -> list[str]:
        shown = one.get("shown_seconds")
        return [
            names.get(name, name),
            f"{one['seconds']:.1f}",
            f"{one['cpu_seconds']:.1f}",
            f"{one['former_cpu_seconds']:.1f}" if "former_cpu_seconds" in one else "",
            "" if shown is None else f"{shown:.1f} ({one['seconds'] / shown:.0%})",
        ]

    head = ("seconds", "by the clock", "of CPU", "of CPU, formerly", "that the film shows")
    return table(head, (row(*pair) for pair in found["commands"].items()))


def demo(found: dict[str, Any]) -> str:
    """Minutes of `make demo`, and of its parts."""
    parts = {name: seconds / 60 for name, seconds in found["stages"].items()}
    rest = found["seconds"] / 60 - sum(parts.values())
    rows = [["all", found["seconds"] / 60], ["installation, check and report", rest]]
    rows += sorted(([name, spent] for name, spent in parts.items()), key=lambda row: -row[1])
    return table(("", "minutes"), ([name, f"{spent:.1f}"] for name, spent in rows))


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "environment": ("env", environment),
    "parity": ("parity", parity),
    "dream": ("dream", dream),
    "cores": ("dream", cores),
    "peers": ("peers", peers),
    "busy": ("busy", busy),
    "collection": ("collection", collection),
    "learning": ("training", learning),
    "memory": ("training", memory),
    "commands": ("commands", commands),
    "demo": ("demo", demo),
}
"""Name in the template -> results, and what makes the table."""


def page(root: Path = ROOT) -> str:
    """The page of a checkout."""

    def results(name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((root / FOLDER / f"{name}.json").read_text("utf-8"))
        return found

    known: dict[str, Any] = {name: make(results(file)) for name, (file, make) in TABLES.items()}
    known |= {f"{name}_json": results(name) for name in {file for file, _ in TABLES.values()}}
    pixels = [
        statistics.mean(column) for column in zip(*results("parity")["pixel_driver"], strict=True)
    ]
    known["pixels"] = [f"{score:.0f}" for score in pixels]
    made = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return made.from_string((root / TEMPLATE).read_text("utf-8")).render(**known)
