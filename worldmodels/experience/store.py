"""Shards in folders, opened as one set of episodes that never has to fit into memory."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldmodels.config import from_json
from worldmodels.envs.frames import FrameSpec
from worldmodels.envs.spaces import ActionSpec
from worldmodels.experience import sampling
from worldmodels.experience.encoding import BLOCK_FRAMES
from worldmodels.experience.episode import Episode
from worldmodels.experience.folders import check_same, open_folder
from worldmodels.experience.shards import EpisodeEntry, Shard
from worldmodels.protocols import UserError

_STEPS_KEPT = 256


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
    def length(self) -> int:
        """T, the number of steps."""
        return self.entry.length

    @property
    def num_frames(self) -> int:
        """T + 1."""
        return self.entry.length + 1


class EpisodeStore:
    """Episodes of one environment in one order: folder by folder, shard by shard, seed by seed.

    Only headers are kept in memory, about 100 bytes for 32 frames. A store can be pickled and used
    in
    several threads: each read opens the file anew.
    """

    def __init__(self, folders: Sequence[Path | str], allow_mixed_versions: bool = False) -> None:
        """Open every shard in the folders.

        Args:
            folders: what `collect` filled.
            allow_mixed_versions: accept frames made by different versions of `FRAME_VERSIONS`.

        Raises:
            UserError: a folder without shards, a missing, truncated or foreign shard, or shards
                that do not belong together (environment, frame or action specification, versions).
        """
        if not folders:
            raise UserError("no folders of episodes were given; name at least one")
        paths = [Path(folder) for folder in folders]
        if len({path.resolve() for path in paths}) != len(paths):
            raise UserError(f"a folder of episodes is named twice in {[str(p) for p in paths]}")
        shards = [shard for path in paths for shard in open_folder(path)]
        check_same(shards, allow_mixed_versions)
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
        self.meta: dict[str, Any] = members[0][0].meta
        self._steps: OrderedDict[int, tuple[Any, Any]] = OrderedDict()

    def subset(self, indices: Sequence[int]) -> EpisodeStore:
        """Return a store of some of the episodes, such as a validation set.

        Raises:
            UserError: no indices.
        """
        if not len(indices):
            raise UserError("a subset of a store needs at least one episode")
        store = object.__new__(EpisodeStore)
        chosen = [self.episodes[index] for index in indices]
        store._set([(record.shard, record.position) for record in chosen])
        return store

    def __len__(self) -> int:
        """Return the number of episodes."""
        return len(self.episodes)

    @property
    def env_id(self) -> str:
        """The environment that all episodes are of."""
        return str(self.meta["env_id"])

    @property
    def frame_spec(self) -> FrameSpec:
        """How raw frames became the stored ones."""
        return FrameSpec(**self.meta["frame_spec"])

    @property
    def action_repeat(self) -> int:
        """Steps of the environment that each recorded action was held for."""
        return int(self.meta.get("action_repeat", 1))

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(S, S, 3)."""
        height, width, channels = self.meta["frame_shape"]
        return height, width, channels

    @property
    def action_spec(self) -> ActionSpec:
        """The action space that all episodes have."""
        return from_json(ActionSpec, self.meta["action_spec"])

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what is stored, in this order: equal exactly for equal episodes."""
        digest = hashlib.sha256()
        for record in self.episodes:
            digest.update(f"{record.shard.header_sha256}:{record.position};".encode())
        return digest.hexdigest()

    def read(self, index: int) -> Episode:
        """Read one whole episode.

        Raises:
            UserError: a block of it is corrupt; the message names the file and the block.
        """
        record = self.episodes[index]
        action, reward = self.read_steps(index)
        entry = record.entry
        return Episode(
            obs=self.read_frames(index, 0, record.num_frames),
            action=action,
            reward=reward,
            terminated=entry.terminated,
            truncated=entry.truncated,
            seed=entry.seed,
            lap_finished=entry.lap_finished,
            lost=entry.lost,
            versions=dict(record.shard.meta["versions"]),
        )

    def read_steps(
        self, index: int
    ) -> tuple[NDArray[np.float32] | NDArray[np.int64], NDArray[np.float32]]:
        """Return an episode's actions, (T, A) or (T,), and rewards, (T,); the last few are kept."""
        if index not in self._steps:
            record = self.episodes[index]
            self._steps[index] = record.shard.read_steps(record.position)
            if len(self._steps) > _STEPS_KEPT:
                self._steps.popitem(last=False)
        return self._steps[index]

    def read_frames(self, index: int, first: int, stop: int) -> NDArray[np.uint8]:
        """Return the frames `first` to `stop` - 1 of one episode, (stop - first, S, S, 3)."""
        record = self.episodes[index]
        low, high = first // BLOCK_FRAMES, (stop - 1) // BLOCK_FRAMES + 1
        blocks = record.entry.blocks[low:high]
        out = np.empty((sum(block.frames for block in blocks), *self.frame_shape), np.uint8)
        filled = 0
        for number, block in enumerate(blocks, start=low):
            record.shard.read_frames(record.position, number, out[filled : filled + block.frames])
            filled += block.frames
        return out[first - low * BLOCK_FRAMES : stop - low * BLOCK_FRAMES]

    def iter_frames_in_order(self, batch: int = 256) -> Iterator[NDArray[np.uint8]]:
        """Yield all frames in the store's order, (batch, S, S, 3) and a shorter last one."""
        pending = np.empty((0, *self.frame_shape), np.uint8)
        for record in self.episodes:
            frames = self.read_frames(record.index, 0, record.num_frames)
            pending = np.concatenate([pending, frames]) if len(pending) else frames
            whole = len(pending) // batch * batch
            for first in range(0, whole, batch):
                yield pending[first : first + batch]
            pending = pending[whole:]
        if len(pending):
            yield pending

    def batches_per_epoch(self, batch: int, drop_last: bool = True) -> int:
        """Return how many batches `frame_batches` makes of all frames once."""
        return self.num_frames // batch if drop_last else -(-self.num_frames // batch)

    def frame_batches(
        self,
        batch: int,
        rng: int | np.random.Generator,
        *,
        start: int = 0,
        epochs: int | None = None,
        buffer_frames: int = sampling.BUFFER_FRAMES,
        drop_last: bool = True,
        prefetch: bool = True,
    ) -> Iterator[NDArray[np.uint8]]:
        """Yield shuffled frames, each once an epoch; see `sampling.frame_batches`."""
        return sampling.frame_batches(
            self,
            batch,
            sampling.seed_of(rng),
            start=start,
            epochs=epochs,
            buffer_frames=buffer_frames,
            drop_last=drop_last,
            prefetch=prefetch,
        )

    def verify(self) -> int:
        """Read every shard and compare with its checksums.

        Returns:
            Bytes read.

        Raises:
            UserError: names the first file and block that are damaged.
        """
        shards = {record.shard.path: record.shard for record in self.episodes}
        return sum(shard.verify() for shard in shards.values())
