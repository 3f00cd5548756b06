"""What a run folder holds, read into records; every part may be missing.

A part that is absent reads as empty, because a report is wanted after every stage of a run, and
also of a run that failed. A part that is there but unreadable is an error that names the file.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from worldmodels.config import AtLeast
from worldmodels.metrics import Number, Row, read_metrics
from worldmodels.pages.text import decimals, number
from worldmodels.protocols import UserError
from worldmodels.runs import LedgerEntry, read_json
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

    entries: list[LedgerEntry]
    totals: dict[str, Annotated[int, AtLeast(0)]]


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


VIDEOS = ("best.mp4", "median.mp4", "worst.mp4")
PICTURES = ("reconstructions.png", "dream.png", "dream.mp4")


@dataclass(frozen=True)
class Score:
    """What one driver reached on a list of seeds, as `worldmodels evaluate` writes it."""

    name: str
    """what the page calls this driver"""
    episodes: Sequence[Episode]
    mean: float
    std: float
    """standard deviation over the episodes"""
    median: float
    iqm: float | None
    p10: float | None
    ci95: tuple[float, float] | None
    """bootstrap interval of the mean"""
    fraction_solved: float | None

    @property
    def returns(self) -> list[float]:
        """Undiscounted, unshaped return of each episode."""
        return [episode["return"] for episode in self.episodes]

    @property
    def laps(self) -> int | None:
        """How many episodes ended with a finished lap; None where the environment has no laps."""
        ends = [episode.get("lap_finished") for episode in self.episodes]
        return None if None in ends else sum(map(bool, ends))

    @property
    def digits(self) -> int:
        """Digits after the point that the error of the mean allows."""
        error = self.std / len(self.episodes) ** 0.5
        return decimals((self.ci95[1] - self.ci95[0]) / 2 if self.ci95 else error)


@dataclass(frozen=True)
class RunData:
    """Everything a report shows."""

    folder: Path
    config: Row
    metrics: Mapping[str, Sequence[Row]]
    totals: Mapping[str, int]
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
    evaluation = folder / "evaluation.json"
    others = [("random driver", folder / "evaluation_random.json")]
    others += [(path.stem, path) for path in sorted((folder / "baselines").glob("*.json"))]
    media = [folder / "media" / name for name in (*VIDEOS, *PICTURES)]
    return RunData(
        folder=folder,
        config=config,
        metrics=read_metrics(folder / "metrics.jsonl"),
        totals=read_part(folder / "frames.json", Ledger).get("totals", {}),
        evaluation=read_score(evaluation, "this agent") if evaluation.is_file() else None,
        others=[read_score(path, name) for name, path in others if path.is_file()],
        media={path.name: path for path in media if path.is_file()},
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
    returns = [float(episode["return"]) for episode in episodes]
    return Score(
        name=name,
        episodes=episodes,
        mean=_given(content, "mean", statistics.fmean(returns)),
        std=_given(content, "std", statistics.pstdev(returns)),
        median=_given(content, "median", statistics.median(returns)),
        iqm=number(content.get("iqm")),
        p10=number(content.get("p10")),
        ci95=_interval(content.get("ci95") or []),
        fraction_solved=number(content.get("fraction_solved")),
    )


def _given(content: Row, key: str, otherwise: float) -> float:
    found = number(content.get(key))
    return otherwise if found is None else found


def _interval(ends: Sequence[Number]) -> tuple[float, float] | None:
    found = [end for end in map(number, ends) if end is not None]
    return (found[0], found[1]) if len(found) == 2 == len(ends) else None
