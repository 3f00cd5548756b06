"""Run folders: resolved config, metrics, the frame ledger, stages that are done, checkpoints.

Everything here survives being killed at any moment: files are written whole or not at all, a torn
last line of the metrics is repaired, and counting the same frames again changes nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from worldmodels._files import (
    atomic_path,
    atomic_write,
    disk_errors,
    load_checkpoint,
    make_folder,
    parse_json,
    read_json,
    read_json_lines,
    read_regular,
    save_checkpoint,
    write_json,
)
from worldmodels._jsonable import config_hash, derive_seed, to_jsonable
from worldmodels._lock import locked
from worldmodels._machine import (
    Device,
    has_fast_bfloat16,
    machine,
    mixed_precision,
    require_device,
    versions,
)
from worldmodels._outputs import (
    FILM,
    FOLDER,
    FilePath,
    FilmPath,
    FolderPath,
    check_output,
    check_outputs,
)
from worldmodels._progress import ProgressBar, progress
from worldmodels._shapes import check
from worldmodels.config import AtLeast
from worldmodels.protocols import UserError

__all__ = [
    "FILM",
    "FOLDER",
    "FRAME_KINDS",
    "SCHEMA_VERSION",
    "Device",
    "FilePath",
    "FilmPath",
    "FolderPath",
    "ProgressBar",
    "RunFolder",
    "agent_folder",
    "atomic_path",
    "atomic_write",
    "check_output",
    "check_outputs",
    "config_hash",
    "derive_seed",
    "has_fast_bfloat16",
    "load_checkpoint",
    "locked",
    "machine",
    "make_folder",
    "mixed_precision",
    "parse_json",
    "progress",
    "read_json",
    "read_json_lines",
    "read_regular",
    "require_device",
    "save_checkpoint",
    "to_jsonable",
    "versions",
    "write_json",
]

SCHEMA_VERSION = 1
"""Layout of a run folder's `config.json`; raised when a reader must tell old from new."""

FRAME_KINDS = ("collection", "selection", "test", "model_free", "dream")
"""What frames are spent on; all but "dream" are steps of the real environment."""


class LedgerEntry(TypedDict):
    """Frames in the ledger."""

    key: str
    """names the work that used them"""
    kind: Literal["collection", "selection", "test", "model_free", "dream"]
    """one of `FRAME_KINDS`"""
    frames: Annotated[int, AtLeast(0)]
    """steps of an environment"""
    superseded: NotRequired[bool]
    """true where the work was redone with other settings: listed, but not in the totals"""


class _Ledger(TypedDict):
    entries: list[LedgerEntry]


class _Metrics(TypedDict):
    stage: str


class _Done(TypedDict):
    inputs: str
    outputs: dict[str, Any]


class _Config(TypedDict):
    config: dict[str, Any]
    sha256: NotRequired[str]


