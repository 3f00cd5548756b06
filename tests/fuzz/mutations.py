"""Strategies: hostile values, and valid files with one or two things wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeAlias

from hypothesis import strategies as st

Tree: TypeAlias = dict[str, bytes]
"""A folder: the content of each file by its relative path."""

RAW = "@raw@"
"""Begins a string that is written into JSON as it is, without its quotes."""

LONG = {
    "<digits>": "9" * 5000,
    "<400 digits>": "1" + "0" * 400,
    "<lists>": "[" * 100_000 + "]" * 100_000,
    "<open lists>": "[" * 100_000,
    "<objects>": '{"a":' * 100_000 + "1" + "}" * 100_000,
}
"""Texts that are written in place of their short names, so that cases stay readable."""

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3, 10**12, -(10**12), 2**63, 10**30, 0.5, -2.5, 1e300, 1e-300),
    *("", " ", "x", "é☃", "[/b]", "\0", "\ud800", "../../x", "/", "nan", "zh" * 50, [], {}, [[]]),
    *([None], [1], [1, 2, 3], ["x"], [{}], {"x": 1}, {"": None}, {"__class__": "x"}),
    *(f"{RAW}{text}" for text in ("NaN", "Infinity", "-Infinity", "1e400", "-0", "0.<digits>")),
    *(f"{RAW}{name}" for name in ("<digits>", "<400 digits>", "<400 digits>.0", "<lists>")),
)
"""What stands where something else should."""

TEXTS: tuple[bytes, ...] = (
    *(b"", b" ", b"\n", b"{}", b"[]", b"null", b"3", b'"x"', b"NaN", b"{", b"\0\0\0", b"[{}]"),
    *(b"\xff\xfe{}", b"\xef\xbb\xbf{}", b'{"a": 1, "a": 2}', b"\xf0\x28\x8c\x28"),
    *(name.encode() for name in LONG),
)
"""What stands where a JSON file should."""


@dataclass(frozen=True)
class Edit:
    """Something to do to a JSON document: `pick` chooses one of its places."""

    pick: int
    how: str
    value: Any

    def __call__(self, document: Any) -> Any:
        """The document, changed in place where it is a container."""
        spots = list(_places(document))
        if not spots:
            return deepcopy(self.value)
        parent, key = spots[self.pick % len(spots)]
        if self.how == "delete":
            del parent[key]
        elif self.how == "add" and isinstance(parent, dict):
            parent[self.value if isinstance(self.value, str) else "unknown"] = deepcopy(self.value)
        elif self.how == "wrap":
            parent[key] = [parent[key]]
        elif self.how == "negate" and isinstance(parent[key], int | float):
            parent[key] = -parent[key]
        elif self.how == "grow" and isinstance(parent[key], int | float):
            parent[key] = parent[key] * 10**6 + 1
        elif self.how == "repeat" and isinstance(parent[key], list):
            parent[key] = parent[key] * 2
        else:
            parent[key] = deepcopy(self.value)
        return document


def _places(document: Any) -> Any:
    """(container, key) of every value, those of outer containers first."""
    items: Any = ()
    if isinstance(document, dict):
        items = list(document)
    elif isinstance(document, list):
        items = range(min(len(document), 3))
    yield from ((document, key) for key in items)
    for key in items:
        yield from _places(document[key])


@dataclass(frozen=True)
class Bytes:
    """Something to do to the bytes of a file; `place` is from 0 to 1."""

    place: float
    how: str
    value: int

    def __call__(self, data: bytes) -> bytes:
        """Other bytes."""
        at = int(self.place * len(data))
        if self.how == "cut":
            return data[:at]
        if self.how == "drop":
            return data[:at] + data[at + self.value + 1 :]
        if self.how == "double":
            return data[:at] + data[at : at + 40] + data[at:]
        if self.how == "append":
            return data + bytes([self.value]) * 9
        changed = bytearray(data)
        if changed:
            changed[at] = changed[at] ^ (1 << self.value % 8) if self.how == "flip" else self.value
        return bytes(changed)


edits = st.builds(
    Edit,
    st.integers(0, 10**6),
    st.sampled_from(["set"] * 5 + ["delete", "add", "wrap", "negate", "grow", "repeat"]),
    st.sampled_from(VALUES),
)
byte_changes = st.builds(
    Bytes,
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(["cut", "flip", "set", "drop", "double", "append"]),
    st.integers(0, 255),
)


def dumps(document: Any) -> bytes:
    """JSON with the raw parts and the long ones in."""
    text = json.dumps(document)
    while (at := text.find(f'"{RAW}')) >= 0:
        end = text.index('"', at + 1)
        text = text[:at] + text[at + 1 + len(RAW) : end] + text[end + 1 :]
    return lengthened(text.encode())


def lengthened(data: bytes) -> bytes:
    """The data with the long texts in place of their names."""
    for name, text in LONG.items():
        data = data.replace(name.encode(), text.encode())
    return data


def edited(data: bytes, changes: tuple[Edit, ...]) -> bytes:
    """A JSON file with some edits."""
    document = json.loads(data)
    for change in changes:
        document = change(document)
    return dumps(document)


@dataclass(frozen=True)
class Change:
    """What is done to one file of a tree."""

    pick: int
    """chooses the file"""
    how: str
    edits: tuple[Edit, ...]
    raw: Bytes
    text: bytes
    tensors: str = ""

    def __repr__(self) -> str:
        """What matters of it, short."""
        what = {"edit": self.edits, "bytes": self.raw, "text": self.text[:30]}.get(self.how, "")
        return f"Change({self.pick}, {self.how}, {str(what)[:200]}, {self.tensors})"


def changes(hows: tuple[str, ...], tensors: tuple[str, ...] = ("",)) -> st.SearchStrategy[Change]:
    """Changes of these kinds."""
    return st.builds(
        Change,
        st.integers(0, 10**6),
        st.sampled_from(hows),
        st.lists(edits, min_size=1, max_size=2).map(tuple),
        byte_changes,
        st.sampled_from(TEXTS),
        st.sampled_from(tensors),
    )


Special: TypeAlias = Callable[[bytes, Change], bytes]


def apply(tree: Mapping[str, bytes], change: Change, special: dict[str, Special]) -> Tree:
    """The tree with one file changed; `special` has the ways to edit files that are no JSON.

    A file that is missing from the result was removed; one that ends in "/" is a folder.
    """
    result = dict(tree)
    json_files = [name for name in tree if name.endswith((".json", ".jsonl"))]
    names = sorted([*tree, *json_files * 2])
    name = names[change.pick % len(names)]
    data, ending = tree[name], name.rpartition(".")[2]
    if change.how == "same":
        return result
    if change.how == "remove":
        del result[name]
    elif change.how == "folder":
        del result[name]
        result[f"{name}/"] = b""
    elif change.how == "bytes":
        result[name] = change.raw(result[name])
    elif change.how == "text":
        result[name] = lengthened(change.text)
    else:
        result[name] = (special | {"json": _edited_json}).get(ending, _changed)(data, change)
    return result


def _edited_json(data: bytes, change: Change) -> bytes:
    return edited(data, change.edits)


def _changed(data: bytes, change: Change) -> bytes:
    return change.raw(data)


def edited_lines(data: bytes, change: Change) -> bytes:
    """A file of JSON lines with one of them edited, or torn."""
    lines = data.splitlines(keepends=True)
    at = change.pick // 7 % len(lines)
    lines[at] = edited(lines[at], change.edits) + b"\n"
    if change.raw.value < 30:
        lines[-1] = change.raw(lines[-1])
    return b"".join(lines)


def edited_tensors(data: bytes, change: Change) -> bytes:
    """A safetensors file with its header edited, in the same frame."""
    length = int.from_bytes(data[:8], "little")
    header, body = data[8 : 8 + length], data[8 + length :]
    if change.tensors == "length":
        claimed: int = change.edits[0].pick * 10 ** (change.raw.value % 13)
        return (claimed % 2**64).to_bytes(8, "little") + header + body
    if change.tensors in ("nan", "inf", "huge"):
        number = {"nan": b"\x00\x7e", "inf": b"\x00\x7c", "huge": b"\xff\x7b"}[change.tensors]
        at = int(change.raw.place * len(body)) // 2 * 2
        return data[: 8 + length] + body[:at] + number * 8 + body[at + 16 :]
    new = edited(header, change.edits)
    return len(new).to_bytes(8, "little") + new + body
