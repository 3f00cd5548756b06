"""One shard: a file of whole episodes, written once, in independently compressed blocks.

Layout, all numbers little-endian::

    8 bytes   "WMSHARD1"
    8 bytes   length of the header
    32 bytes  SHA-256 of the header
    header    JSON: what the episodes are, and where each block lies
    data      blocks: zstd frames, each with its CRC-32 in the header

The header knows the file's length: a truncated file is refused when it is opened, a damaged block
when it is read. It holds neither time nor machine: equal episodes make equal files.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypeAlias, TypedDict

import numpy as np
import zstandard
from numpy.typing import NDArray

from worldmodels._files import parse_json
from worldmodels._from_json import from_json
from worldmodels._shapes import check
from worldmodels.config import AtLeast, Count, Seed, Size
from worldmodels.envs.frames import FrameSpec
from worldmodels.envs.spaces import ActionSpec
from worldmodels.experience.episode import (
    BLOCK_FRAMES,
    CODEC,
    Actions,
    EncodedEpisode,
    Ending,
    join_colours,
)
from worldmodels.protocols import UserError
from worldmodels.runs import atomic_write

FORMAT_VERSION = 1
"""Raised when a reader must distinguish old files from new ones."""

SUFFIX = ".shard"
"""File name suffix of shards."""

_MAGIC = b"WMSHARD1"
_PREFIX = struct.Struct("<8sQ32s")
_REMEDY = "delete it and collect its episodes again"

_Natural: TypeAlias = Annotated[int, AtLeast(0)]

_MOST_EXPANSION = 32_768
"""Most bytes per compressed byte: zstd's shortest block has 4 bytes and repeats one 2^17 times."""


class _Meta(TypedDict):
    env_id: str
    frame_spec: dict[str, Any]
    frame_shape: list[Size]
    action_spec: dict[str, Any]
    versions: dict[str, str]
    action_repeat: NotRequired[Count]


class _Record(TypedDict):
    """An episode in the header."""

    seed: Seed
    length: Count
    env_steps: NotRequired[Count]
    total_reward: float
    terminated: bool
    truncated: bool
    lap_finished: bool | None
    lost: NotRequired[bool]
    offset: _Natural
    sizes: list[_Natural]
    crc32: list[_Natural]
    frames: list[_Natural]


class _Header(TypedDict):
    meta: _Meta
    data_bytes: _Natural
    data_sha256: str
    episodes: list[_Record]


@dataclass(frozen=True)
class Block:
    """Where one compressed block lies, and its checksum."""

    offset: int
    """bytes from the start of the shard's data"""
    size: int
    """compressed bytes"""
    crc: int
    """CRC-32 of the compressed bytes"""
    frames: int
    """frames in it; 0 for actions and rewards"""
    length: int
    """bytes that it decompresses to"""


def pack_shard(episodes: Sequence[EncodedEpisode], meta: Mapping[str, Any]) -> bytes:
    """The bytes of a shard of episodes; ``meta`` are facts of all of them: `_Meta`, and others."""
    if not episodes:
        raise UserError("a shard would have no episodes; give at least one")
    records, offset = [], 0
    for episode in episodes:
        data = [block for block, _ in episode.blocks]
        record = {
            "offset": offset,
            "sizes": [len(block) for block in data],
            "crc32": [zlib.crc32(block) for block in data],
            "frames": [frames for _, frames in episode.blocks],
        }
        records.append({**episode.facts, **record})
        offset += sum(map(len, data))
    data = [block for episode in episodes for block, _ in episode.blocks]
    content = {
        "format": FORMAT_VERSION,
        "codec": CODEC,
        "meta": dict(meta),
        "data_bytes": offset,
        "data_sha256": hashlib.sha256(b"".join(data)).hexdigest(),
        "episodes": records,
    }
    header = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    prefix = _PREFIX.pack(_MAGIC, len(header), hashlib.sha256(header).digest())
    return b"".join((prefix, header, *data))