class RunFolder:
    """One run on disk: configuration, metrics, ledger, finished stages, checkpoints, agent."""

    def __init__(self, path: str | Path, create: bool = True) -> None:
        """Open a run folder, creating it unless told not to.

        Raises:
            UserError: the folder is missing and `create` is off, or the disk refuses it.
        """
        self.path = Path(path)
        if create:
            check_output(self.path, "the run folder", FOLDER)
            make_folder(self.path)
        elif not self.path.is_dir():
            raise UserError(f"there is no run folder {self.path}; `worldmodels run` makes one")
        self._log_is_whole = False

    @property
    def config_file(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.json"

    @property
    def metrics_file(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def frames_file(self) -> Path:
        """The ledger of frames."""
        return self.path / "frames.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of what training resumes from."""
        return self.path / "checkpoints"

    @property
    def agent(self) -> Path:
        """Folder of the finished agent, which `Agent.from_pretrained` reads."""
        return self.path / "agent"

    @property
    def report(self) -> Path:
        """The page about the run."""
        return self.path / "report.html"

    def __repr__(self) -> str:
        """Show the path."""
        return f"RunFolder({str(self.path)!r})"

    def lock(self, wait: float = 0.0) -> AbstractContextManager[None]:
        """Keep other processes from writing into this folder; see `locked`.

        Args:
            wait: seconds to wait for another process.
        """
        return locked(self.path, wait)

    def claim(self, settings: Mapping[str, Any], same: Sequence[str]) -> None:
        """Make sure that this folder is new, or that the run in it is the one to be resumed.

        Args:
            settings: the resolved configuration of the run that is about to begin or resume.
            same: fields that must not have changed.

        Raises:
            UserError: one of them has, and is named; or the configuration in the folder is damaged.
        """
        if not self.config_file.exists():
            return
        record = self.read_config()
        before, now = record["config"], to_jsonable(settings)
        if record.get("sha256") not in (None, config_hash(before)):
            raise UserError(
                f"{self.config_file} is damaged; delete it and run the same command again"
            )
        for name in same:
            if before.get(name) != now.get(name):
                raise UserError(
                    f"{self.path} was begun with {name} {before.get(name)!r}, now it is "
                    f"{now.get(name)!r}; choose another folder, or the same setting"
                )

    def write_config(self, cfg: Any, device: Device = "cpu") -> None:
        """Write the resolved configuration with the versions and the machine that it runs on."""
        config = to_jsonable(cfg)
        record = {
            "schema": SCHEMA_VERSION,
            "config": config,
            "sha256": config_hash(config),
            "versions": versions(),
            "machine": machine(device),
        }
        write_json(self.config_file, record)

    def read_config(self) -> dict[str, Any]:
        """Return what `write_config` wrote.

        Raises:
            UserError: the file is missing, corrupt, or of another schema.
        """
        record = read_json(self.config_file)
        schema = record.get("schema") if isinstance(record, dict) else None
        if schema != SCHEMA_VERSION:
            raise UserError(
                f"{self.config_file} has schema {schema!r}, this version reads {SCHEMA_VERSION}; "
                "start the run again in a new folder"
            )
        check(record, _Config, str(self.config_file))
        return dict(record)

    def log(self, stage: str, **metrics: Any) -> None:
        """Append one line to the metrics: the time (UNIX seconds), the stage and the figures given.

        Raises:
            UserError: the disk is full or refuses the file.
        """
        record = to_jsonable({"time": time.time(), "stage": stage, **metrics})
        line = json.dumps(record, allow_nan=False) + "\n"
        with disk_errors(self.metrics_file):
            if not self._log_is_whole:
                _repair_last_line(self.metrics_file)
                self._log_is_whole = True
            with self.metrics_file.open("a", encoding="utf-8") as file:
                file.write(line)

    def metrics(self, stage: str | None = None) -> list[dict[str, Any]]:
        """Return the logged records, of one stage or of all, oldest first.

        Raises:
            UserError: a line is no record. A torn last line, left by a kill, is passed over.
        """
        records: list[dict[str, Any]] = read_json_lines(self.metrics_file, _Metrics)
        return [record for record in records if stage is None or record["stage"] == stage]

    def forget(self, stage: str, iteration: int | None = None, name: str | None = None) -> None:
        """Drop a stage's metrics, because it starts again with other inputs.

        Args:
            stage: its name, as given to `log`.
            iteration: drop only records whose "iteration" is this; None drops all of the stage.
            name: drop only records whose "name" is this; None drops them whatever it is.
        """
        records = self.metrics()
        kept = [
            record
            for record in records
            if record["stage"] != stage
            or (iteration is not None and record.get("iteration") != iteration)
            or (name is not None and record.get("name") != name)
        ]
        if len(kept) < len(records):
            lines = (json.dumps(record, allow_nan=False) + "\n" for record in kept)
            atomic_write(self.metrics_file, "".join(lines))

    def count_frames(self, kind: str, frames: int, key: str) -> None:
        """Enter frames into the ledger, once per key: a resumed or repeated stage may say it again.

        The ledger lists all work that was ever done in this folder; its totals are what the present
        agent cost. Work that was redone with other settings stays listed and is not in the totals
        (`settle`); the same work done once more, since its outputs were lost, counts once.

        Args:
            kind: one of `FRAME_KINDS`.
            frames: environment steps, each of one observed frame.
            key: names the work that used them, such as "collect/0/<hash of its inputs>".

        Raises:
            ValueError: unknown kind, negative number, or the key stands for other frames already.
        """
        if kind not in FRAME_KINDS:
            raise ValueError(f"kind is {kind!r}, must be one of {', '.join(FRAME_KINDS)}")
        if frames < 0:
            raise ValueError(f"frames is {frames}, must not be negative")
        entry: LedgerEntry = {"key": key, "kind": kind, "frames": int(frames)}  # type: ignore[typeddict-item]  # one of FRAME_KINDS
        entries = self.frames()["entries"]
        for known in entries:
            if known["key"] == key:
                if (known["kind"], known["frames"]) != (kind, frames):
                    raise ValueError(f"the ledger has {known}, so {entry} needs another key")
                return
        write_json(self.frames_file, _ledger([*entries, entry]))

    def settle(self, stages: Sequence[str], keys: Sequence[str]) -> None:
        """Count what the present agent cost: of these stages' work, the given keys alone.

        Args:
            stages: first words of the keys of the stages in question, such as "collect".
            keys: of the work that the present agent comes from; entries of other work of these
                stages are superseded. Keys end in 8 letters of the stage's hash; entries that other
                commands made, which have longer ones, are left as they are.
        """
        entries = self.frames()["entries"]
        for entry in entries:
            words = entry["key"].split("/")
            if words[0] in stages and len(words) <= 3 and len(words[-1]) == 8:
                entry.pop("superseded", None)
                if entry["key"] not in keys:
                    entry["superseded"] = True
        ledger = _ledger(entries)
        if entries and ledger != read_json(self.frames_file):
            write_json(self.frames_file, ledger)

    def frames(self) -> dict[str, Any]:
        """Return the ledger, {"entries": [{"key", "kind", "frames"}], "totals": {kind: frames}}.

        Raises:
            UserError: the file is damaged.
        """
        if not self.frames_file.exists():
            return _ledger([])
        return _ledger(read_json(self.frames_file, _Ledger)["entries"])

    def stage_done(self, name: str, inputs_hash: str) -> bool:
        """Tell whether a stage was finished with exactly these inputs."""
        path = self._stage(name)
        return path.exists() and read_json(path, _Done)["inputs"] == inputs_hash

    def mark_done(self, name: str, inputs_hash: str, outputs: dict[str, Any]) -> None:
        """Record that a stage is finished, with what later stages and the report want to know."""
        record = {"stage": name, "inputs": inputs_hash, "time": time.time(), "outputs": outputs}
        write_json(self._stage(name), record)

    def stage_outputs(self, name: str) -> dict[str, Any]:
        """Return the outputs that `mark_done` recorded.

        Raises:
            UserError: the stage was never finished.
        """
        return read_json(self._stage(name), _Done)["outputs"]

    def _stage(self, name: str) -> Path:
        """Return the file that says a stage is done; a name may have slashes, as in "collect/0"."""
        return self.path / "stages" / f"{name}.json"


def agent_folder(path: Path) -> Path:
    """The `agent` folder of a run where a path is a run's folder; the path itself elsewhere."""
    agent = path / "agent"
    return agent if (agent / "config.json").is_file() else path


def _ledger(entries: list[LedgerEntry]) -> dict[str, Any]:
    """Return the ledger of these entries; totals are derived, so they cannot disagree with them."""
    totals = {kind: 0 for kind in FRAME_KINDS}
    for entry in entries:
        if not entry.get("superseded", False):
            totals[entry["kind"]] += entry["frames"]
    return {"entries": entries, "totals": totals}


def _repair_last_line(path: Path) -> None:
    """Cut off a last line that a kill left without its end, so that appending starts a line."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        data = file.read()
        if data and not data.endswith(b"\n"):
            file.truncate(data.rfind(b"\n") + 1)
