"""Latent sequences for M: whole episodes cut into windows that follow one another in a stream.

M is trained by truncated back-propagation through time, and the state is carried from window to
window. The order is a pure function of (seed, epoch), so a resumed training sees the same batches.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodels.protocols import UserError
from worldmodels.runs import derive_seed
from worldmodels.vision.latents import Latents


class SequenceBatch(NamedTuple):
    """Windows of B streams, float32; everything after an episode's end is masked."""

    mu: Tensor
    """(B, T + 1, Z) posterior means of the frames"""
    logvar: Tensor
    """(B, T + 1, Z) posterior log variances"""
    action: Tensor
    """(B, T, A) encoded actions"""
    reward: Tensor
    """(B, T)"""
    terminated: Tensor
    """(B, T) 1 where the step ended the episode by termination"""
    mask: Tensor
    """(B, T) 1 where the step exists"""
    restart: Tensor
    """(B,) bool, whether the stream starts a new episode here, so that M's state starts at zero"""
    first: int
    """steps of a window that starts an episode and does not end it: what follows them does not
    exist, and M's state for the next window is the one after them (T: the one after the window)"""


class _Window(NamedTuple):
    first: int = 0
    """index of the first frame"""
    steps: int = 0
    """steps inside the window, at most T"""
    restart: bool = True
    ends: bool = False
    """whether the last step terminated the episode"""


class SequenceStreams:
    """Plans epochs of windows over a set of latents."""

    def __init__(
        self,
        latents: Latents,
        sequence_length: int,
        batch_size: int,
        seed: int,
        repeats: NDArray[np.int64] | None = None,
        exact: bool = False,
    ) -> None:
        """Cut ``latents`` into windows of T = ``sequence_length`` steps, ``batch_size`` at once.

        ``repeats`` (E,) says how often an epoch plays each episode; None plays each once. If
        ``exact``, episodes that fit into one window are not cut, and `SequenceBatch.first` is set.
        """
        if latents.num_episodes == 0:
            raise UserError("there are no episodes to train M on; collect some first")
        self.latents, self.seed = latents, seed
        self.sequence_length, self.batch_size, self.exact = sequence_length, batch_size, exact
        self.repeats = np.ones(latents.num_episodes, np.int64) if repeats is None else repeats

    def batches(self, start: int = 0) -> Iterator[SequenceBatch]:
        """Endless batches from number ``start`` on, epoch after epoch."""
        for epoch in itertools.count():
            batches = list(itertools.zip_longest(*self._plan(epoch), fillvalue=_Window()))
            for number, windows in enumerate(batches[start:], start):
                yield self._gather(windows, self._first(epoch, number))
            start = max(0, start - len(batches))

    def steps_per_epoch(self) -> int:
        """Batches in the first epoch (later epochs differ by a few)."""
        return max(map(len, self._plan(0)))

    def _plan(self, epoch: int) -> list[list[_Window]]:
        """Shuffle the episodes and give each to the stream that is the shortest so far."""
        rng = np.random.default_rng(derive_seed(self.seed, "sequences", epoch))
        order = rng.permutation(np.repeat(np.arange(self.latents.num_episodes), self.repeats))
        lanes: list[list[_Window]] = [[] for _ in range(self.batch_size)]
        heap = [(0, lane) for lane in range(self.batch_size)]
        for episode in order:
            number, lane = heapq.heappop(heap)
            length = self._first(epoch, number)
            if not self.exact:
                length = self.sequence_length - int(rng.integers(self.sequence_length))
            lanes[lane] += self._windows(int(episode), length)
            heapq.heappush(heap, (len(lanes[lane]), lane))
        return lanes

    def _first(self, epoch: int, number: int) -> int:
        """Steps, from 1 to T, of the first windows of the episodes that start in a batch.

        They are drawn so that cuts move, and shared so that M's state is easy to take after them.
        """
        if not self.exact:
            return self.sequence_length
        return 1 + derive_seed(self.seed, "first", epoch, number) % self.sequence_length

    def _windows(self, episode: int, length: int) -> Iterator[_Window]:
        """Windows of one episode; the first one has ``length`` steps."""
        first, last = (int(frame) for frame in self.latents.offsets[episode : episode + 2])
        if self.exact and last - 1 - first <= self.sequence_length:
            length = self.sequence_length
        terminated = bool(self.latents.terminated[episode])
        step = self.sequence_length
        cuts = [first, *range(first + length, last - 1, step), last - 1]
        for start, stop in itertools.pairwise(cuts):
            yield _Window(start, stop - start, start == first, terminated and stop == last - 1)

    def _gather(self, windows: Sequence[_Window], length: int) -> SequenceBatch:
        """Copy the windows' rows into one padded batch."""
        lat, at = self.latents, np.arange(self.sequence_length + 1)
        first, steps, restart, ends = (
            np.array(part)[:, None] for part in zip(*windows, strict=True)
        )
        frame = np.minimum(first + at, lat.num_frames - 1)
        seen, acted = (at <= steps) & (steps > 0), at[:-1] < steps

        def rows(values: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
            found = values[frame[:, : valid.shape[1]]]
            return found * (valid if found.ndim == 2 else valid[..., None])

        parts = (
            rows(lat.mu, seen),
            rows(lat.logvar, seen),
            rows(lat.action, acted),
            rows(lat.reward, acted),
            (ends & (at[1:] == steps)).astype(np.float32),
            acted.astype(np.float32),
            restart[:, 0],
        )
        return SequenceBatch._make((*map(torch.from_numpy, parts), length))
