"""The parts of the report that come from the run: each function turns records into template values.

A function returns an empty value where the run folder lacks what the part shows.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from worldmodels.metrics import Row, iteration_of, latest
from worldmodels.pages.data import RunData, Score
from worldmodels.pages.document import Table, groups, table
from worldmodels.pages.figures import final_selection
from worldmodels.pages.text import MISSING, count, decimals, duration, number, percent, score
from worldmodels.protocols import TEST_SEED_START

KINDS = {
    "collection": ("Collection", "what V and M learnt from"),
    "selection": ("Selection", "real episodes that chose among checkpoints of C"),
    "model_free": ("Training in the real environment", "rewards that trained a driver directly"),
    "test": ("Final test", "measures the result; nothing was learnt or chosen from it"),
    "dream": ("Dream", "imagined by M; they cost time, not experience"),
}
"""Kind of frames in the ledger -> what the page calls it, and what they are for."""

BEHAVIOURS = {
    "AR1": "random walk",
    "RandomController": "random controllers",
    "AgentNoise": "the driver, with noise",
}
"""Exploration policies, by the name of their config, in words."""


@dataclass(frozen=True)
class Bar:
    """One row of a table with a bar: label, explanation, amounts, and segments in percent."""

    label: str
    note: str
    amount: str
    share: str
    segments: Sequence[float]
    kind: str = ""


def commands(data: RunData) -> dict[str, str]:
    """Return the commands that make what may be missing."""
    folder = data.folder.as_posix()
    preset = str(data.config.get("preset") or "quick")
    agent, target = shlex.quote(f"{folder}/agent"), shlex.quote(f"{folder}/evaluation.json")
    env = shlex.quote(data.env_id) if data.env_id else "ENV"
    return {
        "run": f"worldmodels run --preset {shlex.quote(preset)} --out {shlex.quote(folder)}",
        "evaluate": f"worldmodels evaluate --agent {agent} --env {env} "
        f"--episodes 100 --seed {TEST_SEED_START} --json {target}",
    }


def real_frames(data: RunData) -> dict[str, int]:
    """Real frames that the result was made with, by kind: all but those of the final test."""
    return {k: n for k, n in data.totals.items() if n and k not in ("test", "dream")}


def dream_only(data: RunData) -> bool:
    """Whether the controller was evolved on dreams, with no real frame in the search."""
    return data.totals.get("dream", 0) > 0 and not data.totals.get("model_free", 0)


def seconds_total(data: RunData) -> float:
    """Wall seconds of all stages together."""
    return sum(number(row.get("seconds")) or 0.0 for row in data.rows("stage"))


def setting(data: RunData, group: str, key: str) -> float | None:
    """A number in the first nested config whose name ends so and that has it."""
    found = (number(c.get(key)) for name, c in groups(data.config) if name.endswith(group))
    return next((value for value in found if value is not None), None)


def ruler(data: RunData) -> dict[str, float] | None:
    """Places, in percent, of the score, its interval and the random driver on one scale."""
    result, solved = data.evaluation, data.task.solved
    if result is None:
        return None
    rival = next((other.mean for other in data.others if other.name.startswith("random")), None)
    marks = [result.mean, *(result.ci95 or ()), *([rival] if rival is not None else [])]
    low, high = data.task.returns or (min(marks), max(result.returns))
    low, high = min([low, *marks]), max([high, *marks])
    if high <= low:
        return None

    def place(value: float) -> float:
        return float(round(100 * (value - low) / (high - low), 2))

    places = {"mean": place(result.mean), "low": low, "high": high}
    if result.ci95:
        places |= {"ci_low": place(result.ci95[0]), "ci_high": place(result.ci95[1])}
    if rival is not None:
        places |= {"random": place(rival), "random_mean": rival}
    if low < 0 < high:
        places["zero"] = place(0.0)
    if solved is not None and low <= solved <= high:
        places |= {"solved": place(solved), "solved_mean": solved}
    return places


def horizon(data: RunData) -> dict[str, int] | None:
    """Steps of a dream and of the longest episode where dreams are shorter.

    Then the two returns differ in scale.
    """
    held = number(data.config.get("action_repeat")) or 1
    steps = int((setting(data, "dream", "horizon") or 0) * held)
    longest = max(data.evaluation.lengths) if data.evaluation else 0
    return {"dream": steps, "episode": longest} if 0 < steps < longest else None


def ledger_bars(data: RunData) -> list[Bar]:
    """Real frames by purpose, drawn against the largest; dream frames are listed without a bar."""
    largest = max([n for kind, n in data.totals.items() if kind != "dream"], default=0) or 1
    bars = []
    for kind in (*KINDS, *sorted(set(data.totals) - set(KINDS))):
        frames = data.totals.get(kind)
        if frames:
            label, note = KINDS.get(kind, (kind, ""))
            segments = [] if kind == "dream" else [100 * frames / largest]
            counted = "no" if kind in ("test", "dream") else "yes"
            bars.append(Bar(label, note, count(frames), counted, segments, kind))
    return bars


def stage_bars(data: RunData) -> list[Bar]:
    """Wall seconds of each stage, in segments by iteration."""
    spent: dict[str, dict[int, float]] = {}
    for row in data.rows("stage"):
        turns, iteration = spent.setdefault(str(row.get("name")), {}), iteration_of(row)
        turns[iteration] = turns.get(iteration, 0.0) + (number(row.get("seconds")) or 0.0)
    sums = {name: sum(turns.values()) for name, turns in spent.items()}
    total, largest = sum(sums.values()) or 1.0, max(sums.values(), default=0.0) or 1.0
    bars = []
    for name, turns in spent.items():
        segments = [100 * turns[k] / largest for k in sorted(turns)]
        bars.append(Bar(name, "", duration(sums[name]), percent(sums[name] / total), segments))
    return bars


def digits(one: Score) -> int:
    """Digits after the point that the error of a score's mean allows."""
    half = (one.ci95[1] - one.ci95[0]) / 2 if one.ci95 else one.std / len(one.returns) ** 0.5
    return decimals(half)


