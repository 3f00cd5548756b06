"""Where chance in a dream comes from: one counter-based stream per dream.

A dream's start, mask and noise depend on (seed, episode) and, unless candidates share their luck,
on the candidate; never on how many dreams run beside it, on the device, or on the thread.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BLOCK = 32
"""Steps drawn at a time."""

EXTRA_UNIFORMS = 3
"""Uniform numbers per step beyond one per latent dimension: reward, termination, memory."""

_START, _STEPS = 1, 2


class DreamNoise:
    """Noise of n dreams, step by step."""

    def __init__(self, seed: int, dreams: Sequence[tuple[int, int]], z_dim: int) -> None:
        """Open the streams.

        Args:
            seed: of the whole rollout.
            dreams: n keys (episode, candidate); the candidate is -1 where all share their luck.
            z_dim: Z.
        """
        self.n, self.z_dim = len(dreams), z_dim
        self._keys = [(seed, episode, candidate + 1) for episode, candidate in dreams]
        self._streams = [self._open(key, _STEPS) for key in self._keys]
        self._uniform = np.empty((BLOCK, self.n, z_dim + EXTRA_UNIFORMS), np.float32)
        self._normal = np.empty((BLOCK, self.n, z_dim), np.float32)
        self._next = BLOCK

    @staticmethod
    def _open(key: tuple[int, int, int], purpose: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence((*key, purpose))))

    def begin(
        self, starts: int, shape: tuple[int, int], dropout: float
    ) -> tuple[NDArray[np.int64], NDArray[np.float32] | None]:
        """Draw where dreams begin, and what is forgotten in them.

        Args:
            starts: S, number of starts to choose from.
            shape: (M, H) of the masks.
            dropout: probability of forgetting a unit.

        Returns:
            (n,) indices of starts; (M, n, H) masks scaled by 1/(1-p), or None without dropout.
        """
        index = np.empty(self.n, np.int64)
        mask = np.empty((shape[0], self.n, shape[1]), np.float32) if dropout > 0 else None
        for i, key in enumerate(self._keys):
            stream = self._open(key, _START)
            index[i] = stream.integers(starts)
            if mask is not None:
                kept = stream.random(shape, dtype=np.float32) >= dropout
                mask[:, i] = kept / np.float32(1 - dropout)
        return index, mask

    def step(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Noise of the next step: uniform (n, Z + 3) in [0, 1) and standard normal (n, Z).

        The arrays are views that the next block overwrites.
        """
        if self._next == BLOCK:
            for i, stream in enumerate(self._streams):
                self._uniform[:, i] = stream.random(
                    (BLOCK, self.z_dim + EXTRA_UNIFORMS), dtype=np.float32
                )
                self._normal[:, i] = stream.standard_normal((BLOCK, self.z_dim), dtype=np.float32)
            self._next = 0
        self._next += 1
        return self._uniform[self._next - 1], self._normal[self._next - 1]
