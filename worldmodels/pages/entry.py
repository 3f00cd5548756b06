"""A finished run as an entry of docs/results: its files, and a page whose figures are theirs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worldmodels.metrics import read_lines
from worldmodels.pages.data import Evaluation, Ledger, Settings, read_part
from worldmodels.protocols import UserError
from worldmodels.runs import atomic_write, read_json
from worldmodels.tasks import named

FILES = ("config.json", "frames.json", "evaluation.json")
METRICS, RANDOM = "metrics.jsonl", "evaluation_random.json"
KEPT = (
    "stage",
    "collection",
    "selection",
    "final",
    "residual_selection",
    "committee_selection",
    "memory_calibration",
)


def enter(run: Path, page: Path, folder: Path, title: str, commit: str, notes: str = "") -> Path:
    """Make an entry of a run; its page.

    Args:
        run: folder of a run whose driver was tested.
        page: Markdown file to write.
        folder: for the run's files; others in it are left alone.
        title: of the page.
        commit: at which the run was made.
        notes: Markdown for the end of the page: what the figures mean.

    Raises:
        UserError: the run is not finished.
    """
    missing = [file for file in (*FILES, METRICS) if not (run / file).is_file()]
    if missing:
        raise UserError(f"{run} has no {', '.join(missing)}; an entry needs a run that was tested")
    text = readme(run, title, commit) + (f"\n{notes}" if notes else "")
    for file in (*FILES, RANDOM):
        if (run / file).is_file():
            atomic_write(folder / file, (run / file).read_bytes())
    kept = [row for row in read_lines(run / METRICS) if row["stage"] in KEPT]
    atomic_write(folder / METRICS, "".join(json.dumps(row) + "\n" for row in kept))
    atomic_write(page, text)
    return page


def readme(run: Path, title: str, commit: str) -> str:
    """The entry's text, as far as figures can write it."""
    config = read_part(run / "config.json", Settings)
    tested = read_part(run / "evaluation.json", Evaluation)
    totals = read_part(run / "frames.json", Ledger)["totals"]
    rows = read_lines(run / METRICS)
    cfg, machine = config["config"], config["machine"]
    ledger = [f"| {kind} | {totals[kind]:,} |" for kind in ("collection", "selection", "test")]
    versions = ", ".join(
        f"{package} {config['versions'][package]}"
        for package in ("worldmodels", "torch", "gymnasium", "cma", "python")
    )
    lines = [
        f"# {title}: {tested['mean']:.0f}",
        "",
        f"**Claim.** {claim(tested, run)}",
        "",
        f"**Command**, at commit {commit}:",
        "",
        "```text",
        f"worldmodels run --preset {cfg['preset']} --seed {cfg['seed']} --out runs/{cfg['preset']}",
        "```",
        "",
        f"**Seeds.** Training run of seed {cfg['seed']}. Training tracks below 400,000, selection "
        f"from 500,000, test {cfg['test']['seed']:,} to "
        f"{cfg['test']['seed'] + cfg['test']['episodes'] - 1:,}, driven once.",
        "",
        "**Ledger**, in steps of the environment, held actions counted in full:",
        "",
        "| | real frames |",
        "|---|---|",
        *ledger,
        "",
        *rounds(rows),
        "",
        *residual(rows),
        *committee(rows),
        f"**Time** on {machine['cores']} cores ({machine['cpu']}, {machine['memory_gib']:.0f} "
        f"GiB){' and ' + machine['gpu'] if 'gpu' in machine else ''}: {minutes(rows)}.",
        "",
        f"**Versions.** {versions}; the rest is in `config.json`.",
    ]
    return "\n".join(lines) + "\n"


