"""Tables of the page: drivers, episodes, checkpoints, iterations, settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worldmodels.metrics import Row
from worldmodels.pages.data import RunData, Score, iteration_of, latest, number
from worldmodels.pages.figures import final_selection
from worldmodels.pages.text import MISSING, count, decimals, percent, score
from worldmodels.tasks import Task

BEHAVIOURS = {
    "AR1": "random walk",
    "RandomController": "random controllers",
    "AgentNoise": "the driver, with noise",
}
"""Exploration policies, by the name of their config, in words."""


@dataclass(frozen=True)
class Table:
    """A table of texts; the first column names the row."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def drivers_table(data: RunData) -> Table | None:
    """Statistics of this agent and of the drivers it is compared with."""
    if data.evaluation is None:
        return None
    task, words = data.task, data.task.words
    head = [words.agent, f"{words.episode}s", "mean ± std", "95% interval", "median", "IQM", "p10"]
    if task.solved is not None:
        head.append(f"≥ {score(task.solved)}")
    if words.finished is not None:
        head.append(words.finished[1])
    rows = [_driver(one, task) for one in (data.evaluation, *data.others)]
    return Table(head, rows)


def digits(one: Score) -> int:
    """Digits after the point that the error of a score's mean allows."""
    half = (one.ci95[1] - one.ci95[0]) / 2 if one.ci95 else one.std / len(one.returns) ** 0.5
    return decimals(half)


def _driver(one: Score, task: Task) -> list[str]:
    d = digits(one)
    ends = f"{score(one.ci95[0], d)} to {score(one.ci95[1], d)}" if one.ci95 else MISSING
    row = [one.name, str(len(one.returns)), f"{score(one.mean, d)} ± {score(one.std, d)}", ends]
    row += [score(one.median, d), score(one.iqm, d), score(one.p10, d)]
    if task.solved is not None:
        row.append(percent(one.fraction_solved))
    if task.words.finished is not None:
        row.append(f"{sum(one.laps)} of {len(one.laps)}" if one.laps else MISSING)
    return row


def tracks_table(data: RunData) -> Table | None:
    """Every test episode, best first."""
    result = data.evaluation
    if result is None:
        return None
    order = sorted(range(len(result.returns)), key=lambda i: -result.returns[i])
    head, laps = ["seed", "return", "frames"], bool(result.laps)
    rows = [
        [str(result.seeds[i]), score(result.returns[i], 1), count(result.lengths[i])]
        + ([("yes" if result.laps[i] else "no")] if laps else [])
        for i in order
    ]
    finished = data.task.words.finished or ("finished",)
    return Table([*head, finished[0]] if laps else head, rows)


def selections(data: RunData) -> list[Row]:
    """Checkpoints of C that were driven in the real environment, oldest first.

    Every round selects one; where the finalists drove for it, only the winner's is called selected.
    """
    rows = [
        row
        for row in latest(data.rows("selection"), "generation")
        if number(row.get("real_mean")) is not None
    ]
    finals = [row["winner"] for row in data.rows("final") if "winner" in row]
    if not finals:
        return rows
    winner = finals[-1]
    return [
        {**row, "selected": bool(row.get("selected")) and iteration_of(row) == winner}
        for row in rows
    ]


def choices(rows: Sequence[Row]) -> Table | None:
    """What real validation chose, beside what the dream score alone would have chosen."""
    final = final_selection(rows)
    dreamt = [row for row in rows if number(row.get("dream_return")) is not None]
    if final is None or not dreamt:
        return None
    tempting = max(dreamt, key=lambda row: float(row["dream_return"]))
    chosen = (("real validation (this agent)", final), ("the dream score alone", tempting))
    table = [
        [
            name,
            str(iteration_of(row)),
            str(int(row["generation"])),
            score(row.get("dream_return")),
            score(row.get("real_mean")),
        ]
        for name, row in chosen
    ]
    return Table(["chosen by", "iteration", "generation", "in the dream", "in reality"], table)


def loop_table(data: RunData) -> Table | None:
    """One row for each turn of collect, V, M, dream, C."""
    collected = {iteration_of(r): r for r in data.rows("collection")}
    if not collected:
        return None
    head = [
        "iteration",
        "frames collected by",
        "frames",
        "their mean return",
        "V error",
        "M NLL",
        "C in the dream",
        "C in reality",
    ]
    rows = []
    for iteration, row in sorted(collected.items()):
        mine = [r for r in selections(data) if iteration_of(r) == iteration]
        best = max(mine, key=lambda r: (bool(r.get("selected")), float(r["real_mean"])), default={})
        rows.append(
            [
                str(iteration),
                _drivers_of(row.get("behaviour")),
                count(row.get("frames")),
                score(row.get("mean_return")),
                score(_last(data, "vision", "val_reconstruction", iteration), 1),
                score(_last(data, "memory", "val_nll", iteration), 1),
                score(best.get("dream_return")),
                score(best.get("real_mean")),
            ]
        )
    return Table(head, rows)


def _drivers_of(names: object) -> str:
    """Name who drove while frames were collected: config classes in words, others as they are."""
    listed = names if isinstance(names, list) else [names] if names else []
    words = [BEHAVIOURS.get(str(name).removesuffix("Config"), str(name)) for name in listed]
    return ", ".join(dict.fromkeys(words)) or MISSING


def _last(data: RunData, stage: str, key: str, iteration: int) -> float | None:
    found = [number(r.get(key)) for r in data.rows(stage) if iteration_of(r) == iteration]
    present = [value for value in found if value is not None]
    return present[-1] if present else None


def config_tables(data: RunData) -> list[tuple[str, Table]]:
    """The settings of a run; none where it has recorded none."""
    config = {k: v for k, v in data.config.items() if k not in ("versions", "machine")}
    versions, machine = (data.config.get(name) or {} for name in ("versions", "machine"))
    return settings_tables(config, versions, machine) if data.config else []


def settings_tables(
    config: Row, versions: Row, machine: Row, name: str = "run"
) -> list[tuple[str, Table]]:
    """(name, table) pairs: one for the settings, one for each nested config, versions, machine."""
    plain = {k: v for k, v in config.items() if not isinstance(v, Mapping)}
    named = [(name, plain), *groups(config), ("versions", versions), ("machine", machine)]
    return [
        (
            title,
            Table(["setting", "value"], [[k, _setting(v)] for k, v in group.items() if _plain(v)]),
        )
        for title, group in named
        if any(map(_plain, group.values()))
    ]


def _plain(value: Any) -> bool:
    return not isinstance(value, Mapping)


def _setting(value: Any) -> str:
    """A setting in words: lists with commas, "none" for nothing."""
    if value is None or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and not any(isinstance(item, list | dict) for item in value):
        return ", ".join(map(_setting, value))
    return value if isinstance(value, str) else json.dumps(value)


def groups(config: Row, prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (dotted name, values) of every nested config, outer before inner."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield f"{prefix}{key}", value
            yield from groups(value, f"{prefix}{key}.")
