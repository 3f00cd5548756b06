"""Records of one episode, and its encoder for the disk: frames are compressed as they come.

A block holds up to `BLOCK_FRAMES` frames of one episode, colour by colour (3, n, S, S), so that
zstd finds equal values in neighbouring pixels and frames (measured: docs/results/storage.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

import numpy as np
import zstandard
from numpy.typing import NDArray

from worldmodels._compile import compiled
from worldmodels.protocols import UserError

BLOCK_FRAMES = 32
"""Frames in a block: small enough for random access, large enough to compress well."""

CODEC = "zstd"
"""Name of the compression, for the header."""

_LEVEL = 1

Actions: TypeAlias = NDArray[np.float32] | NDArray[np.int64]
"""(T, A) float32 for a Box action space, (T,) int64 for a Discrete one."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """Which episode it was, and how it ended."""

    seed: int
    """the environment was reset with it"""
    terminated: bool
    """ended by the environment's own rules"""
    truncated: bool
    """ended by a limit of time or of steps"""
    lap_finished: bool | None = None
    """whether the lap was completed (None: unknown)"""
    lost: bool = False
    """truncated after too long without a reward (`CollectConfig.patience`)"""

    def ending(self) -> dict[str, Any]:
        """These facts alone."""
        return {fact.name: getattr(self, fact.name) for fact in fields(Ending)}


@dataclass(frozen=True)
class EpisodeResult(Ending):
    """How one episode went: T decisions, in `length` steps of the environment."""

    total_reward: float
    """the episode's return, undiscounted: its rewards added in float64"""
    length: int
    """steps of the environment"""
    actions: NDArray[Any] | None = field(default=None, repr=False, compare=False)
    """(T, A) or (T,) executed actions: with the seed they are the episode"""
    rewards: NDArray[np.float64] | None = field(default=None, repr=False, compare=False)
    """(T,) rewards, those of a held action summed"""
    ms_per_action: float | None = field(default=None, compare=False)
    """milliseconds of the policy per step of the environment: the group's, per active episode"""

    def to_json(self) -> dict[str, Any]:
        """The record of an evaluation, without actions, rewards and frames."""
        return {
            "seed": self.seed,
            "return": self.total_reward,
            "length": self.length,
            "lap_finished": self.lap_finished,
            "terminated": self.terminated,
            "ms_per_action": self.ms_per_action,
        }


@dataclass(frozen=True, eq=False)
class Episode(Ending):
    """One whole episode: T steps, T + 1 frames, the last frame being what the last action led to.

    Raises:
        UserError: shapes or types do not fit each other, or a reward or an action is not finite.
    """

    obs: NDArray[np.uint8]
    """(T + 1, 64, 64, 3) frames as V sees them"""
    action: Actions
    reward: NDArray[np.float32]
    """(T,) reward of each action"""

    def __post_init__(self) -> None:
        """Check every array before it reaches the disk."""
        where = f"episode of seed {self.seed}: obs is"
        if self.obs.dtype != np.uint8 or self.obs.ndim != 4 or self.obs.shape[3] != 3:
            found = f"{self.obs.dtype} {self.obs.shape}"
            raise UserError(f"{where} {found}; it must be uint8 (T + 1, S, S, 3)")
        if len(self.obs) < 2:
            raise UserError(f"{where} {len(self.obs)} frames; it must be at least two frames")
        _check_steps(self.seed, self.action, self.reward, len(self.obs) - 1)

    def __len__(self) -> int:
        """T, the number of steps."""
        return len(self.reward)


