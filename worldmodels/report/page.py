"""Builds the page: run folder in, one self-contained HTML file out."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from worldmodels.report import curves, figures, sections, tables, text
from worldmodels.report.data import PICTURES, VIDEOS, RunData, load_run, number
from worldmodels.runs import atomic_write

MAX_BYTES = 8_000_000
"""Size that the page stays under; media that do not fit are linked in place of embedded."""

_RESERVE = 1_500_000
"""Bytes kept for everything that is not media."""

_TYPES = {".png": "image/png", ".mp4": "video/mp4"}


@dataclass(frozen=True)
class Medium:
    """A picture or a video of the page."""

    path: str
    """Path relative to the run folder."""
    uri: str
    """Content as a data address; empty where the page has no room for it."""
    title: str
    """Heading."""
    headline: str
    """The return of the episode that a video shows."""
    caption: str
    """What it shows."""
    size: tuple[int, int] | None = None
    """Width and height of a video in pixels, where its file says so."""

    @property
    def wide(self) -> bool:
        """Whether the video is too flat to share its row with two others."""
        return self.size is not None and self.size[0] >= 2 * self.size[1]


def build_report(run_folder: str | Path) -> Path:
    """Write `report.html` into a run folder and return its path.

    Parts that the run has not made yet are named on the page, with the command that makes them.

    Raises:
        UserError: the folder is missing, or one of its files is damaged.
    """
    data = load_run(Path(run_folder))
    html = render(data)
    target = data.folder / "report.html"
    atomic_write(target, html)
    return target


def render(data: RunData) -> str:
    """Fill the template with the parts of a run."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("worldmodels.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text.install(environment)
    return environment.get_template("report.html.j2").render(_context(data))


def _context(data: RunData) -> dict[str, Any]:
    rows = tables.selections(data)
    result = data.evaluation
    media, words = embed(data), data.task.words
    return {
        "data": data,
        "result": result,
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
        "dream": figures.dream_chart(rows, sections.bound(data, rows)) if rows else None,
        "bound": sections.bound(data, rows),
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
        "versions": data.config.get("versions") or {},
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
            content = path.read_bytes()
            uri = f"data:{_TYPES[path.suffix]};base64,{base64.b64encode(content).decode()}"
            size = video_size(content) if path.suffix == ".mp4" else None
        result[name] = Medium(f"media/{name}", uri, *_describe(data, path), size)
    return result


def video_size(content: bytes) -> tuple[int, int] | None:
    """Read width and height of an mp4 from its first track header with a size.

    The header (ISO 14496-12, box "tkhd") ends with both as 16.16 fixed-point numbers.
    """
    at = content.find(b"tkhd")
    while at >= 4:
        end = at - 4 + int.from_bytes(content[at - 4 : at])
        width, height = (int.from_bytes(content[end - k : end - k + 2]) for k in (8, 4))
        if width and height:
            return width, height
        at = content.find(b"tkhd", at + 4)
    return None


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