def claim(tested: Mapping[str, Any], run: Path) -> str:
    """The test in one paragraph."""
    returns = np.array([episode["return"] for episode in tested["episodes"]])
    lengths = np.array([episode["length"] for episode in tested["episodes"]])
    task = named(None, tested["env"])
    counts = ""
    if task.solved is not None:
        counts += f", {(returns >= task.solved).sum()} at {task.solved:.0f} or more"
    if task.lost is not None:
        counts += f", {(returns < task.lost).sum()} below {task.lost:.0f}"
    if task.words.finished is not None:
        counts += f", {tested['laps_finished']} {task.words.finished[1]}"
    text = (
        f"{_driver(tested)} in the dream only, on data that no expert made, has a mean "
        f"return of **{tested['mean']:.0f}** over {len(returns)} test {task.words.episode}s of "
        f"{tested['env']} (95% interval {tested['ci95'][0]:.0f} to {tested['ci95'][1]:.0f}, "
        f"standard deviation {tested['std']:.0f}, median {tested['median']:.0f}, interquartile "
        f"mean {tested['iqm']:.0f}, tenth percentile {tested['p10']:.0f}{counts}, "
        f"{lengths.mean():.0f} frames per episode)."
    )
    random = run / RANDOM
    if random.is_file():
        text += f" A random policy scores {read_json(random)['mean']:.0f} on the same tracks."
    return text


def _driver(tested: Mapping[str, Any]) -> str:
    """Who drives, and how its parameters were found."""
    if tested["agent"].endswith("(committee)"):
        return "An ensemble of one run's agents, each of which was trained"
    if tested["agent"].endswith("(residual)"):
        return "An agent whose controller was evolved, and whose residual was learnt,"
    return "An agent whose controller was evolved"


def residual(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What selection said of the residual, where there was one."""
    found = [row for row in rows if row["stage"] == "residual_selection"]
    if not found:
        return []
    row = found[-1]
    return [
        f"**Residual**: {row['real_mean']:.0f} on {len(row['real_returns'])} selection tracks that "
        f"chose nothing before, C alone {row['controller_mean']:.0f}: "
        f"{'kept' if row['kept'] else 'not kept'}.",
        "",
    ]


def committee(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What selection said of the committees, where any were tried."""
    found = [row for row in rows if row["stage"] == "committee_selection"]
    if not found:
        return []
    tried = ", ".join(
        f"with iteration {' and '.join(map(str, row['rounds']))} {row['real_mean']:.0f}"
        f"{' (kept)' if row['kept'] else ''}"
        for row in found
    )
    return [
        f"**Ensemble**: on {len(found[0]['real_returns'])} selection tracks that chose nothing "
        f"before, the agent alone {found[0]['alone_mean']:.0f}, {tried}.",
        "",
    ]


def rounds(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every checkpoint's dream and real return, a row per iteration."""
    found = [row for row in rows if row["stage"] == "selection"]
    generations = sorted({row["generation"] for row in found})
    header = " | ".join(f"generation {g}" for g in generations)
    lines = [
        "**Iterations**: return in the dream / mean over the selection tracks.",
        "",
        f"| iteration | tracks | {header} |",
        "|---|---|" + "---|" * len(generations),
    ]
    for number in sorted({row["iteration"] for row in found}):
        mine = {row["generation"]: row for row in found if row["iteration"] == number}
        cells = [
            f"{row['dream_return']:.0f} / {row['real_mean']:.0f}"
            for row in (mine[g] for g in generations)
        ]
        episodes = next(iter(mine.values()))["episodes"]
        lines.append(f"| {number} | {episodes} | {' | '.join(cells)} |")
    return lines


def minutes(rows: Sequence[Mapping[str, Any]]) -> str:
    """Minutes of the whole and of each stage; a stage that was repeated counts each time."""
    spent: dict[str, float] = {}
    for row in rows:
        if row["stage"] == "stage":
            spent[row["name"]] = spent.get(row["name"], 0.0) + row["seconds"] / 60
    test = spent.pop("test", 0.0)
    parts = ", ".join(f"{name} {value:.1f}" for name, value in spent.items())
    return f"{sum(spent.values()):.0f} minutes ({parts}), and {test:.0f} for the test"
