"""The report of a run: run folder in, one self-contained HTML file out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worldmodels.pages import curves, figures, sections, tables, text
from worldmodels.pages.data import PICTURES, VIDEOS, RunData, load_run, number
from worldmodels.pages.media import Medium, data_uri
from worldmodels.pages.template import render
from worldmodels.runs import atomic_write

MAX_BYTES = 8_000_000
"""Size that the page stays under; media that do not fit are linked in place of embedded."""

_RESERVE = 1_500_000
"""Bytes kept for everything that is not media."""


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
    rows = tables.selections(data)
    result = data.evaluation
    media, words = embed(data), data.task.words
    return {
        "data": data,
        "result": result,
        "digits": tables.digits(result) if result else 0,
        "title": _title(data),
        "commands": sections.commands(data),
        "dream_only": sections.dream_only(data),
        "facts": sections.facts(data),
        "ruler": sections.ruler(data),
        "videos": [media[name] for name in map("{}.mp4".format, VIDEOS) if name in media],
        "pictures": [media[name] for name in PICTURES if name in media],
        "words": words,
        "tracks": (
            figures.tracks_chart(result, data.others, data.task.solved, words.episode)
            if result
            else None
        ),
        "drivers": tables.drivers_table(data),
        "tracks_table": tables.tracks_table(data),
        "dream": figures.dream_chart(rows, sections.bound(data)) if rows else None,
        "choices": tables.choices(rows),
        "alarms": sections.alarms(rows),
        "horizon_note": sections.horizon_note(data),
        "loop": tables.loop_table(data),
        "vision": curves.vision_chart(data.rows("vision")),
        "memory": curves.memory_chart(data.rows("memory")),
        "open_loop": curves.open_loop_chart(data.rows("memory_calibration")),
        "reliability": curves.reliability_chart(data.rows("memory_calibration")),
        "controller": curves.controller_chart(data.rows("controller")),
        "ledger": sections.ledger_bars(data),
        "real_frames": sections.real_frames(data),
        "stages": sections.stage_bars(data),
        "seconds_total": sections.seconds_total(data),
        "config": tables.config_tables(data),
        "machine": data.config.get("machine") or {},
    }


def _title(data: RunData) -> str:
    agent = data.task.words.agent
    who = f"{'An' if agent[0] in 'aeiou' else 'A'} {agent}"
    return (
        f"{who} trained in its own dream"
        if sections.dream_only(data)
        else f"{who} and its world model"
    )


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
        result[name] = Medium(f"media/{name}", uri, *_describe(data, path), size)
    return result


def _size(data: RunData, path: Path) -> tuple[int, int] | None:
    """Width and height of a video, where they were noted when it was written."""
    noted = data.episodes.get(path.stem) if path.suffix == ".mp4" else None
    sides = noted.get("size") if isinstance(noted, dict) else None
    if not isinstance(sides, list) or len(sides) != 2:
        return None
    width, height = (number(side) for side in sides)
    return (int(width), int(height)) if width and height else None


def _describe(data: RunData, path: Path) -> tuple[str, str, str]:
    """Title, headline and caption of a medium."""
    if path.stem in VIDEOS:
        return (f"{path.stem.capitalize()} {data.task.words.episode}", *_episode(data, path.stem))
    title, caption = {
        "reconstructions.png": ("Through the eyes of V", "Frames, and what V keeps of them in z."),
        "dream.png": (
            "A dream, frame by frame",
            "M goes on by itself from a recorded start; V paints it.",
        ),
        "dream.mp4": (
            "A dream, moving",
            "The controller acts, M answers. No frame here is real.",
        ),
    }[path.name]
    return title, "", caption


def _episode(data: RunData, which: str) -> tuple[str, str]:
    """Return and facts of the filmed episode: as noted, else as the evaluation implies."""
    noted = data.episodes.get(which)
    if isinstance(noted, dict) and number(noted.get("return")) is not None:
        facts = [f"seed {noted['seed']}"] if "seed" in noted else []
        facts += [f"{text.count(noted['length'])} frames"] if "length" in noted else []
        return text.score(noted["return"]), ", ".join(facts)
    if data.evaluation is None:
        return "", ""
    returns = data.evaluation.returns
    ranked = sorted(returns)
    value = ranked[{"best": -1, "worst": 0, "median": (len(ranked) - 1) // 2}[which]]
    place = returns.index(value)
    return text.score(returns[place]), f"seed {data.evaluation.seeds[place]}"
