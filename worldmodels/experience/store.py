"""Shards in folders, opened as one set of episodes that never has to fit into memory.

The order of shuffled frames is a pure function of a seed and a number, so batch k does not need the
batches before it: a resumed training sees exactly what an uninterrupted one would have seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from worldmodels.config import Count, CountOrZero, require
from worldmodels.envs.frames import FrameSpec
from worldmodels.envs.spaces import ActionSpec
from worldmodels.experience.episode import BLOCK_FRAMES, Actions, Episode
from worldmodels.experience.shards import SUFFIX, EpisodeEntry, Shard
from worldmodels.protocols import UserError
from worldmodels.runs import read_json

if TYPE_CHECKING:
    from worldmodels.experience.dataset import EpisodeDataset

MANIFEST = "manifest.json"
"""File that lists the shards of a finished collection."""

RUN_EPISODES = "experience"
"""Folder in a run's that holds its episodes, a folder for each iteration."""

FRAME_VERSIONS = ("gymnasium", "box2d", "pygame")
"""Packages whose versions change frames or physics: a store holds frames of one version of each."""

BUFFER_FRAMES = 8192
"""Frames that are shuffled among each other: 256 blocks of 32, 100 MB at 64x64."""

Frames: TypeAlias = NDArray[np.uint8]
"""Frames (n, S, S, 3)."""

