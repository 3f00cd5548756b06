"""The report of a run: run folder in, one self-contained HTML file out.

Each function turns records into values of the template, empty where the run lacks them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from worldmodels.metrics import Row, iteration_of, latest
from worldmodels.pages import calibration, figures
from worldmodels.pages.data import PICTURES, VIDEOS, RunData, load_run
from worldmodels.pages.document import Medium, data_uri, groups, render, settings_tables
from worldmodels.pages.text import count, number, score
from worldmodels.presets import PRESETS
from worldmodels.protocols import TEST_SEED_START
from worldmodels.runs import atomic_write, to_jsonable

MAX_BYTES = 8_000_000
"""Size that the page stays under; media that do not fit are linked in place of embedded."""

UNCOUNTED = ("test", "controls", "dream")
"""Kinds of frames in the ledger that the agent did not cost."""

PLAYER = "dream.html"
"""The page in which a person acts inside the agent's dream, where the run has one."""

_RESERVE = 1_500_000
"""Bytes kept for everything that is not media."""

_PICTURES = {
    "reconstructions.png": (
        "Reconstructions",
        "Frames, V's reconstructions of them, and what these lose. From each eighth of an "
        "episode, the frame in which V loses most of what moves.",
    ),
    "dream.png": (
        "A dream, frame by frame",
        "Frames, and below them M's open-loop dream from the first one.",
    ),
    "dream.mp4": ("A dream, moving", "C acts and M predicts. No frame here is real."),
}
"""Title and caption."""


def build_report(run_folder: str | Path) -> Path:
    """Write `report.html` into a run folder and return its path.

    The page names missing parts and the commands that make them. A folder that is missing or
    damaged is a `UserError`.
    """
    data = load_run(Path(run_folder))
    html = render("report.html.j2", **_context(data))
    target = data.folder / "report.html"
    atomic_write(target, html)
    return target


def _context(data: RunData) -> dict[str, Any]:
    rows, result, task = selections(data), data.evaluation, data.task
    config, media = dict(data.config), embed(data)
    versions, machine = (config.pop(name, None) or {} for name in ("versions", "machine"))
    bound = None if task.returns is None else task.returns[1]
    dream_only = data.totals.get("dream", 0) > 0 and not data.totals.get("model_free", 0)
    who = f"{'An' if task.words.agent[0] in 'aeiou' else 'A'} {task.words.agent}"
    stages, ensembles = seconds(data), data.metrics["ensemble_selection"]
    means = [number(row.get("real_mean")) or 0.0 for row in ensembles]
    measured, final = data.metrics["memory_calibration"], figures.final_selection(rows) or {}
    ends: Row = calibration.newest(measured, "ends").get("ends") or {}
    return {
        "data": data,
        "result": result,
        "task": task,
        "player": (data.folder / PLAYER).is_file() and PLAYER,
        "words": task.words,
        "title": f"{who} trained in its own dream" if dream_only else f"{who} and its world model",
        "dream_only": dream_only,
        "real_frames": {k: n for k, n in data.totals.items() if n and k not in UNCOUNTED},
        "residual": data.metrics["residual_selection"][-1:],
        "ensemble": ensembles[means.index(max(means))] if means else None,
        "ensemble_kept": any(row.get("kept") for row in ensembles),
        "selection_seed": _setting(data, "selection", "seed"),
        "ruler": ruler(data),
        "run_command": run_command(data),
        "evaluate_command": evaluate_command(data),
        "videos": [media[name] for name in VIDEOS if name in media],
        "pictures": [media[name] for name in PICTURES if name in media],
        "episodes": result and figures.episodes_chart(result, data.others, task),
        "dream": figures.dream_chart(rows, bound) if rows else None,
        "choices": choices(rows),
        "alarms": [row for row in rows if row.get("alarm")],
        "horizon": horizon(data),
        "iterations": iterations(data, rows),
        **figures.learning_charts(data.metrics),
        "explained": explained(data),
        "open_loop": calibration.open_loop_chart(measured),
        "reliability": calibration.reliability_chart(measured),
        "ends": ends,
        "ends_chart": calibration.ends_chart(ends),
        "survival": calibration.survival_chart(final.get("survival") or {}),
        "whole": final if number(final.get("whole_dream_length")) is not None else {},
        "stages": stages,
        "seconds_total": sum(map(sum, stages.values())),
        "config": settings_tables(config, versions, machine) if data.config else [],
        "machine": machine,
    }


