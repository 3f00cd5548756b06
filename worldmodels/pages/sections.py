"""The parts of the page that come from the run: each function turns records into template values.

A function returns an empty value where the run folder lacks what the part shows.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from worldmodels.metrics import Row
from worldmodels.pages.data import RunData, iteration_of, number
from worldmodels.pages.tables import groups
from worldmodels.pages.text import count, duration, large, percent
from worldmodels.protocols import TEST_SEED_START

KINDS = {
    "collection": ("Collection", "what V and M learnt from"),
    "selection": ("Selection", "real episodes that chose among checkpoints of C"),
    "model_free": ("Training in the real environment", "rewards that trained a driver directly"),
    "test": ("Final test", "measures the result; nothing was learnt or chosen from it"),
    "dream": ("Dream", "imagined by M; they cost time, not experience"),
}


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


def real_frames(data: RunData) -> int:
    """Real frames that the result was made with: all but those of the final test."""
    return sum(n for kind, n in data.totals.items() if kind not in ("test", "dream"))


def dream_only(data: RunData) -> bool:
    """Whether the controller was evolved on dreams, with no real frame in the search."""
    return data.totals.get("dream", 0) > 0 and not data.totals.get("model_free", 0)


def seconds_total(data: RunData) -> float:
    """Wall seconds of all stages together."""
    return sum(number(row.get("seconds")) or 0.0 for row in data.rows("stage"))


def facts(data: RunData) -> list[tuple[str, str, str]]:
    """(label, value, explanation) triples for the head of the page."""
    found: list[tuple[str, str, str]] = []
    if data.totals:
        parts = [
            f"{count(data.totals[k])} {k.replace('_', '-')}"
            for k in KINDS
            if k not in ("test", "dream") and data.totals.get(k)
        ]
        test = data.totals.get("test", 0)
        tail = f"; the final test, {count(test)} more, taught it nothing" if test else ""
        found.append(("Real frames used", count(real_frames(data)), " + ".join(parts) + tail))
    if dream_only(data):
        note = (
            f"C evolved over {large(data.totals['dream'])} dreamt frames; no real reward trained it"
        )
        found.append(("C was trained", "in the dream only", note))
    found += residual_fact(data) + committee_fact(data)
    if seconds_total(data):
        machine = data.config.get("machine") or {}
        cores = f"{machine['cores']} cores" if machine.get("cores") else ""
        note = ", ".join(
            str(part) for part in (cores, machine.get("cpu"), machine.get("gpu")) if part
        )
        found.append(("Wall clock", duration(seconds_total(data)), note))
    seeds = []
    if data.evaluation:
        seeds.append(f"test tracks {min(data.evaluation.seeds)} to {max(data.evaluation.seeds)}")
        seeds += [
            f"checkpoints were chosen on others, from {int(chosen)}"
            for name, cfg in groups(data.config)
            if name.endswith("selection") and (chosen := number(cfg.get("seed"))) is not None
        ][:1]
    if data.config.get("seed") is not None:
        found.append(("Seed of the run", str(data.config["seed"]), "; ".join(seeds)))
    return found


def residual_fact(data: RunData) -> list[tuple[str, str, str]]:
    """What became of the residual, where the run learnt one."""
    rows = data.rows("residual_selection")
    if not rows:
        return []
    row = rows[-1]
    with_it, alone = number(row.get("real_mean")) or 0.0, number(row.get("controller_mean")) or 0.0
    tracks = len(row.get("real_returns") or ())
    note = (
        f"a bounded change of C's actions, learnt in the dream: {with_it:.0f} with it and "
        f"{alone:.0f} without on {tracks} selection tracks that chose neither"
    )
    return [("Residual", "kept" if row.get("kept") else "not kept", note)]


def committee_fact(data: RunData) -> list[tuple[str, str, str]]:
    """Whether several rounds' drivers drive as one, where the run tried."""
    rows = data.rows("committee_selection")
    if not rows:
        return []
    best = max(rows, key=lambda row: number(row.get("real_mean")) or 0.0)
    together, alone = number(best.get("real_mean")) or 0.0, number(best.get("alone_mean")) or 0.0
    members, tracks = len(best.get("rounds") or ()) + 1, len(best.get("real_returns") or ())
    note = (
        f"the mean action of {members} rounds' drivers: {together:.0f} together and {alone:.0f} "
        f"for the run's best alone on {tracks} selection tracks that chose neither"
    )
    kept = any(row.get("kept") for row in rows)
    return [("Committee", f"{members} drive" if kept else "not kept", note)]


def ruler(data: RunData) -> dict[str, float] | None:
    """Places, in percent, of the score, its interval and the random driver on one scale."""
    result = data.evaluation
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
    if data.task.solved is not None and low <= data.task.solved <= high:
        places |= {"solved": place(data.task.solved), "solved_mean": data.task.solved}
    return places


def bound(data: RunData) -> float | None:
    """Return that reality cannot exceed, where the task has one."""
    return None if data.task.returns is None else data.task.returns[1]


def alarms(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(place, text) of every alarm that the selection raised."""
    return [
        (
            f"iteration {iteration_of(row)}, generation {int(row['generation'])}",
            str(row["alarm"]),
        )
        for row in rows
        if row.get("alarm")
    ]


def horizon_note(data: RunData) -> str:
    """Say it where dreams are shorter than episodes, for then the two returns differ in scale."""
    horizon = next(
        (
            number(cfg.get("horizon"))
            for name, cfg in groups(data.config)
            if name.endswith("dream") and number(cfg.get("horizon"))
        ),
        None,
    )
    held = number(data.config.get("action_repeat"))
    longest = max(data.evaluation.lengths) if data.evaluation else 0
    horizon = (horizon or 0) * (held or 1)
    if not horizon or longest <= horizon:
        return ""
    return (
        f"A dream here lasts {int(horizon)} steps and a real episode up to {longest}: "
        "compare how the two lines move, not how high they are."
    )


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
        turns = spent.setdefault(str(row.get("name")), {})
        iteration = iteration_of(row)
        turns[iteration] = turns.get(iteration, 0.0) + (number(row.get("seconds")) or 0.0)
    total = seconds_total(data) or 1.0
    largest = max((sum(turns.values()) for turns in spent.values()), default=0.0) or 1.0
    return [
        Bar(
            name,
            "",
            duration(sum(turns.values())),
            percent(sum(turns.values()) / total),
            [100 * turns[k] / largest for k in sorted(turns)],
        )
        for name, turns in spent.items()
    ]
