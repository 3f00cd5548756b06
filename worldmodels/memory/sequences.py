"""Latent sequences for M: whole episodes cut into windows that follow one another in a stream.

M is trained by truncated back-propagation through time with the state carried on: a stream plays
an episode window by window, so M's state at step 600 is the one it will have at step 600 of a
drive or of a dream. The order is a pure function of (seed, epoch), which makes a resumed training
see the batches of an unbroken one.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from worldmodels.protocols import UserError
from worldmodels.runs import derive_seed
from worldmodels.vision.latents import Latents


class SequenceBatch(NamedTuple):
    """Windows of B streams; everything after an episode's end is masked."""

    mu: NDArray[np.float32]
    """(B, T + 1, Z) posterior means of the frames"""
    logvar: NDArray[np.float32]
    """(B, T + 1, Z) posterior log variances"""
    action: NDArray[np.float32]
    """(B, T, A) encoded actions"""
    reward: NDArray[np.float32]
    """(B, T)"""
    terminated: NDArray[np.float32]
    """(B, T) 1 where the step ended the episode by termination"""
    mask: NDArray[np.float32]
    """(B, T) 1 where the step exists"""
    restart: NDArray[np.bool_]
    """(B,) whether the stream starts a new episode here, so that M's state starts at zero"""


@dataclass(frozen=True)
class _Window:
    first: int
    """index of the first frame"""
    steps: int
    """steps inside the window, at most T"""
    restart: bool
    ends: bool
    """whether the last step terminated the episode"""


class SequenceStreams:
    """Plans epochs of windows over a set of latents."""

    def __init__(
        self,
        latents: Latents,
        length: int,
        streams: int,
        seed: int,
        repeats: NDArray[np.int64] | None = None,
    ) -> None:
        """Cut ``latents`` into windows of ``length`` steps for ``streams`` parallel streams.

        Args:
            latents: the encoded episodes.
            length: T, steps a window.
            streams: B, windows a batch.
            seed: fixes the order.
            repeats: (E,) how often an epoch plays each episode; None plays each once.
        """
        if latents.num_episodes == 0:
            raise UserError("there are no episodes to train M on; collect some first")
        self.latents, self.length, self.streams, self.seed = latents, length, streams, seed
        self.repeats = np.ones(latents.num_episodes, np.int64) if repeats is None else repeats

    def batches(self, start: int = 0) -> Iterator[SequenceBatch]:
        """Endless batches from number ``start`` on, epoch after epoch."""
        epoch = 0
        while True:
            lanes = self._plan(epoch)
            steps = max(len(lane) for lane in lanes)
            for index in range(min(start, steps), steps):
                yield self._gather([lane[index] if index < len(lane) else None for lane in lanes])
            start = max(0, start - steps)
            epoch += 1

    def steps_per_epoch(self) -> int:
        """Batches in the first epoch (later epochs differ by a few)."""
        return max(len(lane) for lane in self._plan(0))

    def _plan(self, epoch: int) -> list[list[_Window]]:
        """Shuffle the episodes and give each to the stream that is the shortest so far."""
        rng = np.random.default_rng(derive_seed(self.seed, "sequences", epoch))
        order = rng.permutation(np.repeat(np.arange(self.latents.num_episodes), self.repeats))
        lanes: list[list[_Window]] = [[] for _ in range(self.streams)]
        heap = [(0, lane) for lane in range(self.streams)]
        for episode in order:
            filled, lane = heapq.heappop(heap)
            windows = self._windows(int(episode), int(rng.integers(self.length)))
            lanes[lane].extend(windows)
            heapq.heappush(heap, (filled + len(windows), lane))
        return lanes

    def _windows(self, episode: int, offset: int) -> list[_Window]:
        """Windows of one episode; the first is shortened by ``offset`` so that cuts move."""
        first = int(self.latents.offsets[episode])
        total = int(self.latents.offsets[episode + 1]) - first - 1
        terminated = bool(self.latents.terminated[episode])
        windows, at = [], 0
        while at < total:
            steps = min(self.length - (offset if at == 0 else 0), total - at)
            ends = terminated and at + steps == total
            windows.append(_Window(first + at, steps, at == 0, ends))
            at += steps
        return windows

    def _gather(self, windows: list[_Window | None]) -> SequenceBatch:
        """Copy the windows' rows into one padded batch."""
        lat, b, t = self.latents, len(windows), self.length
        mu = np.zeros((b, t + 1, lat.z_dim), np.float32)
        logvar = np.zeros((b, t + 1, lat.z_dim), np.float32)
        action = np.zeros((b, t, lat.action.shape[1]), np.float32)
        reward, terminated, mask = (np.zeros((b, t), np.float32) for _ in range(3))
        restart = np.ones(b, np.bool_)
        for row, window in enumerate(windows):
            if window is None:
                continue
            n, first = window.steps, window.first
            mu[row, : n + 1] = lat.mu[first : first + n + 1]
            logvar[row, : n + 1] = lat.logvar[first : first + n + 1]
            action[row, :n] = lat.action[first : first + n]
            reward[row, :n] = lat.reward[first : first + n]
            mask[row, :n] = 1.0
            terminated[row, n - 1] = float(window.ends)
            restart[row] = window.restart
        return SequenceBatch(mu, logvar, action, reward, terminated, mask, restart)