def write_shard(path: Path, raw: bytes) -> Shard:
    """Write the bytes of `pack_shard`, whole or not at all, and open them.

    ``path`` ends in `SUFFIX`.

    Raises:
        UserError: the disk is full or refuses the file, or the file exists.
    """
    if path.exists():
        raise UserError(f"shard {path} exists already and is never changed; delete it first")
    try:
        atomic_write(path, raw)
    except UserError as error:
        raise UserError(f"{error} ({len(raw):,} bytes are needed)") from error
    return Shard(path)


@dataclass(frozen=True)
class EpisodeEntry(Ending):
    """What the header says of one episode."""

    length: int
    """T, the number of actions"""
    env_steps: int
    """steps of the environment: T, or more where actions were held"""
    total_reward: float
    """sum of the rewards"""
    blocks: tuple[Block, ...]
    """blocks of frames, in order"""
    action: Block
    """block of the actions"""
    reward: Block
    """block of the rewards"""


class Shard:
    """A shard on disk. Its header is kept in memory; a block is read when it is needed."""

    def __init__(self, path: Path) -> None:
        """Open a shard and check its header and its length.

        Raises:
            UserError: no shard, of another format version, truncated, or with a damaged header.
        """
        self.path = Path(path)
        header, self.header_sha256, self._data_start = _read_header(self.path)
        self.meta: dict[str, Any] = header["meta"]
        self.data_bytes: int = header["data_bytes"]
        where = f"header of shard {self.path}: meta."
        self.frame_spec = from_json(FrameSpec, self.meta["frame_spec"], f"{where}frame_spec.")
        self.action_spec = from_json(ActionSpec, self.meta["action_spec"], f"{where}action_spec.")
        size, shape = self.frame_spec.size, self.meta["frame_shape"]
        try:
            if shape != [size, size, 3]:
                raise ValueError(f"frame_shape {shape} with frame_spec.size {size}")
            self.entries = tuple(self._entry(record) for record in header["episodes"])
            _check_layout(self.entries, self.data_bytes)
        except ValueError as error:
            raise UserError(f"shard {self.path} has a header of {error}; {_REMEDY}") from error
        expected = self._data_start + self.data_bytes
        actual = os.stat(self.path).st_size
        if actual != expected:
            raise UserError(
                f"shard {self.path} has {actual:,} bytes and should have {expected:,}: it is "
                f"truncated or was changed; {_REMEDY}"
            )

    def _entry(self, record: _Record) -> EpisodeEntry:
        """Rebuild what `write_shard` laid out; ValueError for another layout."""
        sizes, crcs = record["sizes"], record["crc32"]
        frames, steps = record["frames"], record["length"]
        whole, rest = divmod(steps + 1, BLOCK_FRAMES)
        expected = [BLOCK_FRAMES] * whole + [rest] * (rest > 0)
        if frames != [*expected, 0, 0] or not len(frames) == len(sizes) == len(crcs):
            raise ValueError(
                f"an episode of {steps:,} steps with other frames or blocks than these"
            )
        spec, pixels = self.action_spec, 3 * self.frame_spec.size**2
        step_bytes = 8 if spec.kind == "discrete" else 4 * spec.dim
        lengths = [pixels * n for n in expected] + [step_bytes * steps, 4 * steps]
        offsets = accumulate(sizes, initial=record["offset"])
        *of_frames, action, reward = map(Block, offsets, sizes, crcs, frames, lengths)
        return EpisodeEntry(
            seed=record["seed"],
            length=steps,
            env_steps=record.get("env_steps", steps),  # older files lack this
            total_reward=record["total_reward"],
            terminated=record["terminated"],
            truncated=record["truncated"],
            lap_finished=record["lap_finished"],
            lost=record.get("lost", False),  # and this
            blocks=tuple(of_frames),
            action=action,
            reward=reward,
        )

    def _read_block(self, block: Block, what: str) -> bytes:
        """A block's bytes, decompressed; `what` names a corrupt one in errors."""
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(self._data_start + block.offset)
                raw = file.read(block.size)
        except FileNotFoundError:
            raise UserError(f"shard {self.path} is gone; restore it or collect again") from None
        if len(raw) != block.size or zlib.crc32(raw) != block.crc:
            first = self._data_start + block.offset
            raise UserError(
                f"shard {self.path} is corrupt in {what} "
                f"(bytes {first:,} to {first + block.size:,}); {_REMEDY}"
            )
        try:
            if zstandard.get_frame_parameters(raw).content_size == block.length:
                return zstandard.ZstdDecompressor().decompress(raw)
        except zstandard.ZstdError:
            pass  # refused below
        raise UserError(
            f"shard {self.path} is corrupt in {what}: it does not hold the {block.length:,} bytes "
            f"that its header promises; {_REMEDY}"
        )

    def read_frames(self, episode: int, index: int, out: NDArray[np.uint8]) -> None:
        """Decode one block of n frames into `out` (n, S, S, 3), contiguous."""
        block = self.entries[episode].blocks[index]
        raw = self._read_block(block, f"frame block {index} of episode {episode}")
        join_colours(np.frombuffer(raw, np.uint8), out)

    def read_steps(self, episode: int) -> tuple[Actions, NDArray[np.float32]]:
        """Return an episode's actions, (T, A) float32 or (T,) int64, and rewards, (T,) float32."""
        entry = self.entries[episode]
        paid = self._read_block(entry.reward, f"rewards of episode {episode}")
        reward = np.frombuffer(paid, "<f4").astype(np.float32)
        raw = self._read_block(entry.action, f"actions of episode {episode}")
        if self.action_spec.kind == "discrete":
            return np.frombuffer(raw, "<i8").astype(np.int64), reward
        return np.frombuffer(raw, "<f4").astype(np.float32).reshape(entry.length, -1), reward


