"""Run folders: resolved config, metrics, the frame ledger, stages that are done, checkpoints.

Everything here survives a kill at any moment: files are written whole or not at all, a torn last
line of the metrics is repaired, and the same frames are counted once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from worldmodels._files import (
    atomic_path,
    atomic_write,
    discard,
    disk_errors,
    file_digest,
    make_folder,
    parse_json,
    read_json,
    read_json_lines,
    read_regular,
    write_json,
)
from worldmodels._jsonable import config_hash, derive_seed, to_jsonable
from worldmodels._ledger import FRAME_KINDS, FrameLedger, LedgerEntry
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
from worldmodels._progress import progress
from worldmodels._shapes import check
from worldmodels._sinks import Log, SinkName, sinks
from worldmodels.protocols import UserError

__all__ = ["FRAME_KINDS", "LedgerEntry", "RunFolder", "agent_folder"]
__all__ += ["load_checkpoint", "save_checkpoint"]
__all__ += ["atomic_path", "atomic_write", "file_digest", "locked", "make_folder", "parse_json"]
__all__ += ["read_json", "read_json_lines", "read_regular", "write_json"]
__all__ += ["FILM", "FOLDER", "FilePath", "FilmPath", "FolderPath", "check_output", "check_outputs"]
__all__ += ["Device", "has_fast_bfloat16", "machine", "mixed_precision", "require_device"]
__all__ += ["config_hash", "derive_seed", "progress", "to_jsonable", "versions"]
__all__ += ["Log", "SinkName"]

SCHEMA_VERSION = 1
"""Layout of a run folder's `config.json`; readers refuse others."""


class _Metrics(TypedDict):
    stage: str


class _Done(TypedDict):
    inputs: str
    outputs: dict[str, Any]
    files: NotRequired[dict[str, str]]
    sources: NotRequired[str]
    frames: NotRequired[list[LedgerEntry]]
    sha256: NotRequired[str]


class _Config(TypedDict):
    config: dict[str, Any]
    sha256: NotRequired[str]


