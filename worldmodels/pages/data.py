"""What a run folder holds, read into records; every part may be missing.

A part that is absent reads as empty, because a report is wanted after every stage of a run, and
also of a run that failed. A part that is there but unreadable is an error that names the file.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from worldmodels.config import AtLeast
from worldmodels.metrics import Number, Row, read_metrics
from worldmodels.protocols import UserError
from worldmodels.runs import read_json
from worldmodels.tasks import Task, named

Episode = TypedDict(
    "Episode",
    {
        "seed": Annotated[int, AtLeast(0)],
        "return": float,
        "length": NotRequired[Annotated[int, AtLeast(0)]],
        "lap_finished": NotRequired[bool | None],
    },
)
"""An episode in a JSON of `worldmodels evaluate`."""


class Evaluation(TypedDict, total=False):
    """What is read of a JSON of `worldmodels evaluate`."""

    agent: str
    env: str
    deterministic: bool
    episodes: list[Episode]
    mean: Number
    std: Number
    median: Number
    iqm: Number
    p10: Number
    fraction_solved: Number
    ci95: list[Number] | None
    versions: dict[str, Any]
    machine: dict[str, Any]


class Ledger(TypedDict, total=False):
    """What is read of `frames.json`."""

    entries: list[Entry]
    totals: dict[str, Annotated[int, AtLeast(0)]]


class Entry(TypedDict):
    """Frames in the ledger."""

    key: str
    kind: str
    frames: Annotated[int, AtLeast(0)]


class Settings(TypedDict, total=False):
    """What is read of `config.json`, of the record and of the configuration in it."""

    config: Settings
    env_id: str
    test_env_id: str | None
    seed: int | None
    method: str
    preset: str | None
    action_repeat: Number
    frames: int | None
    versions: dict[str, Any] | None
    machine: dict[str, Any] | None


VIDEOS = ("best", "median", "worst")
PICTURES = ("reconstructions.png", "dream.png", "dream.mp4")


@dataclass(frozen=True)
class Score:
    """Returns of one driver on a list of seeds, as `worldmodels evaluate` writes them."""

    name: str
    """What the page calls this driver."""
    seeds: tuple[int, ...]
    """One environment seed for each episode."""
    returns: tuple[float, ...]
    """Undiscounted, unshaped return of each episode."""
    lengths: tuple[int, ...]
    """Frames of each episode."""
    laps: tuple[bool, ...]
    """Whether each episode ended with a finished lap; empty where the environment has no laps."""
    mean: float
    """Mean of the returns."""
    std: float
    """Standard deviation over the episodes."""
    median: float
    """Median of the returns."""
    iqm: float | None
    """Mean of the middle half."""
    p10: float | None
    """The return that nine in ten episodes exceed."""
    ci95: tuple[float, float] | None
    """Bootstrap interval of the mean."""
    fraction_solved: float | None
    """Share of episodes at or above the score that counts as solved."""


@dataclass(frozen=True)
class RunData:
    """Everything a report shows, in the order in which the run made it."""

    folder: Path
    config: Row
    metrics: Mapping[str, Sequence[Row]]
    totals: Mapping[str, int]
    entries: Sequence[Row]
    evaluation: Score | None
    others: Sequence[Score]
    media: Mapping[str, Path]
    episodes: Mapping[str, Row]

    @property
    def env_id(self) -> str:
        """Gymnasium id of the environment of the final test, empty where the run has no config."""
        return str(self.config.get("test_env_id") or self.config.get("env_id") or "")

    @property
    def task(self) -> Task:
        """What is known about the environment; runs of earlier versions recorded no task."""
        recorded = self.config.get("task")
        return named(None if recorded is None else str(recorded), self.env_id)

    def rows(self, stage: str) -> Sequence[Row]:
        """Metric lines of one stage, oldest first."""
        return self.metrics.get(stage, ())


def load_run(folder: Path) -> RunData:
    """Read a run folder.

    Raises:
        UserError: the folder is missing, or one of its files is damaged.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not a run folder; make one with "
            f"`worldmodels run --preset quick --out {folder}`"
        )
    record = read_part(folder / "config.json", Settings)
    config = {**record, **record.get("config", {})}
    config.pop("config", None)
    ledger = read_part(folder / "frames.json", Ledger)
    evaluation = folder / "evaluation.json"
    others = [("random driver", folder / "evaluation_random.json")]
    others += [(path.stem, path) for path in sorted((folder / "baselines").glob("*.json"))]
    media = {
        path.name: path
        for path in (folder / "media" / name for name in (*map("{}.mp4".format, VIDEOS), *PICTURES))
        if path.is_file()
    }
    return RunData(
        folder=folder,
        config=config,
        metrics=read_metrics(folder / "metrics.jsonl"),
        totals=dict(ledger.get("totals", {})),
        entries=list(ledger.get("entries", [])),
        evaluation=read_score(evaluation, "this agent") if evaluation.is_file() else None,
        others=[read_score(path, name) for name, path in others if path.is_file()],
        media=media,
        episodes=read_part(folder / "media" / "episodes.json", dict),
    )


