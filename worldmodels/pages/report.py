"""The report of a run: run folder in, one self-contained HTML file out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worldmodels.pages import figures, sections, text
from worldmodels.pages.data import PICTURES, VIDEOS, RunData, load_run
from worldmodels.pages.document import Medium, data_uri, render, settings_tables
from worldmodels.runs import atomic_write

MAX_BYTES = 8_000_000
"""Size that the page stays under; media that do not fit are linked in place of embedded."""

_RESERVE = 1_500_000
"""Bytes kept for everything that is not media."""

_PICTURES = {
    "reconstructions.png": ("Through the eyes of V", "Frames, and what V keeps of them in z."),
    "dream.png": (
        "A dream, frame by frame",
        "M goes on by itself from a recorded start; V paints it.",
    ),
    "dream.mp4": ("A dream, moving", "The controller acts, M answers. No frame here is real."),
}
"""Title and caption."""


def build_report(run_folder: str | Path) -> Path:
    """Write `report.html` into a run folder and return its path.

    Parts that the run has not made yet are named on the page, with the command that makes them.

    Raises:
        UserError: the folder is missing, or one of its files is damaged.
    """
    data = load_run(Path(run_folder))
    html = render("report.html.j2", **_context(data))
    target = data.folder / "report.html"
    atomic_write(target, html)
    return target


def _context(data: RunData) -> dict[str, Any]:
    rows = sections.selections(data)
    result, task, config = data.evaluation, data.task, dict(data.config)
    versions, machine = (config.pop(name, None) or {} for name in ("versions", "machine"))
    bound = None if task.returns is None else task.returns[1]
    media, dream_only = embed(data), sections.dream_only(data)
    who = f"{'An' if task.words.agent[0] in 'aeiou' else 'A'} {task.words.agent}"
    committees = data.rows("committee_selection")
    return {
        "data": data,
        "result": result,
        "digits": sections.digits(result) if result else 0,
        "title": f"{who} trained in its own dream" if dream_only else f"{who} and its world model",
        "commands": sections.commands(data),
        "dream_only": dream_only,
        "residual": data.rows("residual_selection")[-1:],
        "committee": max(committees, key=lambda row: row.get("real_mean") or 0.0, default=None),
        "committee_kept": any(row.get("kept") for row in committees),
        "selection_seed": sections.setting(data, "selection", "seed"),
        "ruler": sections.ruler(data),
        "videos": [media[name] for name in VIDEOS if name in media],
        "pictures": [media[name] for name in PICTURES if name in media],
        "words": task.words,
        "tracks": result and figures.tracks_chart(result, data.others, task),
        "drivers": sections.drivers_table(data),
        "tracks_table": sections.tracks_table(data),
        "dream": figures.dream_chart(rows, bound) if rows else None,
        "choices": sections.choices(rows),
        "alarms": [row for row in rows if row.get("alarm")],
        "horizon": sections.horizon(data),
        "loop": sections.loop_table(data, rows),
        **figures.learning_charts(data.metrics),
        "open_loop": figures.open_loop_chart(data.rows("memory_calibration")),
        "reliability": figures.reliability_chart(data.rows("memory_calibration")),
        "ledger": sections.ledger_bars(data),
        "real_frames": sections.real_frames(data),
        "stages": sections.stage_bars(data),
        "seconds_total": sections.seconds_total(data),
        "config": settings_tables(config, versions, machine) if data.config else [],
        "machine": machine,
    }


def embed(data: RunData) -> dict[str, Medium]:
    """Read pictures and videos into data addresses, as many as the page has room for.

    Pictures come first, then the best, the worst and the median episode.
    """
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
    noted = data.episodes.get(path.stem) if path.suffix == ".mp4" else None
    sides = noted.get("size") if isinstance(noted, dict) else None
    if not isinstance(sides, list) or len(sides) != 2:
        return None
    width, height = (text.number(side) for side in sides)
    return (int(width), int(height)) if width and height else None


def _episode(data: RunData, which: str) -> tuple[str, str]:
    """Return and facts of the filmed episode: as noted, else as the evaluation implies."""
    noted = data.episodes.get(which)
    if isinstance(noted, dict) and text.number(noted.get("return")) is not None:
        facts = [f"seed {noted['seed']}"] if "seed" in noted else []
        facts += [f"{text.count(noted['length'])} frames"] if "length" in noted else []
        return text.score(noted["return"]), ", ".join(facts)
    if data.evaluation is None:
        return "", ""
    returns = data.evaluation.returns
    ranked = sorted(returns)
    value = ranked[{"best": -1, "worst": 0, "median": (len(ranked) - 1) // 2}[which]]
    return text.score(value), f"seed {data.evaluation.seeds[returns.index(value)]}"
