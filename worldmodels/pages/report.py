"""The report of a run: run folder in, one self-contained HTML file out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worldmodels.metrics import Row
from worldmodels.pages import findings, sections
from worldmodels.pages.data import RunData, Score, load_run
from worldmodels.pages.document import (
    Block,
    Document,
    Guide,
    Link,
    Section,
    Settings,
    settings_tables,
)
from worldmodels.pages.findings import Parts
from worldmodels.pages.guide import articles
from worldmodels.pages.overview import Fact, Facts, Ruler, Tick
from worldmodels.pages.overview import Score as Headline
from worldmodels.pages.sections import interval_of
from worldmodels.pages.text import cores, count, duration, large, number, score

PLAYER = "dream.html"
"""The page in which a person acts inside the agent's dream, where the run has one."""


def build_report(run_folder: str | Path, running: str = "") -> Path:
    """Write `report.html` into a run folder and return its path.

    The page names missing parts and the commands that make them. One of a run that lasts says what
    is ``running``, and reloads itself. A folder that is missing or damaged is a `UserError`.
    """
    data = load_run(Path(run_folder))
    return _document(data, running).write(data.folder / "report.html")


def _document(data: RunData, running: str) -> Document:
    parts, result, words = Parts.of(data), data.evaluation, data.task.words
    dreamt = "trained in its own dream" if parts.dream_only else "and its world model"
    title = f"{'An' if words.agent[0] in 'aeiou' else 'A'} {words.agent} {dreamt}"
    preset = data.config.get("preset")
    kind = [data.env_id, f"preset {preset}" if preset else ""]
    return Document(
        title,
        " · ".join(filter(None, kind)),
        [],
        [
            sections.videos(parts),
            sections.episodes(parts),
            sections.dream(parts),
            sections.learning(parts),
            sections.pictures(parts),
            sections.cost(parts),
            Section("How to read this", [Guide(articles(words))], anchor="guide"),
            _setup(parts),
        ],
        "worldmodels report",
        running,
        top=[_headline(parts), *_player(parts), Facts(_facts(parts))],
        tab=f"{title}: {score(result.mean, result.digits)}" if result else title,
    )


def _headline(parts: Parts) -> Block:
    """The score, its interval, and where both lie."""
    result, episode = parts.data.evaluation, parts.words.episode
    if result is None:
        return parts.untested(f"the score on the test {episode}s")
    digits = result.digits
    claim = (
        f"Mean return over {len(result.returns)} test {episode}s in the real environment, with a "
        f"standard deviation of {score(result.std, digits)} over the {episode}s."
    )
    if parts.dream_only:
        claim += (
            " The controller was trained on dreamt rewards only. Real episodes selected its "
            "checkpoint and measured the result."
        )
    return Headline(
        score(result.mean, digits), interval_of(result), claim, _ruler(parts.data, result)
    )


def _player(parts: Parts) -> list[Block]:
    """A link to the page in which a person acts inside the dream, where there is one."""
    if not (parts.data.folder / PLAYER).is_file():
        return []
    title = f"{parts.words.verb.capitalize()} inside its dream"
    return [Link(PLAYER, title, ", by keys or touch.")]


def _ruler(data: RunData, result: Score) -> Ruler | None:
    found, solved = findings.ruler(data), data.task.solved
    if found is None:
        return None
    low, length = found["low"], found["high"] - found["low"]

    def at(value: float) -> float:
        return round(100 * (value - low) / length, 2)

    alt = f"The score {score(result.mean, result.digits)} on a scale from {score(low)} to "
    alt += score(found["high"])
    ticks = [Tick(at(0), "0")] if low < 0 < found["high"] else []
    if "random" in found:
        ticks.append(Tick(at(found["random"]), f"random {score(found['random'])}", rival=True))
        alt += f"; a random agent scores {score(found['random'])}"
    if solved is not None and low <= solved <= found["high"]:
        ticks.append(Tick(at(solved), f"{score(solved)} solved"))
        alt += f"; {score(solved)} counts as solved"
    ends = result.ci95
    band = None if ends is None else (at(ends[0]), round(100 * (ends[1] - ends[0]) / length, 2))
    return Ruler(f"{alt}.", at(result.mean), band, ticks)


def _facts(parts: Parts) -> list[Fact]:
    """Frames, what was tried, time, seeds."""
    data, result, episode = parts.data, parts.data.evaluation, parts.words.episode
    found = []
    if data.totals:
        kinds = (f"{count(n)} {kind.replace('_', '-')}" for kind, n in parts.real_frames.items())
        note, tested = " + ".join(kinds), data.totals.get("test")
        note += f"; the final test used {count(tested)} more" if tested else ""
        found.append(Fact("Real frames used", count(sum(parts.real_frames.values())), note))
    if parts.dream_only:
        note = f"C evolved over {large(data.totals['dream'])} dreamt frames; no real reward trained"
        found.append(Fact("C was trained", "in the dream only", f"{note} it"))
    found += _trials(data, episode)
    if parts.total_seconds:
        many, *others = (parts.machine.get(name) for name in ("cores", "cpu", "gpu"))
        machine = ", ".join(filter(None, [many and cores(many), *others]))
        found.append(Fact("Wall clock", duration(parts.total_seconds), machine))
    if data.config.get("seed") is not None:
        note, selection = "", findings.setting(data, "selection", "seed")
        if result:
            seeds = [one["seed"] for one in result.episodes]
            note = f"test seeds {min(seeds)} to {max(seeds)}"
        if result and selection is not None:
            note += f"; checkpoints were selected on other seeds, from {int(selection)}"
        found.append(Fact("Seed of the run", str(data.config["seed"]), note))
    return found


def _trials(data: RunData, episode: str) -> list[Fact]:
    """The residual and the ensemble, kept or not."""

    def unused(row: Row) -> str:
        return f"on {len(row.get('real_returns') or ())} unused selection {episode}s"

    found = []
    for row in data.metrics["residual_selection"][-1:]:
        note = (
            f"a bounded change of C's actions, learnt in the dream: {score(row.get('real_mean'))} "
            f"with it and {score(row.get('controller_mean'))} without {unused(row)}"
        )
        found.append(Fact("Residual", "kept" if row.get("kept") else "not kept", note))
    rows = data.metrics["ensemble_selection"]
    if rows:
        best = max(rows, key=lambda row: number(row.get("real_mean")) or 0.0)
        members = len(best.get("rounds") or ()) + 1
        note = (
            f"the mean action of the agents of {members} iterations: "
            f"{score(best.get('real_mean'))}, and {score(best.get('alone_mean'))} for the best one "
            f"alone, {unused(best)}"
        )
        kept = any(row.get("kept") for row in rows)
        found.append(Fact("Ensemble", f"{members} members" if kept else "not kept", note))
    return found


def _setup(parts: Parts) -> Section:
    config: dict[str, Any] = dict(parts.data.config)
    if not config:
        return Section("Setup", [parts.missing("the configuration")])
    versions, machine = (config.pop(name, None) or {} for name in ("versions", "machine"))
    return Section("Setup", [Settings(settings_tables(config, versions, machine))])
