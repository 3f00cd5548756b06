"""Random access to a store in bounded memory: shuffled frames and windows of transitions.

Every order here is a pure function of a seed and a number, so batch k can be had without the k
batches
before it: a resumed training sees exactly what the unbroken one would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from worldmodels.config import Count, CountOrZero, require
from worldmodels.experience.encoding import BLOCK_FRAMES
from worldmodels.protocols import UserError

if TYPE_CHECKING:
    from worldmodels.experience.store import EpisodeStore

T = TypeVar("T")

BUFFER_FRAMES = 8192
"""Frames that are shuffled among each other: 256 blocks of 32, 100 MB at 64x64."""


def seed_of(rng: int | np.random.Generator) -> int:
    """Return a seed: the number itself, or one drawn from a generator."""
    return int(rng.integers(2**63)) if isinstance(rng, np.random.Generator) else int(rng)


@dataclass(frozen=True)
class _Blocks:
    """All blocks of frames of a store."""

    episode: NDArray[np.int64]
    number: NDArray[np.int64]
    frames: NDArray[np.int64]

    @classmethod
    def of(cls, store: EpisodeStore) -> _Blocks:
        rows = [
            (record.index, number, block.frames)
            for record in store.episodes
            for number, block in enumerate(record.entry.blocks)
        ]
        return cls(*np.array(rows, np.int64).T)


def frame_batches(
    store: EpisodeStore,
    batch: int,
    seed: int,
    *,
    start: int,
    epochs: int | None,
    buffer_frames: int,
    drop_last: bool,
    prefetch: bool,
) -> Iterator[NDArray[np.uint8]]:
    """Yield shuffled frames, each once an epoch.

    All blocks are shuffled and dealt into pools of about `buffer_frames` frames; the frames of a
    pool are shuffled among each other. Two pools are in memory, one being decoded while the other
    is used.

    Args:
        store: where the frames come from.
        batch: B, frames in a batch.
        seed: fixes the order.
        start: number of the first batch, counted through all epochs; the ones before it cost
            nothing.
        epochs: after how many to stop; None goes on for ever.
        buffer_frames: size of a pool; memory is twice that.
        drop_last: leave out an epoch's last batch if it is short (other frames in each epoch).
        prefetch: decode the next pool in a thread.

    Yields:
        uint8 (B, S, S, 3), the caller's own.

    Raises:
        UserError: fewer frames than one batch, or a corrupt block.
    """
    require("batch", batch, Count)
    require("start", start, CountOrZero)
    require("buffer_frames", buffer_frames, Count)
    if drop_last and store.num_frames < batch:
        raise UserError(
            f"the store has {store.num_frames} frames, fewer than one batch of {batch}; "
            "collect more episodes, or lower the batch size"
        )
    pools = _Pools(store, buffer_frames)
    first_epoch, number = divmod(start, store.batches_per_epoch(batch, drop_last))
    for epoch in count(first_epoch) if epochs is None else range(first_epoch, epochs):
        skip = number * batch
        number = 0
        decoded = _ahead(pools.epoch((seed, epoch), skip), prefetch)
        yield from _cut(decoded, batch, store.frame_shape, drop_last)


class _Pools:
    """Deals the blocks of a store into pools and decodes them, into two buffers by turns.

    Two are enough, as a pool is only asked for when the last but one was used up; made once, as
    fresh memory costs the system as much time as filling it.
    """

    def __init__(self, store: EpisodeStore, frames: int) -> None:
        self._store = store
        self._frames = frames
        self._blocks = _Blocks.of(store)
        size = min(frames + BLOCK_FRAMES, store.num_frames)
        self._buffers = [np.empty((size, *store.frame_shape), np.uint8) for _ in range(2)]

    def epoch(
        self, key: tuple[int, int], skip: int
    ) -> Iterator[Callable[[], tuple[NDArray[np.uint8], NDArray[np.int64]]]]:
        """Yield, for each pool from the one that holds frame `skip` on, what decodes it.

        A decoded pool is its frames (n, S, S, 3) and the order in which to hand them out.
        """
        sizes = self._blocks.frames
        order = np.random.default_rng(key).permutation(len(sizes))
        pool_of = (np.cumsum(sizes[order]) - 1) // self._frames
        pools = np.split(order, np.flatnonzero(np.diff(pool_of)) + 1)
        for number, members in enumerate(pools):
            frames = int(sizes[members].sum())
            if skip >= frames:
                skip -= frames
                continue
            shuffled = np.random.default_rng((*key, number)).permutation(frames)[skip:]
            skip = 0
            yield partial(self._decode, members, shuffled, self._buffers[number % 2])

    def _decode(
        self, members: NDArray[np.int64], order: NDArray[np.int64], out: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        end = 0
        for member in members:
            record = self._store.episodes[self._blocks.episode[member]]
            target = out[end : end + self._blocks.frames[member]]
            record.shard.read_frames(record.position, int(self._blocks.number[member]), target)
            end += len(target)
        return out[:end], order


def _ahead(tasks: Iterator[Callable[[], T]], prefetch: bool) -> Iterator[T]:
    """Yield the tasks' results in order, the next one being worked on in a thread meanwhile."""
    if not prefetch:
        yield from (task() for task in tasks)
        return
    with ThreadPoolExecutor(1, "frames") as thread:
        waiting = None
        for task in tasks:
            following = thread.submit(task)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()


def _cut(
    pools: Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]],
    batch: int,
    shape: tuple[int, int, int],
    drop_last: bool,
) -> Iterator[NDArray[np.uint8]]:
    """Cut the pools' frames into batches; a batch may begin in one pool and end in the next."""
    out = np.empty((batch, *shape), np.uint8)
    filled = 0
    for frames, order in pools:
        used = 0
        while used < len(order):
            taken = min(batch - filled, len(order) - used)
            np.take(frames, order[used : used + taken], axis=0, out=out[filled : filled + taken])
            filled += taken
            used += taken
            if filled == batch:
                yield out
                out = np.empty((batch, *shape), np.uint8)
                filled = 0
    if filled and not drop_last:
        yield out[:filled]
