"""The ledger of frames in a run folder."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypeAlias, TypedDict, get_args

from worldmodels._files import discard, read_json, write_json
from worldmodels.config import AtLeast
from worldmodels.protocols import UserError

FrameKind: TypeAlias = Literal["collection", "selection", "test", "controls", "model_free", "dream"]
"""What frames are used for; all but "dream" are steps of the real environment. "test" measures the
agent, "controls" what it is compared with; neither teaches."""

FRAME_KINDS: tuple[FrameKind, ...] = get_args(FrameKind)


class LedgerEntry(TypedDict):
    """Frames in the ledger."""

    key: str
    """names the work that used them"""
    kind: FrameKind
    frames: Annotated[int, AtLeast(0)]
    """steps of an environment"""
    superseded: NotRequired[bool]
    """true where the work was redone with other settings: listed, not in the totals"""


class _Ledger(TypedDict):
    entries: list[LedgerEntry]


class FrameLedger:
    """What all work in a run folder cost in frames, by what they were used for.

    It lists all work that was ever done in the folder; its totals are what the present agent cost,
    without work that was redone with other settings (`settle`).
    """

    def __init__(self, path: Path) -> None:
        """The ledger in the file ``path``, which need not exist."""
        self.path = path

    def add(self, kind: str, frames: int, key: str) -> None:
        """Enter frames, once per key: a resumed or repeated stage may do it again.

        The key names the work, such as "collect/0/<hash of its inputs>".

        Raises:
            ValueError: unknown kind, negative number, or a key of other frames.
        """
        if kind not in FRAME_KINDS:
            raise ValueError(f"kind is {kind!r}, must be one of {', '.join(FRAME_KINDS)}")
        if frames < 0:
            raise ValueError(f"frames is {frames}, must not be negative")
        entry: LedgerEntry = {"key": key, "kind": kind, "frames": int(frames)}
        entries = self.read()["entries"]
        for known in entries:
            if known["key"] == key:
                if (known["kind"], known["frames"]) != (kind, frames):
                    raise ValueError(f"the ledger has {known}, so {entry} needs another key")
                return
        write_json(self.path, _ledger([*entries, entry]))

    def drop_if_damaged(self) -> None:
        """Remove a damaged ledger; `settle` restores it from the stages' records.

        Frames of other commands, such as `worldmodels evaluate --run`, are lost.
        """
        try:
            self.read()
        except UserError as error:
            print(f"== {error}: it is restored from the stages' records", flush=True)
            discard([self.path])

    def settle(self, current: Collection[str], known: Sequence[LedgerEntry] = ()) -> None:
        """Count what the present agent cost; other work of a run's stages is superseded.

        Args:
            current: first 8 letters of the hashes of the present agent's stages, in which the keys
                of their entries end. Keys of other commands end in longer ones and are kept.
            known: entries that the stages recorded; they replace lost or changed ones.
        """
        sure = {entry["key"]: entry for entry in known}
        entries: list[LedgerEntry] = []
        for entry in self.read()["entries"]:
            words = entry["key"].split("/")
            entry = sure.pop(entry["key"], entry)
            if len(words) in (2, 3) and len(words[-1]) == 8:
                entry.pop("superseded", None)
                if words[-1] not in current:
                    entry["superseded"] = True
            entries.append(entry)
        ledger = _ledger([*entries, *sure.values()])
        if ledger["entries"] and (not self.path.exists() or ledger != read_json(self.path)):
            write_json(self.path, ledger)

    def read(self) -> dict[str, Any]:
        """The ledger, {"entries": [{"key", "kind", "frames"}], "totals": {kind: frames}}."""
        if not self.path.exists():
            return _ledger([])
        return _ledger(read_json(self.path, _Ledger)["entries"])


def _ledger(entries: list[LedgerEntry]) -> dict[str, Any]:
    """The ledger of these entries, with their totals."""
    totals = {kind: 0 for kind in FRAME_KINDS}
    for entry in entries:
        if not entry.get("superseded", False):
            totals[entry["kind"]] += entry["frames"]
    if not totals["controls"]:  # as in ledgers of earlier versions
        del totals["controls"]
    return {"entries": entries, "totals": totals}