def drivers_table(data: RunData) -> Table | None:
    """Statistics of this agent and of the drivers it is compared with."""
    if data.evaluation is None:
        return None
    task, words = data.task, data.task.words

    def ends(one: Score) -> str:
        low, high = (score(end, digits(one)) for end in one.ci95 or (None, None))
        return f"{low} to {high}" if one.ci95 else MISSING

    columns: dict[str, Callable[[Score], str]] = {
        words.agent: lambda one: one.name,
        f"{words.episode}s": lambda one: str(len(one.returns)),
        "mean ± std": lambda one: f"{score(one.mean, digits(one))} ± {score(one.std, digits(one))}",
        "95% interval": ends,
        "median": lambda one: score(one.median, digits(one)),
        "IQM": lambda one: score(one.iqm, digits(one)),
        "p10": lambda one: score(one.p10, digits(one)),
    }
    if task.solved is not None:
        columns[f"≥ {score(task.solved)}"] = lambda one: percent(one.fraction_solved)
    if words.finished is not None:
        columns[words.finished[1]] = lambda one: (
            f"{sum(one.laps)} of {len(one.laps)}" if one.laps else MISSING
        )
    return table([data.evaluation, *data.others], columns)


def tracks_table(data: RunData) -> Table | None:
    """Every test episode, best first."""
    result = data.evaluation
    if result is None:
        return None
    columns: dict[str, Callable[[int], str]] = {
        "seed": lambda i: str(result.seeds[i]),
        "return": lambda i: score(result.returns[i], 1),
        "frames": lambda i: count(result.lengths[i]),
    }
    if result.laps:
        finished = data.task.words.finished or ("finished",)
        columns[finished[0]] = lambda i: "yes" if result.laps[i] else "no"
    return table(sorted(range(len(result.returns)), key=lambda i: -result.returns[i]), columns)


def selections(data: RunData) -> list[Row]:
    """Checkpoints of C that were driven in the real environment, oldest first.

    Every round selects one; where the finalists drove for it, only the winner's is called selected.
    """
    rows = latest(data.rows("selection"), "generation")
    rows = [row for row in rows if number(row.get("real_mean")) is not None]
    finals = [row["winner"] for row in data.rows("final") if "winner" in row]
    if not finals:
        return rows
    return [
        {**row, "selected": bool(row.get("selected")) and iteration_of(row) == finals[-1]}
        for row in rows
    ]


def choices(rows: Sequence[Row]) -> Table | None:
    """What real validation chose, beside what the dream score alone would have chosen."""
    final = final_selection(rows)
    dreamt = [row for row in rows if number(row.get("dream_return")) is not None]
    if final is None or not dreamt:
        return None
    tempting = max(dreamt, key=lambda row: float(row["dream_return"]))
    chosen = [("real validation (this agent)", final), ("the dream score alone", tempting)]
    columns: dict[str, Callable[[tuple[str, Row]], str]] = {
        "chosen by": lambda one: one[0],
        "iteration": lambda one: str(iteration_of(one[1])),
        "generation": lambda one: str(int(one[1]["generation"])),
        "in the dream": lambda one: score(one[1].get("dream_return")),
        "in reality": lambda one: score(one[1].get("real_mean")),
    }
    return table(chosen, columns)


def loop_table(data: RunData, checkpoints: Sequence[Row]) -> Table | None:
    """One row for each turn of collect, V, M, dream, C."""
    collected = {iteration_of(row): row for row in data.rows("collection")}
    if not collected:
        return None
    best: dict[int, Row] = {}
    for row in checkpoints:
        rank = (bool(row.get("selected")), float(row["real_mean"]))
        known = best.get(iteration_of(row))
        if known is None or rank > (bool(known.get("selected")), float(known["real_mean"])):
            best[iteration_of(row)] = row

    def last(stage: str, key: str, iteration: int) -> float | None:
        found = [number(r.get(key)) for r in data.rows(stage) if iteration_of(r) == iteration]
        return next((value for value in reversed(found) if value is not None), None)

    columns: dict[str, Callable[[int], str]] = {
        "iteration": str,
        "frames collected by": lambda k: _drivers_of(collected[k].get("behaviour")),
        "frames": lambda k: count(collected[k].get("frames")),
        "their mean return": lambda k: score(collected[k].get("mean_return")),
        "V error": lambda k: score(last("vision", "val_reconstruction", k), 1),
        "M NLL": lambda k: score(last("memory", "val_nll", k), 1),
        "C in the dream": lambda k: score(best.get(k, {}).get("dream_return")),
        "C in reality": lambda k: score(best.get(k, {}).get("real_mean")),
    }
    return table(sorted(collected), columns)


def _drivers_of(names: object) -> str:
    """Name who drove while frames were collected: config classes in words, others as they are."""
    listed = names if isinstance(names, list) else [names] if names else []
    words = [BEHAVIOURS.get(str(name).removesuffix("Config"), str(name)) for name in listed]
    return ", ".join(dict.fromkeys(words)) or MISSING