class RunFolder:
    """One run on disk: configuration, metrics, ledger, finished stages, checkpoints, agent."""

    def __init__(self, path: str | Path, create: bool = True, log: Sequence[SinkName] = ()) -> None:
        """Open a run folder, creating it unless told not to; `UserError` where it cannot be.

        Metrics also go to the sinks in ``log``; a missing package is a `UserError`.
        """
        self.path = Path(path)
        self._sinks = sinks(log, self.path)
        if create:
            check_output(self.path, "the run folder", FOLDER)
            make_folder(self.path)
        elif not self.path.is_dir():
            raise UserError(f"there is no run folder {self.path}; `worldmodels run` makes one")
        self._log_is_whole = False
        self.config_file = self.path / "config.json"
        """the resolved configuration"""
        self.metrics_file = self.path / "metrics.jsonl"
        """one JSON object per line"""
        self.ledger = FrameLedger(self.path / "frames.json")
        """the frames that all work in this folder took"""
        self.checkpoints = self.path / "checkpoints"
        """folder of what training resumes from"""
        self.agent = self.path / "agent"
        """folder of the finished agent, which `Agent.from_pretrained` reads"""
        self.report = self.path / "report.html"
        """the page about the run"""

    def lock(self, wait: float = 0.0) -> AbstractContextManager[None]:
        """Keep other processes from writing into this folder; see `locked`."""
        return locked(self.path, wait)

    def claim(self, settings: Mapping[str, Any], same: Sequence[str]) -> None:
        """Refuse a folder whose run differs from ``settings`` in one of the fields ``same``."""
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
        """Write the resolved configuration with the versions and the machine."""
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
        """What `write_config` wrote; `UserError` if it is missing or damaged."""
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
        """Append one line to the metrics: the time (UNIX seconds), the stage and the figures."""
        record = to_jsonable({"time": time.time(), "stage": stage, **metrics})
        line = json.dumps(record, allow_nan=False) + "\n"
        with disk_errors(self.metrics_file):
            if not self._log_is_whole:
                _repair_last_line(self.metrics_file)
                self._log_is_whole = True
            with self.metrics_file.open("a", encoding="utf-8") as file:
                file.write(line)
        for sink in self._sinks:
            sink.write(record)

    def metrics(self, stage: str | None = None) -> list[dict[str, Any]]:
        """The logged records, of one stage or of all, oldest first (`read_json_lines`)."""
        records: list[dict[str, Any]] = read_json_lines(self.metrics_file, _Metrics)
        return [record for record in records if stage is None or record["stage"] == stage]

    def forget(self, stage: str, iteration: int | None = None, name: str | None = None) -> None:
        """Drop a stage's metrics, or only those with this "iteration" and "name"."""
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

    def stage_done(
        self, name: str, inputs_hash: str, sources: str = "", files: Sequence[Path] = ()
    ) -> bool:
        """Whether a stage was finished with exactly these inputs, and its files are whole.

        Missing and damaged files are named and removed, and the stage has to be done again; the
        same holds for a damaged record.

        Args:
            name: of the stage.
            inputs_hash: of its configuration, and of the keys of the stages that it reads.
            sources: hash of the results that it reads (`stage_found`).
            files: what it writes; accepted as they are for a record of an earlier version, which
                has no digests.
        """
        record = self._record(name)
        if record is None or record["inputs"] != inputs_hash:
            return False
        if record.get("sources", sources) != sources:
            return False
        if "files" not in record:
            if files:
                self.mark_done(name, inputs_hash, record["outputs"], files, sources)
            return True
        wanted = record["files"]
        found = _digests(self.path, (self.path / name for name in wanted))
        bad = [self.path / name for name, one in wanted.items() if found.get(name) != one]
        for path in bad:
            what = "is not as it was written" if path.exists() else "is missing"
            print(f"== {path} {what}: {name} is done again", flush=True)
        discard(bad)
        return not bad

    def mark_done(
        self,
        name: str,
        inputs_hash: str,
        outputs: Any,
        files: Sequence[Path] = (),
        sources: str = "",
    ) -> None:
        """Record a finished stage, with figures for later stages and the report.

        The record keeps a digest of every file among ``files``, which may be folders in this one;
        the other arguments are those of `stage_done`.
        """
        record = to_jsonable(
            {
                "stage": name,
                "inputs": inputs_hash,
                "sources": sources,
                "time": time.time(),
                "outputs": outputs,
                "files": _digests(self.path, files),
                "frames": self._frames_of(inputs_hash),
            }
        )
        write_json(self._stage(name), {**record, "sha256": config_hash(record)})

    def _frames_of(self, inputs_hash: str) -> list[LedgerEntry]:
        """Entries of a stage of these inputs in the ledger."""
        entries: list[LedgerEntry] = self.ledger.read()["entries"]
        return [
            {"key": entry["key"], "kind": entry["kind"], "frames": entry["frames"]}
            for entry in entries
            if entry["key"].endswith(f"/{inputs_hash[:8]}")
        ]

    def stage_outputs(self, name: str) -> dict[str, Any]:
        """The outputs that `mark_done` recorded; `UserError` if there are none."""
        return read_json(self._stage(name), _Done)["outputs"]

    def stage_found(self, name: str) -> tuple[str, list[LedgerEntry]]:
        """Hash of a finished stage's outputs and files, and what it entered into the ledger."""
        record = read_json(self._stage(name), _Done)
        found = [record["outputs"], record.get("files", {})]
        return config_hash(found), record.get("frames", [])

    def _record(self, name: str) -> _Done | None:
        """A stage's record; None where it is missing or damaged."""
        path = self._stage(name)
        if not path.exists():
            return None
        try:
            record = read_json(path, _Done)
        except UserError as error:
            print(f"== {error}: {name} is done again", flush=True)
            return None
        content = {field: value for field, value in record.items() if field != "sha256"}
        if record.get("sha256") not in (None, config_hash(content)):
            print(f"== {path} is damaged: {name} is done again", flush=True)
            return None
        return record

    def _stage(self, name: str) -> Path:
        """The file of a stage's record; a name may have slashes, as in "collect/0"."""
        return self.path / "stages" / f"{name}.json"


def save_checkpoint(path: str | Path, state: Mapping[str, Any], kind: str = "checkpoint") -> None:
    """Call `worldmodels.artifacts.save_checkpoint`, and load torch only then."""
    from worldmodels import artifacts

    artifacts.save_checkpoint(path, state, kind)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Call `worldmodels.artifacts.load_checkpoint`, and load torch only then."""
    from worldmodels import artifacts

    return artifacts.load_checkpoint(path)


def agent_folder(path: Path) -> Path:
    """The agent in a run folder; the path itself if it is no run folder."""
    agent = path / "agent"
    return agent if (agent / "config.json").is_file() else path


def _digests(root: Path, outputs: Iterable[Path]) -> dict[str, str]:
    """SHA-256 (hex) of every file among some outputs, files or folders, by its path below root."""
    found = (path.rglob("*") if path.is_dir() else [path] for path in outputs)
    paths = sorted(path for inner in found for path in inner if path.is_file())
    with ThreadPoolExecutor() as pool:  # hashing releases the GIL
        pairs = zip(paths, pool.map(_digest, paths), strict=True)
        return {path.relative_to(root).as_posix(): one for path, one in pairs if one is not None}


def _digest(path: Path) -> str | None:
    """SHA-256 (hex) of a file; None where it cannot be read.

    A process hashes a file again if its size or times have changed. Digests are not kept on disk,
    since a flipped bit changes neither.
    """
    try:
        stat = path.stat()
        return _hash(path, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    except OSError:
        return None


@lru_cache(maxsize=65_536)
def _hash(path: Path, *_: int) -> str:
    return file_digest(path)


def _repair_last_line(path: Path) -> None:
    """Cut off a torn last line, so that the next record starts a line."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        data = file.read()
        if data and not data.endswith(b"\n"):
            file.truncate(data.rfind(b"\n") + 1)