def read_part(path: Path, kind: type[Any]) -> dict[str, Any]:
    """A JSON object of a run folder, or an empty one where there is no such file.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    return dict(read_json(path, kind)) if path.exists() else {}


def read_score(path: Path, name: str) -> Score:
    """Read one evaluation file; statistics it leaves out are computed where that is plain.

    Raises:
        UserError: the file has no episodes, or a return is not finite.
    """
    content = read_part(path, Evaluation)
    episodes = content.get("episodes")
    if not episodes:
        raise UserError(f"{path} has no episodes; write it with `worldmodels evaluate --json`")
    returns = tuple(float(episode["return"]) for episode in episodes)
    seeds = tuple(episode["seed"] for episode in episodes)
    laps = [episode.get("lap_finished") for episode in episodes]
    return Score(
        name=name,
        seeds=seeds,
        returns=returns,
        lengths=tuple(episode.get("length", 0) for episode in episodes),
        laps=() if None in laps else tuple(map(bool, laps)),
        mean=float(_present(content, "mean", statistics.fmean(returns))),
        std=float(_present(content, "std", statistics.pstdev(returns))),
        median=float(_present(content, "median", statistics.median(returns))),
        iqm=number(content.get("iqm")),
        p10=number(content.get("p10")),
        ci95=_interval(content.get("ci95")),
        fraction_solved=number(content.get("fraction_solved")),
    )


def _interval(ends: object) -> tuple[float, float] | None:
    if not isinstance(ends, list) or len(ends) != 2:
        return None
    low, high = number(ends[0]), number(ends[1])
    return None if low is None or high is None else (low, high)


def _present(content: Row, key: str, otherwise: float) -> float:
    found = number(content.get(key))
    return otherwise if found is None else found


def number(value: object) -> float | None:
    """Return value as a finite float, or None where it is missing, not a number or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def latest(rows: Sequence[Row], key: str) -> list[Row]:
    """Rows in the order of (iteration, key), one for each place.

    What a later line says of the same place, after a resume or in a second round, replaces what an
    earlier one said. Rows without the key are left out, and so are an ensemble's members but the
    first.
    """
    kept: dict[tuple[int, float], dict[str, Any]] = {}
    for row in rows:
        place = number(row.get(key))
        if place is not None and not number(row.get("member")):
            kept.setdefault((iteration_of(row), place), {}).update(row)
    return [kept[place] for place in sorted(kept)]


def iteration_of(row: Row) -> int:
    """Iteration that a line belongs to; 0 where it does not say."""
    return int(number(row.get("iteration")) or 0)


def offsets(rows: Sequence[Row], key: str) -> dict[int, float]:
    """Where each iteration starts on an axis that puts all iterations in a row.

    A counter that starts again with each iteration is shifted behind the one before; a counter
    that runs on stays as it is.
    """
    spans: dict[int, tuple[float, float]] = {}
    for row in latest(rows, key):
        iteration, value = iteration_of(row), float(row[key])
        low, high = spans.get(iteration, (value, value))
        spans[iteration] = min(low, value), max(high, value)
    result: dict[int, float] = {}
    shift, last = 0.0, None
    for iteration in sorted(spans):
        low, high = spans[iteration]
        if last is not None and low <= last:
            shift += last
        result[iteration], last = shift, high
    return result