def _check_steps(seed: int, action: Actions, reward: NDArray[np.float32], steps: int) -> None:
    """Check an episode's actions and rewards; name the first wrong step."""
    where = f"episode of seed {seed}"
    box = action.dtype == np.float32 and action.ndim == 2
    if not box and not (action.dtype == np.int64 and action.ndim == 1):
        raise UserError(
            f"{where}: actions are {action.dtype} {action.shape}; "
            "they must be float32 (T, A) or int64 (T,)"
        )
    if reward.dtype != np.float32 or reward.ndim != 1:
        raise UserError(
            f"{where}: rewards are {reward.dtype} {reward.shape}; they must be float32 (T,)"
        )
    if len(action) != steps or len(reward) != steps:
        raise UserError(
            f"{where}: {steps + 1} frames, {len(action)} actions and {len(reward)} rewards; "
            f"T + 1 frames go with T actions and T rewards"
        )
    for name, values in (("reward", reward), ("action", action)):
        wrong = np.flatnonzero(~np.isfinite(values).reshape(steps, -1).all(axis=1))
        if len(wrong):
            raise UserError(
                f"{where}: the {name} of step {wrong[0]} is {values[wrong[0]]}; it must be finite"
            )


# Compiled, since numpy's strided copies take ten times as long, more than decompression.
@compiled(nogil=True)
def split_colours(frames: Any) -> Any:  # pragma: no cover - compiled
    """Turn contiguous frames (n, S, S, 3) into planes (3, n, S, S)."""
    planes = np.empty((3, frames.shape[0], frames.shape[1], frames.shape[2]), np.uint8)
    source, target, n = frames.reshape(-1), planes.reshape(-1), frames.size // 3
    for i in range(n):
        target[i] = source[3 * i]
        target[n + i] = source[3 * i + 1]
        target[2 * n + i] = source[3 * i + 2]
    return planes


@compiled(nogil=True)
def join_colours(planes: Any, out: Any) -> None:  # pragma: no cover - compiled
    """Turn planes (3, n, S, S) into frames (n, S, S, 3); both contiguous, of any shape."""
    source, target, n = planes.reshape(-1), out.reshape(-1), planes.size // 3
    for i in range(n):
        target[3 * i] = source[i]
        target[3 * i + 1] = source[n + i]
        target[3 * i + 2] = source[2 * n + i]


@dataclass(frozen=True)
class EncodedEpisode:
    """An episode ready to be written: compressed blocks and what the header says of them."""

    facts: dict[str, Any]
    """seed, length, ending and total reward"""
    blocks: list[tuple[bytes, int]]
    """compressed block and its number of frames: frames in order, then actions, then rewards"""


class EpisodeEncoder:
    """Takes the frames of one episode as they come and keeps them compressed."""

    def __init__(self, seed: int) -> None:
        """Begin the episode of an environment that was reset with `seed`."""
        self._seed = seed
        self._pending: list[NDArray[np.uint8]] = []
        self._frames = 0
        self._blocks: list[tuple[bytes, int]] = []
        self._compress = zstandard.ZstdCompressor(level=_LEVEL).compress

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Append one frame (S, S, 3), which must not change afterwards."""
        self._pending.append(frame)
        self._frames += 1
        if len(self._pending) == BLOCK_FRAMES:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            planes = split_colours(np.stack(self._pending))
            self._blocks.append((self._compress(planes.data), len(self._pending)))
            self._pending = []

    def finish(self, result: EpisodeResult) -> EncodedEpisode:
        """Close the episode, which went as `result` says, actions and rewards included.

        Raises:
            UserError: T actions and rewards do not go with the frames, or one is not finite.
        """
        assert result.actions is not None and result.rewards is not None
        action, reward = result.actions, result.rewards.astype(np.float32)
        _check_steps(self._seed, action, reward, self._frames - 1)
        self._flush()
        for array in (action, reward):
            little_endian = array.astype(array.dtype.newbyteorder("<"))
            self._blocks.append((self._compress(little_endian.tobytes()), 0))
        total = float(reward.sum(dtype=np.float64))
        facts = {"length": len(reward), "env_steps": result.length, "total_reward": total}
        return EncodedEpisode({**result.ending(), **facts}, self._blocks)
