"""Contents of a run folder, read into records; every part may be missing.

A report can be made after every stage of a run, so a missing file reads as empty. An unreadable
file is an error that names it.
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
    label: str
    """what reports call it in place of a name for its file"""
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


class _Choice(TypedDict):
    setting: str
    value: Any


class _Check(TypedDict, total=False):
    """What is read of `check.json`."""

    choices: list[_Choice]


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
    """Returns of one agent on a list of seeds, as `worldmodels evaluate` writes them."""

    name: str
    """what the page calls the agent"""
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
    env_id: str
    """environment of the final test, empty where the run has no config"""
    task: Task
    config: Row
    metrics: Mapping[str, Sequence[Row]]
    totals: Mapping[str, int]
    evaluation: Score | None
    others: Sequence[Score]
    media: Mapping[str, Path]
    episodes: Mapping[str, Row]
    choices: Sequence[Row]
    """settings that the check of the environment chose, each with its value"""


def load_run(folder: Path) -> RunData:
    """Read a run folder; one that is missing or damaged is a `UserError`."""
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not a run folder; make one with "
            f"`worldmodels run --preset quick --out {folder}`"
        )
    record = read_part(folder / "config.json", Settings)
    config = {**record, **record.get("config", {})}
    config.pop("config", None)
    env_id = str(config.get("test_env_id") or config.get("env_id") or "")
    recorded = config.get("task")  # runs of earlier versions have none
    task = named(None if recorded is None else str(recorded), env_id)
    evaluation = folder / "evaluation.json"
    others = [(f"random {task.words.agent}", folder / "evaluation_random.json")]
    others += [("best constant action", folder / "evaluation_constant.json")]
    others += [(path.stem, path) for path in sorted((folder / "baselines").glob("*.json"))]
    media = [folder / "media" / name for name in (*VIDEOS, *PICTURES)]
    return RunData(
        folder=folder,
        env_id=env_id,
        task=task,
        config=config,
        metrics=read_metrics(folder / "metrics.jsonl"),
        totals=read_part(folder / "frames.json", Ledger).get("totals", {}),
        evaluation=read_score(evaluation, "this agent") if evaluation.is_file() else None,
        others=[read_score(path, name) for name, path in others if path.is_file()],
        media={path.name: path for path in media if path.is_file()},
        episodes=read_part(folder / "media" / "episodes.json", dict),
        choices=read_part(folder / "check.json", _Check).get("choices", []),
    )


def read_part(path: Path, kind: type[Any]) -> dict[str, Any]:
    """A JSON object of a run folder, or an empty one where there is no such file."""
    return dict(read_json(path, kind)) if path.exists() else {}


def read_score(path: Path, name: str) -> Score:
    """Read one evaluation file and compute the simple statistics that it lacks.

    Its agent is called ``name``, unless the file has a ``label``.
    """
    content = read_part(path, Evaluation)
    episodes = content.get("episodes")
    if not episodes:
        raise UserError(f"{path} has no episodes; write it with `worldmodels evaluate --json`")
    returns = [float(episode["return"]) for episode in episodes]
    given = {key: found for key, value in content.items() if (found := number(value)) is not None}
    return Score(
        name=str(content.get("label") or name),
        episodes=episodes,
        mean=given.get("mean", statistics.fmean(returns)),
        std=given.get("std", statistics.pstdev(returns)),
        median=given.get("median", statistics.median(returns)),
        iqm=given.get("iqm"),
        p10=given.get("p10"),
        ci95=_interval(content.get("ci95") or []),
        fraction_solved=given.get("fraction_solved"),
    )


def _interval(ends: Sequence[Number]) -> tuple[float, float] | None:
    found = [end for end in map(number, ends) if end is not None]
    return (found[0], found[1]) if len(found) == 2 == len(ends) else None
