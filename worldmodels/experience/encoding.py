"""Episodes on their way to the disk: frames are compressed as they come, block by block.

A block holds up to `BLOCK_FRAMES` frames of one episode, colour by colour (3, n, S, S): equal
values in neighbouring pixels and frames are then what zstd finds (measured:
docs/results/storage.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from worldmodels._compile import compiled
from worldmodels.experience.episode import Episode, check_steps

BLOCK_FRAMES = 32
"""Frames in a block: small enough for random access, large enough to compress well."""

CODEC = "zstd"
"""Name of the compression, for the header."""

_LEVEL = 1


def split_colours(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn contiguous frames (n, S, S, 3) into planes (3, n, S, S)."""
    planes = np.empty((3, *frames.shape[:3]), np.uint8)
    _split(frames.reshape(-1), planes.reshape(-1))
    return planes


def join_colours(planes: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """Turn planes (3, n, S, S) into frames (n, S, S, 3); both contiguous, of any shape."""
    _join(planes.reshape(-1), out.reshape(-1))


# Compiled, since numpy's strided copies take ten times as long: more than decompressing does.
@compiled(nogil=True)
def _split(frames: Any, planes: Any) -> None:  # pragma: no cover - compiled
    n = planes.size // 3
    for i in range(n):
        planes[i] = frames[3 * i]
        planes[n + i] = frames[3 * i + 1]
        planes[2 * n + i] = frames[3 * i + 2]


@compiled(nogil=True)
def _join(planes: Any, frames: Any) -> None:  # pragma: no cover - compiled
    n = frames.size // 3
    for i in range(n):
        frames[3 * i] = planes[i]
        frames[3 * i + 1] = planes[n + i]
        frames[3 * i + 2] = planes[2 * n + i]


@dataclass(frozen=True)
class EncodedEpisode:
    """An episode ready to be written: compressed blocks and what the header says of them."""

    facts: dict[str, Any]
    """seed, length, ending and total reward"""
    blocks: list[tuple[bytes, int]]
    """compressed block and its number of frames: frames in order, then actions, then rewards"""

    @property
    def length(self) -> int:
        """T, the number of steps."""
        return int(self.facts["length"])


class EpisodeEncoder:
    """Takes the frames of one episode as they come and keeps them compressed."""

    def __init__(self, seed: int) -> None:
        """Start an episode that the environment began with `seed`."""
        self._seed = seed
        self._buffer: NDArray[np.uint8] | None = None
        self._filled = 0
        self._frames = 0
        self._blocks: list[tuple[bytes, int]] = []
        self._compress = zstandard.ZstdCompressor(level=_LEVEL).compress

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Append one frame (S, S, 3); it is copied."""
        if self._buffer is None:
            self._buffer = np.empty((BLOCK_FRAMES, *frame.shape), np.uint8)
        self._buffer[self._filled] = frame
        self._filled += 1
        self._frames += 1
        if self._filled == BLOCK_FRAMES:
            self._flush()

    def _flush(self) -> None:
        if self._filled and self._buffer is not None:
            planes = split_colours(self._buffer[: self._filled])
            self._blocks.append((self._compress(planes.data), self._filled))
            self._filled = 0

    def finish(
        self,
        action: NDArray[np.float32] | NDArray[np.int64],
        reward: NDArray[np.float32],
        *,
        terminated: bool,
        truncated: bool,
        lap_finished: bool | None,
        env_steps: int | None = None,
        lost: bool = False,
    ) -> EncodedEpisode:
        """Close the episode.

        Args:
            action: (T, A) float32 or (T,) int64.
            reward: (T,) float32.
            terminated: ended by the environment's rules.
            truncated: ended by a limit.
            lap_finished: as the environment told, or None.
            env_steps: steps of the environment; None for T.
            lost: truncated because patience ran out.

        Raises:
            UserError: T actions and rewards do not go with the frames, or one is not finite.
        """
        check_steps(self._seed, action, reward, self._frames - 1)
        self._flush()
        for array in (action, reward):
            self._blocks.append((self._compress(_little_endian(array)), 0))
        facts = {
            "seed": int(self._seed),
            "length": len(reward),
            "env_steps": len(reward) if env_steps is None else int(env_steps),
            "total_reward": float(reward.sum(dtype=np.float64)),
            "terminated": bool(terminated),
            "truncated": bool(truncated),
            "lap_finished": lap_finished,
            "lost": bool(lost),
        }
        return EncodedEpisode(facts, self._blocks)


def encode(episode: Episode) -> EncodedEpisode:
    """Compress an episode that is in memory."""
    encoder = EpisodeEncoder(episode.seed)
    for frame in episode.obs:
        encoder.add(frame)
    return encoder.finish(
        episode.action,
        episode.reward,
        terminated=episode.terminated,
        truncated=episode.truncated,
        lap_finished=episode.lap_finished,
        lost=episode.lost,
    )


def _little_endian(array: NDArray[Any]) -> bytes:
    return array.astype(array.dtype.newbyteorder("<")).tobytes()