def _read_header(path: Path) -> tuple[dict[str, Any], str, int]:
    """The checked header, its SHA-256, and where the data begin."""
    try:
        with path.open("rb") as file:
            prefix = file.read(_PREFIX.size)
            if len(prefix) < _PREFIX.size or prefix[: len(_MAGIC)] != _MAGIC:
                raise UserError(f"{path} is not a shard of episodes, or its beginning is damaged")
            _, length, digest = _PREFIX.unpack(prefix)
            raw = file.read(min(length, os.stat(path).st_size))
    except FileNotFoundError:
        raise UserError(f"shard {path} does not exist") from None
    except IsADirectoryError:
        raise UserError(f"shard {path} is a folder") from None
    if len(raw) != length or hashlib.sha256(raw).digest() != digest:
        raise UserError(f"shard {path} has a truncated or corrupt header; {_REMEDY}")
    header = parse_json(raw, f"shard {path} has a damaged header ({{}}); {_REMEDY}")
    found = header.get("format") if isinstance(header, dict) else None
    if found != FORMAT_VERSION:
        raise UserError(
            f"shard {path} has format {found!r}; this version reads {FORMAT_VERSION}: collect the "
            "episodes again or use the version that wrote them"
        )
    check(header, _Header, f"header of shard {path}")
    return header, digest.hex(), _PREFIX.size + length


def _check_layout(entries: Sequence[EpisodeEntry], data_bytes: int) -> None:
    """Refuse blocks with gaps, or too short for their content (ValueError).

    This bounds what a reader allocates by the size of the file.
    """
    if not entries:
        raise ValueError("no episodes")
    end = 0
    for number, entry in enumerate(entries):
        for block in (*entry.blocks, entry.action, entry.reward):
            if block.offset != end:
                raise ValueError(f"blocks that do not lie end to end, in episode {number}")
            if block.length > block.size * _MOST_EXPANSION:
                raise ValueError(
                    f"a block of {block.size:,} bytes for {block.length:,} in episode {number}"
                )
            end += block.size
    if end != data_bytes:
        raise ValueError(f"blocks of {end:,} bytes and data of {data_bytes:,}")