def _setting(data: RunData, group: str, key: str) -> float | None:
    """A number in the first nested config whose name ends so and that has it."""
    found = (number(c.get(key)) for name, c in groups(data.config) if name.endswith(group))
    return next((value for value in found if value is not None), None)


def run_command(data: RunData) -> str:
    """The command that resumes the run: with its environment and its own settings."""
    config, preset = data.config, str(data.config.get("preset") or "quick")
    words = ["--preset", preset]
    if env_id := config.get("env_id"):
        words += ["--env", str(env_id)]
    if config.get("seed"):
        words += ["--seed", str(config["seed"])]
    words += _own_options(data)
    return shlex.join(["worldmodels", "run", *words, "--out", data.folder.as_posix()])


def _own_options(data: RunData) -> list[str]:
    """Options for settings of a run that are not the preset's, the task's or the check's."""
    preset, env_id = str(data.config.get("preset")), str(data.config.get("env_id"))
    if preset not in PRESETS or "experience" not in data.config:  # not a run of these stages
        return []
    usual = dict(_leaves(to_jsonable(PRESETS[preset](env_id=env_id, task=data.task))))
    usual |= {"test_env_id": data.task.test_env(env_id)}
    usual |= {one["setting"]: one["value"] for one in data.choices}
    words = []
    for name, value in _leaves(data.config):
        if name in usual and name != "env_id" and value != usual[name]:
            head, _, last = name.replace("_", "-").rpartition(".")
            dot = "." if head else ""
            if isinstance(value, bool):
                words.append(f"--{head}{dot}{'' if value else 'no-'}{last}")
            else:
                found = value if isinstance(value, list) else [value]
                words += [f"--{head}{dot}{last}", *map(str, found)]
    return words


