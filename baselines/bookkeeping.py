"""What a baseline's training writes as it proceeds: curve, ledger, best policy so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypedDict

from worldmodels import runs
from worldmodels.config import AtLeast, Between, require
from worldmodels.evaluation import EvaluationResult
from worldmodels.protocols import SELECTION_SEED_START, TEST_SEED_START, UserError
from worldmodels.runs import RunFolder


class _Totals(TypedDict):
    totals: dict[str, Annotated[int, AtLeast(0)]]


FREE = ("test", "controls")
"""Kinds of real frames that measure and teach nothing."""
CURVE = "curve.json"
"""File of the learning curve in a run folder."""


@dataclass(frozen=True)
class CurvePoint:
    """Evaluation of a policy on selection tracks during training."""

    step: int
    """updates or generations so far"""
    frames: int
    """frames that it was trained on: of the real environment, or of a dream"""
    real_frames: int
    """frames of the real environment so far: training, selection, and what the dream cost"""
    seconds: float
    """wall clock of the training so far"""
    mean: float
    """mean return: unshaped, in the real environment"""
    returns: tuple[float, ...]
    """one for each selection track"""


@dataclass
class Bookkeeping:
    """All that a checkpoint must keep beside the learner: written with it, restored with it."""

    step: int = 0
    """updates or generations so far"""
    frames: int = 0
    """frames of the training so far"""
    counted: int = 0
    """those of them that the ledger has"""
    seconds: float = 0.0
    """wall clock of the training so far"""
    selection_seconds: float = 0.0
    """wall clock of the measurements so far"""
    ledger: list[tuple[str, str, int]] = field(default_factory=list)
    """(kind, key, frames), entered into the run folder's ledger after the checkpoint"""
    curve: list[CurvePoint] = field(default_factory=list)
    """oldest first"""

    @property
    def best(self) -> CurvePoint | None:
        """The point with the best mean; of equals, the first."""
        return max(self.curve, key=lambda point: point.mean, default=None)

    @property
    def real_frames(self) -> int:
        """Frames of the real environment so far."""
        return sum(frames for kind, _, frames in self.ledger if kind not in ("dream", *FREE))

    def count(self, kind: str, frames: int, key: str) -> None:
        """Note frames for the ledger."""
        self.ledger.append((kind, key, frames))

    def measured(self, result: EvaluationResult, kind: str) -> bool:
        """Note an evaluation of the current policy; True if it is the best so far.

        Args:
            result: on selection tracks.
            kind: what the frames of the training are called in the ledger.
        """
        self.count(kind, self.frames - self.counted, f"train/{self.step:06d}")
        self.counted = self.frames
        self.count("selection", result.frames, f"select/{self.step:06d}")
        self.selection_seconds += result.seconds
        returns = tuple(float(value) for value in result.returns)
        point = CurvePoint(
            self.step, self.frames, self.real_frames, self.seconds, result.mean, returns
        )
        self.curve.append(point)
        return self.best is point

    def to_state(self) -> dict[str, Any]:
        """As a checkpoint holds it: plain numbers, strings and lists."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Bookkeeping:
        """What `to_state` gave."""
        points = [CurvePoint(**{**p, "returns": tuple(p["returns"])}) for p in state["curve"]]
        ledger = [(str(kind), str(key), int(frames)) for kind, key, frames in state["ledger"]]
        return cls(**{**state, "curve": points, "ledger": ledger})

    def publish(self, run: RunFolder) -> None:
        """Bring the run folder's ledger and curve to the state of the checkpoint."""
        for kind, key, frames in self.ledger:
            run.ledger.add(kind, frames, key)
        record = {
            "training_seconds": self.seconds,
            "selection_seconds": self.selection_seconds,
            "points": self.curve,
            "machine": runs.machine(),
            "versions": runs.versions(),
        }
        runs.write_json(run.path / CURVE, record)


SelectionTracks: TypeAlias = Annotated[int, Between(1, TEST_SEED_START - SELECTION_SEED_START)]
"""How many selection tracks; with more of them test tracks would be among them."""


def selection_seeds(episodes: int) -> range:
    """The first selection tracks.

    Raises:
        UserError: fewer than one, or so many that test tracks would be among them.
    """
    require("evaluate_episodes", episodes, SelectionTracks)
    return range(SELECTION_SEED_START, SELECTION_SEED_START + episodes)


def open_run(
    out: Path, settings: dict[str, Any], same: Sequence[str], log: runs.Log = ()
) -> RunFolder:
    """Open a run folder and write its configuration, or make sure that it has the same one.

    Args:
        out: the folder.
        settings: the resolved configuration.
        same: fields that must not change when a run resumes.
        log: where metrics go beside `metrics.jsonl`.

    Raises:
        UserError: one of them has; it is named. Or a package that ``log`` needs is missing.
    """
    run = RunFolder(out, log=log)
    run.claim(settings, same)
    run.write_config(settings)
    return run


def inherit(books: Bookkeeping, agent: Path) -> None:
    """Enter what an agent's V and M have cost: the ledger of the run folder that it lies in.

    Raises:
        UserError: there is no such ledger, so the baseline's cost is unknown.
    """
    ledger = runs.agent_folder(agent).parent / "frames.json"
    if not ledger.is_file():
        raise UserError(
            f"{agent} does not lie in a run folder with a ledger ({ledger.name}); give a run, so "
            "that its frames can be counted"
        )
    for kind, frames in runs.read_json(ledger, _Totals)["totals"].items():
        if kind not in FREE and frames:
            books.count(kind, int(frames), f"agent/{kind}")