_Pool: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Frames (n, S, S, 3), and the order (m,) in which to hand them out."""


class _Manifest(TypedDict):
    shards: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class EpisodeRecord:
    """Index entry of one episode of a store."""

    index: int
    """position in the store"""
    shard: Shard
    """where it lies"""
    position: int
    """position in its shard"""
    entry: EpisodeEntry
    """seed, length, total reward, ending, blocks"""
    first_frame: int
    """number of its first frame, counted through the whole store"""

    @property
    def num_frames(self) -> int:
        """T + 1."""
        return self.entry.length + 1


class EpisodeStore:
    """Episodes of one environment in one order: folder by folder, shard by shard, seed by seed.

    ::

        store = EpisodeStore("runs/demo")
        for episode in store:
            print(episode.seed, episode.obs.shape, episode.action.shape, episode.reward.sum())

    Only headers are kept in memory, about 100 bytes for 32 frames. A store can be pickled and used
    in several threads: each read opens the file.
    """

    def __init__(self, folders: Path | str | Sequence[Path | str]) -> None:
        """Open every shard in one folder or several.

        Args:
            folders: each is a run folder (the episodes of all its iterations), what `worldmodels
                collect` filled, or a folder of shards.

        Raises:
            UserError: a folder without shards, a missing, truncated or foreign shard, or shards
                that do not belong together (environment, frame or action specification, versions).
        """
        given = [folders] if isinstance(folders, str | Path) else list(folders)
        if not given:
            raise UserError("no folders of episodes were given; name at least one")
        paths = [found for folder in given for found in _shard_folders(Path(folder))]
        if len({path.resolve() for path in paths}) != len(paths):
            raise UserError(f"a folder of episodes is named twice in {[str(p) for p in paths]}")
        shards = [shard for path in paths for shard in _open_folder(path)]
        for shard in shards:
            _check_same(shard, shards[0])
        self._set([(shard, n) for shard in shards for n in range(len(shard.entries))])

    def _set(self, members: Sequence[tuple[Shard, int]]) -> None:
        """Build the index of these episodes."""
        self.episodes: list[EpisodeRecord] = []
        first = 0
        for index, (shard, position) in enumerate(members):
            entry = shard.entries[position]
            self.episodes.append(EpisodeRecord(index, shard, position, entry, first))
            first += entry.length + 1
        self.num_frames = first
        self.num_steps = first - len(self.episodes)
        kind = members[0][0]
        self.meta: dict[str, Any] = kind.meta
        self.env_id: str = self.meta["env_id"]
        self.frame_spec: FrameSpec = kind.frame_spec
        self.frame_shape = (self.frame_spec.size, self.frame_spec.size, 3)
        self.action_spec: ActionSpec = kind.action_spec
        self.action_repeat: int = self.meta.get("action_repeat", 1)
        """steps of the environment that each recorded action was held for"""

    def subset(self, indices: Sequence[int]) -> EpisodeStore:
        """A store of some of the episodes, at least one, such as a validation set."""
        if not len(indices):
            raise UserError("a subset of a store needs at least one episode")
        store = object.__new__(EpisodeStore)
        chosen = [self.episodes[index] for index in indices]
        store._set([(record.shard, record.position) for record in chosen])
        return store

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self.episodes)

    def __getitem__(self, index: int) -> Episode:
        """One episode, read from the disk; a negative index counts from the end."""
        return self.read(range(len(self))[index])

    def __iter__(self) -> Iterator[Episode]:
        """All episodes in order, each read from the disk when its turn comes."""
        return (self.read(index) for index in range(len(self)))

    def as_dataset(self, length: int | None = None) -> EpisodeDataset:
        """The episodes as a `torch.utils.data.Dataset`; see `EpisodeDataset`.

        Args:
            length: T of an item: a window of so many steps, which a `DataLoader` puts into batches
                (default: an item is a whole episode).

        Raises:
            UserError: no episode is that long.
        """
        from worldmodels.experience.dataset import EpisodeDataset

        return EpisodeDataset(self, length)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the episodes in this order."""
        digest = hashlib.sha256()
        for record in self.episodes:
            digest.update(f"{record.shard.header_sha256}:{record.position};".encode())
        return digest.hexdigest()

    def read(self, index: int) -> Episode:
        """Read one whole episode; `UserError` names the file and the block of a corrupt one."""
        record = self.episodes[index]
        action, reward = self.read_steps(index)
        return Episode(
            obs=self.read_frames(index),
            action=action,
            reward=reward,
            **record.entry.ending(),
        )

    def read_steps(self, index: int) -> tuple[Actions, NDArray[np.float32]]:
        """The actions (T, A) or (T,) and rewards (T,) of one episode."""
        record = self.episodes[index]
        return record.shard.read_steps(record.position)

    def read_frames(self, index: int, first: int = 0, stop: int | None = None) -> Frames:
        """The frames of one episode from ``first`` to before ``stop``, (n, S, S, 3).

        Without the two these are all T + 1. Only the blocks that hold them are decoded.
        """
        record = self.episodes[index]
        stop = record.num_frames if stop is None else stop
        begin, end = first // BLOCK_FRAMES, -(-stop // BLOCK_FRAMES)
        skipped = begin * BLOCK_FRAMES
        size = min(end * BLOCK_FRAMES, record.num_frames) - skipped
        out = np.empty((size, *self.frame_shape), np.uint8)
        for number in range(begin, end):
            at = number * BLOCK_FRAMES - skipped
            record.shard.read_frames(record.position, number, out[at : at + BLOCK_FRAMES])
        return out[first - skipped : stop - skipped]

    def frames_at(self, index: int, at: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Some frames of one episode, (N, S, S, 3); decodes only the blocks that hold them."""
        record = self.episodes[index]
        out = np.empty((len(at), *self.frame_shape), np.uint8)
        block = np.empty((BLOCK_FRAMES, *self.frame_shape), np.uint8)
        for number in np.unique(at // BLOCK_FRAMES):
            size = record.entry.blocks[number].frames
            record.shard.read_frames(record.position, int(number), block[:size])
            rows = at // BLOCK_FRAMES == number
            out[rows] = block[at[rows] % BLOCK_FRAMES]
        return out

    def frame_batches(
        self,
        batch: int,
        seed: int,
        *,
        start: int = 0,
        buffer_frames: int = BUFFER_FRAMES,
    ) -> Iterator[NDArray[np.uint8]]:
        """Yield batches (B, S, S, 3) of shuffled frames for ever, each frame once per epoch.

        All blocks are shuffled and dealt into pools of about `buffer_frames` frames; the frames of
        a pool are shuffled among each other. Two pools are in memory: a thread decodes one while
        the other is used. Frames that do not fill an epoch's last batch are left out.

        Args:
            batch: B, frames in a batch.
            seed: fixes the order.
            start: number of the first batch, counted through all epochs; earlier ones are skipped
                at no cost.
            buffer_frames: size of a pool.

        Raises:
            UserError: fewer frames than one batch, or a corrupt block.
        """
        require("batch", batch, Count)
        require("start", start, CountOrZero)
        require("buffer_frames", buffer_frames, Count)
        if self.num_frames < batch:
            raise UserError(
                f"the store has {self.num_frames} frames, fewer than one batch of {batch}; "
                "collect more episodes, or lower the batch size"
            )
        pools = _Pools(self, buffer_frames)
        first_epoch, number = divmod(start, self.num_frames // batch)
        with ThreadPoolExecutor(1, "frames") as thread:
            for epoch in count(first_epoch):
                tasks = pools.epoch((seed, epoch), number * batch)
                number = 0
                yield from _cut(_ahead(tasks, thread), batch, self.frame_shape)


def shard_files(folder: Path) -> list[Path]:
    """The finished shards in a folder, by name."""
    return sorted(p for p in folder.glob(f"*{SUFFIX}") if not p.name.startswith("."))


def _shard_folders(folder: Path) -> list[Path]:
    """The folders of shards that a folder stands for: itself, or those of a run or a collection."""
    if shard_files(folder):
        return [folder]
    inside = folder / RUN_EPISODES if (folder / RUN_EPISODES).is_dir() else folder
    manifests = [*inside.glob(f"*/{MANIFEST}"), *inside.glob(f"*/*/{MANIFEST}")]
    return sorted(path.parent for path in manifests) or [folder]


def _open_folder(folder: Path) -> list[Shard]:
    """Open a folder's shards and compare them with its manifest, if the collection was finished."""
    if not folder.is_dir():
        raise UserError(f"there is no folder of episodes {folder}; `worldmodels collect` makes one")
    shards = [Shard(path) for path in shard_files(folder)]
    manifest = folder / MANIFEST
    if manifest.exists():
        listed = read_json(manifest, _Manifest)["shards"]
        found = {shard.path.name: shard.header_sha256 for shard in shards}
        for name, facts in listed.items():
            if name not in found:
                raise UserError(f"shard {folder / name} is missing; collect again to restore it")
            if found[name] != facts.get("header_sha256"):
                raise UserError(f"shard {folder / name} is not the one that {manifest} lists")
        for name in sorted(found.keys() - listed.keys()):
            raise UserError(
                f"shard {folder / name} is not in {manifest}: its collection was not finished; "
                "run it again to the end"
            )
    if not shards:
        raise UserError(f"{folder} holds no shards of episodes; `worldmodels collect` makes them")
    return shards


def _check_same(shard: Shard, first: Shard) -> None:
    """Refuse a shard that does not belong into one set with the first one."""
    for key in ("env_id", "frame_spec", "frame_shape", "action_spec", "action_repeat"):
        usual = 1 if key == "action_repeat" else None  # older shards lack it
        held, other = (s.meta.get(key, usual) for s in (shard, first))
        if held != other:
            raise UserError(
                f"{shard.path} has {key} {held} and {first.path} has {other}; "
                "a store holds episodes of one kind"
            )
    for name in FRAME_VERSIONS:
        mine, other = (s.meta["versions"].get(name, "absent") for s in (shard, first))
        if mine != other:
            raise UserError(
                f"{shard.path} was made with {name} {mine} and {first.path} with {other}; "
                "their frames may differ: collect one of them again"
            )


class _Pools:
    """Deals the blocks of a store into pools and decodes them, into two buffers by turns.

    Two are enough, as a pool is decoded when the last but one was used up. They are made once,
    since to allocate memory takes as long as to fill it.
    """

    def __init__(self, store: EpisodeStore, frames: int) -> None:
        self._frames = frames
        self._blocks = [
            (record, number, block.frames)
            for record in store.episodes
            for number, block in enumerate(record.entry.blocks)
        ]
        self._sizes = np.array([size for *_, size in self._blocks])
        shape = (min(frames + BLOCK_FRAMES, store.num_frames), *store.frame_shape)
        self._buffers = [np.empty(shape, np.uint8) for _ in range(2)]

    def epoch(self, key: tuple[int, int], skip: int) -> Iterator[Callable[[], _Pool]]:
        """Yield, for each pool from the one that holds frame `skip` on, what decodes it."""
        order = np.random.default_rng(key).permutation(len(self._sizes))
        pool_of = (np.cumsum(self._sizes[order]) - 1) // self._frames
        pools = np.split(order, np.flatnonzero(np.diff(pool_of)) + 1)
        for number, members in enumerate(pools):
            frames = int(self._sizes[members].sum())
            if skip >= frames:
                skip -= frames
                continue
            shuffled = np.random.default_rng((*key, number)).permutation(frames)[skip:]
            skip = 0
            yield partial(self._decode, members, shuffled, self._buffers[number % 2])

    def _decode(
        self, members: NDArray[np.int64], order: NDArray[np.int64], out: NDArray[np.uint8]
    ) -> _Pool:
        end = 0
        for member in members:
            record, number, frames = self._blocks[member]
            record.shard.read_frames(record.position, number, out[end : end + frames])
            end += frames
        return out[:end], order


def _ahead(tasks: Iterator[Callable[[], _Pool]], thread: ThreadPoolExecutor) -> Iterator[_Pool]:
    """Yield the tasks' results in order, while a thread works on the next one."""
    waiting = None
    for task in tasks:
        following = thread.submit(task)
        if waiting is not None:
            yield waiting.result()
        waiting = following
    if waiting is not None:
        yield waiting.result()


def _cut(
    pools: Iterator[_Pool], batch: int, shape: tuple[int, int, int]
) -> Iterator[NDArray[np.uint8]]:
    """Cut the pools' frames into whole batches; one may begin in a pool and end in the next."""
    out, filled = np.empty((batch, *shape), np.uint8), 0
    for frames, order in pools:
        used = 0
        while used < len(order):
            taken = min(batch - filled, len(order) - used)
            np.take(frames, order[used : used + taken], axis=0, out=out[filled : filled + taken])
            filled += taken
            used += taken
            if filled == batch:
                yield out
                out, filled = np.empty((batch, *shape), np.uint8), 0
