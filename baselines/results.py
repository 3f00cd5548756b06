"""Reading what runs left behind: run folders, or the few files of them that were committed.

Every part but the returns may be missing; what is missing is said on the page, not guessed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from worldmodels.config import AtLeast
from worldmodels.metrics import iteration_of, read_metrics
from worldmodels.pages.data import Evaluation, Ledger, Settings, read_part
from worldmodels.pages.text import number as as_number
from worldmodels.protocols import UserError
from worldmodels.runs import read_json

LEARNT_FROM = ("collection", "model_free", "selection")
"""Kinds of real frames that count as cost; the final test does not."""


@dataclass(frozen=True)
class Point:
    """A point of a learning curve, on selection tracks."""

    real_frames: int
    """frames of the real environment so far: training and selection"""
    seconds: float | None
    """wall clock of the training so far, if it was recorded"""
    mean: float
    """mean return"""


@dataclass(frozen=True)
class Run:
    """One training run of one method, or a policy that needs none."""

    method: str
    """what it is grouped and drawn under"""
    path: str
    """where it was read from"""
    returns: Mapping[int, float]
    """track -> return of the selected policy; empty if it was not tested"""
    last_returns: Mapping[int, float]
    """the same for the last checkpoint; empty if it was not tested"""
    env: str
    """environment of the test"""
    deterministic: bool
    """whether the test used the mode of the policy"""
    seed: int | None
    """of the training"""
    frames: Mapping[str, int]
    """ledger: frames by kind"""
    curve: tuple[Point, ...]
    """oldest first"""
    seconds: float | None
    """wall clock of the training, selection left out"""
    budget: int | None
    """frames that the training was to have"""
    versions: Mapping[str, str]
    """of the libraries in the test"""
    machine: Mapping[str, Any]
    """that trained, or else tested"""
    files: Mapping[str, str]
    """file -> SHA-256 of what was read"""
    trained: bool = True
    """another training run could have given another policy; not so of random actions"""

    @property
    def cost(self) -> int | None:
        """Real frames that the policy was trained with; None without a ledger."""
        return sum(self.frames.get(kind, 0) for kind in LEARNT_FROM) if self.frames else None


def read_runs(specs: Sequence[str]) -> list[Run]:
    """Read all runs.

    Args:
        specs: each a run folder, a JSON of `worldmodels evaluate`, or a list of these: a JSON
            ``{"runs": [...]}`` whose paths begin at its own folder. ``name=path`` sets the method.

    Raises:
        UserError: one does not exist, is empty or damaged.
    """
    return [_read(name, path, shown) for name, path, shown in _expand(specs, Path())]


def _expand(
    specs: Sequence[str], base: Path, within: tuple[Path, ...] = ()
) -> Iterator[tuple[str, Path, str]]:
    """(name or "", path, path as it was given) of every run; `within` are the lists around."""
    for spec in specs:
        name, equals, given = spec.partition("=")
        if not equals:
            name, given = "", spec
        path = base / given
        content = read_json(path) if path.is_file() else None
        if isinstance(content, dict) and "runs" in content:
            if path.resolve() in within:
                raise UserError(f"{path} lists itself; a list names runs")
            listed = read_json(path, _List)["runs"]
            yield from _expand(listed, path.parent, (*within, path.resolve()))
        else:
            yield name, path, given


class _List(TypedDict):
    runs: list[str]


class _Point(TypedDict):
    real_frames: Annotated[int, AtLeast(0)]
    seconds: float | None
    mean: float


class _Curve(TypedDict):
    points: list[_Point]
    training_seconds: NotRequired[float | None]


def _read(name: str, path: Path, shown: str) -> Run:
    if path.is_file():
        return _read_evaluation(name, path, shown)
    if not path.is_dir():
        raise UserError(f"there is neither a folder nor a file {path}")
    files: dict[str, str] = {}
    record, ledger = _part(path, "config", Settings, files), _part(path, "frames", Ledger, files)
    recorded = _part(path, "curve", _Curve, files)
    test, last = (_part(path, p, Evaluation, files) for p in ("evaluation", "evaluation_last"))
    config = record.get("config", {})
    frames = dict(ledger.get("totals", {}))
    if not config and not test:
        raise UserError(f"{path} has neither config.json nor evaluation.json; it is no run folder")
    if recorded:
        points = [Point(p["real_frames"], p["seconds"], p["mean"]) for p in recorded["points"]]
        seconds = recorded.get("training_seconds")
    else:
        points, seconds = _pipeline_curve(path, ledger)
    return Run(
        method=name or _method(config, path),
        path=shown,
        returns=_returns(test),
        last_returns=_returns(last),
        env=str(test.get("env", "")),
        deterministic=bool(test.get("deterministic", True)),
        seed=config.get("seed"),
        frames=frames,
        curve=tuple(points),
        seconds=seconds,
        budget=config.get("frames"),
        versions=test.get("versions") or record.get("versions") or {},
        machine=record.get("machine") or test.get("machine", {}),
        files=files,
    )


def _read_evaluation(name: str, path: Path, shown: str) -> Run:
    """A policy without its run, from the JSON of `worldmodels evaluate`."""
    files: dict[str, str] = {}
    test = _part(path.parent, path.stem, Evaluation, files)
    return Run(
        method=name or f"{test.get('agent', path.stem)} policy",
        path=shown,
        returns=_returns(test),
        last_returns={},
        env=str(test.get("env", "")),
        deterministic=bool(test.get("deterministic", True)),
        seed=None,
        frames={},
        curve=(),
        seconds=None,
        budget=None,
        versions=test.get("versions", {}),
        machine=test.get("machine", {}),
        files=files,
        trained=not str(test.get("agent")).startswith(("random", "zeros", "always ")),
    )


def _part(folder: Path, name: str, kind: type[Any], files: dict[str, str]) -> dict[str, Any]:
    """A JSON object, or an empty one where there is no such file; its hash is noted."""
    path = folder / f"{name}.json"
    content = read_part(path, kind)
    if path.exists():
        files[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return content


def _returns(test: Mapping[str, Any]) -> dict[int, float]:
    return {e["seed"]: float(e["return"]) for e in test.get("episodes", [])}


def _method(config: Mapping[str, Any], path: Path) -> str:
    """The method as a run names it itself."""
    if "method" in config:
        return str(config["method"])
    return f"world model ({config['preset']})" if "preset" in config else path.name


def _pipeline_curve(folder: Path, ledger: Mapping[str, Any]) -> tuple[list[Point], float | None]:
    """The curve of `worldmodels run`: the best checkpoint of each iteration, from its metrics.

    Frames are those of the ledger up to the iteration's selection, seconds those of its stages.
    """
    rows = read_metrics(folder / "metrics.jsonl")
    best: dict[int, float] = {}
    seconds: dict[int, float] = {}
    for row in rows.get("selection", ()):
        mean, number = as_number(row.get("real_mean")), iteration_of(row)
        if mean is not None:
            best[number] = max(best.get(number, mean), mean)
    for row in rows.get("stage", ()):
        number = iteration_of(row)
        if row.get("name") not in ("select", "final", "test"):
            seconds[number] = seconds.get(number, 0.0) + (as_number(row.get("seconds")) or 0.0)
    points = []
    for number in sorted(best):
        frames = sum(
            entry["frames"]
            for entry in ledger.get("entries", [])
            if entry["kind"] in LEARNT_FROM and _round_of(entry["key"]) <= number
        )
        spent = sum(value for other, value in seconds.items() if other <= number)
        points.append(Point(frames, spent or None, best[number]))
    return points, sum(seconds.values()) or None


def _round_of(key: str) -> float:
    """Iteration of a ledger's key such as "collect/02/...", infinity after the last one."""
    parts = key.split("/")
    return int(parts[1]) if len(parts) > 1 and parts[1].isdecimal() else float("inf")