def _leaves(config: Row, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def evaluate_command(data: RunData) -> str:
    """The command that tests the run's agent."""
    words = ["--agent", (data.folder / "agent").as_posix(), "--env", data.env_id or "ENV"]
    words += ["--episodes", "100", "--seed", str(TEST_SEED_START)]
    limit = dict(_leaves(data.config)).get("test.max_steps")
    words += [] if limit is None else ["--max-steps", str(limit)]
    target = (data.folder / "evaluation.json").as_posix()
    return shlex.join(["worldmodels", "evaluate", *words, "--json", target])


def ruler(data: RunData) -> dict[str, float] | None:
    """Ends of a scale that holds the score, its interval and the random agent's score."""
    result = data.evaluation
    if result is None:
        return None
    rivals = [other.mean for other in data.others if other.name.startswith("random")][:1]
    marks = [result.mean, *(result.ci95 or ()), *rivals]
    low, high = data.task.returns or (min(marks), max(result.returns))
    low, high = min(low, *marks), max(high, *marks)
    ends = {"low": low, "high": high, **({"random": rivals[0]} if rivals else {})}
    return ends if low < high else None


def horizon(data: RunData) -> dict[str, int] | None:
    """Steps of a dream and of the longest episode if dreams are shorter: their returns differ."""
    held = number(data.config.get("action_repeat")) or 1
    steps = int((_setting(data, "dream", "horizon") or 0) * held)
    tested = data.evaluation.episodes if data.evaluation else ()
    longest = max((episode.get("length", 0) for episode in tested), default=0)
    return {"dream": steps, "episode": longest} if 0 < steps < longest else None


def seconds(data: RunData) -> dict[str, list[float]]:
    """Wall seconds of each stage, a number for each iteration."""
    spent: dict[str, dict[int, float]] = {}
    for row in data.metrics["stage"]:
        turns, iteration = spent.setdefault(str(row.get("name")), {}), iteration_of(row)
        turns[iteration] = turns.get(iteration, 0.0) + (number(row.get("seconds")) or 0.0)
    return {name: [turns[k] for k in sorted(turns)] for name, turns in spent.items()}


def selections(data: RunData) -> list[Row]:
    """Checkpoints of C that were evaluated in the real environment, oldest first.

    Every iteration selects one; after a final, only the winner's stays selected.
    """
    rows = latest(data.metrics["selection"], "generation")
    rows = [row for row in rows if number(row.get("real_mean")) is not None]
    finals = [row["winner"] for row in data.metrics["final"] if "winner" in row]
    if not finals:
        return rows
    return [
        {**row, "selected": bool(row.get("selected")) and iteration_of(row) == finals[-1]}
        for row in rows
    ]


def choices(rows: Sequence[Row]) -> dict[str, Row]:
    """The checkpoint that real validation chose, and the one with the highest dream return."""
    final = figures.final_selection(rows)
    dreamt = [row for row in rows if number(row.get("dream_return")) is not None]
    if final is None or not dreamt:
        return {}
    tempting = max(dreamt, key=lambda row: float(row["dream_return"]))
    return {"real validation (this agent)": final, "the dream return alone": tempting}


def iterations(data: RunData, checkpoints: Sequence[Row]) -> dict[int, Mapping[str, Any]]:
    """Results of the stages of each iteration."""

    def last(stage: str, key: str, iteration: int) -> float | None:
        found = [number(r.get(key)) for r in data.metrics[stage] if iteration_of(r) == iteration]
        return next((value for value in reversed(found) if value is not None), None)

    def rank(row: Row) -> tuple[bool, float]:
        return bool(row.get("selected")), float(row["real_mean"])

    found: dict[int, Mapping[str, Any]] = {}
    for iteration, row in sorted({iteration_of(r): r for r in data.metrics["collection"]}.items()):
        names = row.get("behaviour") or []
        mine = [row for row in checkpoints if iteration_of(row) == iteration]
        found[iteration] = {
            "collected": row,
            "policies": names if isinstance(names, list) else [names],
            "vision": last("vision", "val_reconstruction", iteration),
            "memory": last("memory", "val_nll", iteration),
            "checkpoint": max(mine, key=rank, default={}),
        }
    return found


def explained(data: RunData) -> dict[str, float]:
    """Fractions of the variance in held-out frames that the newest V explains, where measured."""
    rows = [row for row in data.metrics["vision"] if number(row.get("val_explained")) is not None]
    kinds = {"changes": "val_explained", "moves": "val_explained_moving"}
    found = {what: number(rows[-1].get(key)) if rows else None for what, key in kinds.items()}
    return {what: value for what, value in found.items() if value is not None}


def embed(data: RunData) -> dict[str, Medium]:
    """Read pictures, then videos, into data addresses, as many as the page has room for."""
    room = MAX_BYTES - _RESERVE
    order = ["reconstructions.png", "dream.png", "best.mp4", "worst.mp4", "median.mp4", "dream.mp4"]
    result = {}
    for name in order:
        path = data.media.get(name)
        if path is None:
            continue
        length = -(-path.stat().st_size // 3) * 4
        uri, size = "", None
        if length <= room:
            room -= length
            uri, size = data_uri(path.read_bytes(), path.suffix), _size(data, path)
        if name in _PICTURES:
            title, caption = _PICTURES[name]
            result[name] = Medium(f"media/{name}", uri, title, "", caption, size)
        else:
            title = f"{path.stem.capitalize()} {data.task.words.episode}"
            result[name] = Medium(f"media/{name}", uri, title, *_episode(data, path.stem), size)
    return result


def _size(data: RunData, path: Path) -> tuple[int, int] | None:
    """Width and height of a video, where they were noted when it was written."""
    noted = data.episodes.get(path.stem)
    sides = noted.get("size") if isinstance(noted, dict) else None
    if not isinstance(sides, list) or len(sides) != 2:
        return None
    width, height = (number(side) for side in sides)
    return (int(width), int(height)) if width and height else None


def _episode(data: RunData, which: str) -> tuple[str, str]:
    """Return and facts of the filmed episode: as noted, else as the evaluation implies."""
    noted = data.episodes.get(which)
    if isinstance(noted, dict) and number(noted.get("return")) is not None:
        facts = [f"seed {noted['seed']}"] if "seed" in noted else []
        facts += [f"{count(noted['length'])} frames"] if "length" in noted else []
        return score(noted["return"]), ", ".join(facts)
    if data.evaluation is None:
        return "", ""
    returns = data.evaluation.returns
    value = sorted(returns)[{"best": -1, "worst": 0, "median": (len(returns) - 1) // 2}[which]]
    return score(value), f"seed {data.evaluation.episodes[returns.index(value)]['seed']}"
