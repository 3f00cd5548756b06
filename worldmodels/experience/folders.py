"""Folders of shards: which there are, whether one is missing, and whether they go together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from worldmodels.experience.shards import SUFFIX, Shard
from worldmodels.protocols import UserError
from worldmodels.runs import read_json

MANIFEST = "manifest.json"
"""File that lists the shards of a finished collection."""

FRAME_VERSIONS = ("gymnasium", "box2d", "pygame")
"""Packages whose versions change frames or physics, so that sets of several must not be mixed."""


class _Facts(TypedDict):
    header_sha256: str


class _Manifest(TypedDict):
    shards: dict[str, _Facts]


def shard_files(folder: Path) -> list[Path]:
    """Return the shards in a folder by name, leaving out what a writer has not finished."""
    return sorted(p for p in folder.glob(f"*{SUFFIX}") if not p.name.startswith("."))


def open_folder(folder: Path) -> list[Shard]:
    """Open a folder's shards and compare them with its manifest, if the collection was finished."""
    if not folder.is_dir():
        raise UserError(f"there is no folder of episodes {folder}; `worldmodels collect` makes one")
    shards = [Shard(path) for path in shard_files(folder)]
    manifest = folder / MANIFEST
    if manifest.exists():
        listed = read_json(manifest, _Manifest)["shards"]
        found = {shard.path.name: shard for shard in shards}
        for name, facts in listed.items():
            if name not in found:
                raise UserError(f"shard {folder / name} is missing; collect again to make it anew")
            if found[name].header_sha256 != facts["header_sha256"]:
                raise UserError(f"shard {folder / name} is not the one that {manifest} lists")
        for name in found:
            if name not in listed:
                raise UserError(
                    f"shard {folder / name} is not in {manifest}: its collection was not finished; "
                    "run it again to the end"
                )
    if not shards:
        raise UserError(f"{folder} holds no shards of episodes; `worldmodels collect` makes them")
    return shards


def check_same(shards: Sequence[Shard], allow_mixed_versions: bool) -> None:
    """Refuse shards that do not belong into one set."""
    first = shards[0]
    for shard in shards:
        for key in ("env_id", "frame_spec", "frame_shape", "action_spec"):
            if shard.meta[key] != first.meta[key]:
                raise UserError(
                    f"{shard.path} has {key} {shard.meta[key]} and {first.path} has "
                    f"{first.meta[key]}; a store holds episodes of one kind"
                )
        held, other = (s.meta.get("action_repeat", 1) for s in (shard, first))
        if held != other:
            raise UserError(
                f"{shard.path} has action_repeat {held} and {first.path} has {other}; a store "
                "holds episodes of one kind"
            )
        for name in () if allow_mixed_versions else FRAME_VERSIONS:
            mine, other = (s.meta["versions"].get(name, "absent") for s in (shard, first))
            if mine != other:
                raise UserError(
                    f"{shard.path} was made with {name} {mine} and {first.path} with {other}; "
                    "their frames may differ: collect one again, or allow_mixed_versions=True"
                )
