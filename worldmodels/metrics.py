"""Lines of `metrics.jsonl`: one record per kind; lines of earlier versions have fewer fields."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Required, TypeAlias, TypedDict

from worldmodels.runs import read_json_lines

Row = Mapping[str, Any]
"""A line that was read."""

Number: TypeAlias = float | Literal["NaN", "Infinity", "-Infinity"] | None
"""A number as `worldmodels.runs.to_jsonable` writes it."""


class Line(TypedDict, total=False):
    """What every line has."""

    time: Number
    """UNIX seconds"""
    stage: Required[str]
    """kind of the line, a key of `RECORDS`"""
    iteration: int | None
    """counted from 0; None outside of a run"""


class StageSeconds(TypedDict, total=False):
    """Wall clock of a finished stage."""

    name: str | None
    seconds: Number


class Collection(TypedDict, total=False):
    """Frames that were collected."""

    frames: Number
    episodes: Number
    mean_return: Number
    max_return: Number
    seconds: Number
    frames_per_second: Number
    behaviour: list[str] | str | None
    """names of the exploration configs"""


class VisionStep(TypedDict, total=False):
    """Losses of V, the mean of a batch; ``val_`` on held-out frames."""

    step: Number
    images: Number
    images_per_second: Number
    loss: Number
    reconstruction: Number
    kl: Number
    val_loss: Number
    val_reconstruction: Number
    val_kl: Number
    val_explained: Number
    """fraction of the variance around the mean frame that V explains"""
    val_explained_moving: Number
    """the same, pixels weighted by their squared change from frame to frame"""


class MemoryStep(TypedDict, total=False):
    """Losses of M, the mean of a batch; ``val_`` on held-out episodes."""

    member: int | None
    """of the ensemble"""
    step: Number
    steps_per_second: Number
    loss: Number
    nll: Number
    reward_loss: Number
    termination_loss: Number
    val_loss: Number
    val_nll: Number
    val_reward_loss: Number
    val_termination_loss: Number


class Reliability(TypedDict, total=False):
    """Mean of a step as predicted and as observed (events, reward, ends), and steps, per bin."""

    predicted: list[Number]
    observed: list[Number]
    count: list[Number]


class EndReliability(Reliability, total=False):
    """How well M tells the ends of recorded episodes."""

    ends: Number
    """recorded"""
    expected: Number
    """sum of the predicted chances over all steps"""
    recognised: Number
    """the same over the steps that ended an episode"""
    auc: Number


class Survival(TypedDict, total=False):
    """Fraction of episodes still running, in dreams and in reality, after so many steps."""

    step: list[Number]
    dream: list[Number]
    real: list[Number]


class Calibration(TypedDict, total=False):
    """Open-loop error of M by horizon, as `worldmodels.memory.calibration` measures it."""

    horizon: list[Number]
    error: list[Number]
    sigma: list[Number]
    persistence: list[Number]
    event_reliability: Reliability | None
    reward_reliability: Reliability | None
    ends: EndReliability | None


class GenerationStep(TypedDict, total=False):
    """One generation of C: returns in the dream, and the step size of the search."""

    generation: Number
    dream_best: Number
    dream_mean: Number
    dream_std: Number
    dream_of_mean: Number
    """of the mean of the search distribution, where it was measured"""
    sigma: Number
    seconds: Number


class Selection(TypedDict, total=False):
    """A checkpoint of C on the selection episodes."""

    generation: Number
    dream_return: Number
    real_mean: Number
    real_std: Number
    real_returns: list[Number] | None
    episodes: Number
    real_length: Number
    """mean steps of the real episodes"""
    whole_dream_return: Number
    """mean of dreams as long as episodes, from the first frames of the real ones"""
    whole_dream_length: Number
    """mean steps of them"""
    survival: Survival | None
    """of the selected checkpoint, where episodes end by themselves"""
    alarm: str | None
    """why the dream is not credible"""
    selected: bool
    """whether it became the agent of its iteration"""


class Final(TypedDict, total=False):
    """The iteration whose agent became the run's."""

    winner: int
    real_mean: Number


class PolicyStep(TypedDict, total=False):
    """Losses and returns of an actor-critic in the dream."""

    member: int | None
    step: Number
    actor_loss: Number
    critic_loss: Number
    dream_reward: Number
    dream_return: Number
    value: Number
    entropy: Number


class Trial(TypedDict, total=False):
    """A change of the agent, evaluated on selection episodes."""

    real_mean: Number
    real_returns: list[Number] | None
    kept: bool


class ResidualSelection(Trial, total=False):
    """C with the residual, and without."""

    controller_mean: Number
    controller_returns: list[Number] | None


class EnsembleSelection(Trial, total=False):
    """The agent in an ensemble with agents of other iterations, and alone."""

    rounds: list[int] | None
    alone_mean: Number
    alone_returns: list[Number] | None


class VariantRow(TypedDict):
    """A variant of a study: means over its evolutions, and standard deviations (None of one).

    ``validated``, ``dreamed`` and ``oracle`` are test means of the snapshots that the selection
    seeds, the dream, and the test seeds themselves would choose.
    """

    variant: str
    seeds: int
    """evolutions"""
    dream: float
    dream_std: float | None
    selection: float
    selection_std: float | None
    validated: float
    validated_std: float | None
    dreamed: float
    dreamed_std: float | None
    oracle: float
    oracle_std: float | None


RECORDS: dict[str, Any] = {
    "stage": StageSeconds,
    "collection": Collection,
    "vision": VisionStep,
    "memory": MemoryStep,
    "memory_calibration": Calibration,
    "controller": GenerationStep,
    "selection": Selection,
    "final": Final,
    "residual": PolicyStep,
    "residual_selection": ResidualSelection,
    "ensemble_selection": EnsembleSelection,
}
"""Kind of line -> its record."""


FORMER = {"committee_selection": "ensemble_selection", "hit_reliability": "event_reliability"}
"""Names in the files of earlier versions, and what they are called now."""


def read_lines(path: Path) -> list[Row]:
    """Read all lines, oldest first; a damaged one is a `UserError`, a torn last one is left out."""
    lines = read_json_lines(path, Line, lambda line: RECORDS.get(line["stage"], Line))
    return [
        {
            FORMER.get(name, name): FORMER.get(value, value) if name == "stage" else value
            for name, value in line.items()
        }
        for line in lines
    ]


def read_metrics(path: Path) -> Mapping[str, Sequence[Row]]:
    """The same, grouped by kind; nothing for a kind without lines."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in read_lines(path):
        groups[row["stage"]].append(row)
    return groups


def iteration_of(row: Row) -> int:
    """Iteration that a line belongs to; 0 where it does not say."""
    return int(row.get("iteration") or 0)


def latest(rows: Sequence[Row], key: str) -> list[Row]:
    """Rows in the order of (iteration, key), one for each place.

    A later line of the same place, after a resume, replaces an earlier one. Rows without the key
    are left out, and so are an ensemble's members but the first.
    """
    kept: dict[tuple[int, float], dict[str, Any]] = {}
    for row in rows:
        place = row.get(key)
        if isinstance(place, int | float) and not row.get("member"):
            kept.setdefault((iteration_of(row), place), {}).update(row)
    return [kept[place] for place in sorted(kept)]
