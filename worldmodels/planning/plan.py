"""What planners share: plans, the clock of an anytime budget, and noise with a colour."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Plan:
    """What a planner decided; its first action is executed, the rest starts the next search."""

    actions: NDArray[np.float32]
    """(T, A)"""
    score: float
    """what the objective says of it"""
    kept: NDArray[np.float32]
    """(K, T, A) other plans worth another look at the next decision; K may be 0"""
    iterations: int
    """of the search; fewer than asked for where a budget of time ran out"""
    samples: int
    """plans that were judged"""
    seconds: float
    """that the search took"""

    def shifted(self) -> Plan:
        """The plan one decision later: without its first action, its last one repeated."""
        kept = shift(self.kept)
        return Plan(shift(self.actions[None])[0], self.score, kept, 0, 0, 0.0)


def shift(plans: NDArray[np.float32]) -> NDArray[np.float32]:
    """Plans (K, T, A) without their first action, the last one repeated."""
    return np.concatenate((plans[:, 1:], plans[:, -1:]), axis=1)


class Bounds(Protocol):
    """Where actions lie."""

    @property
    def low(self) -> NDArray[np.float32]:
        """(A,) smallest actions."""
        ...

    @property
    def high(self) -> NDArray[np.float32]:
        """(A,) largest actions."""
        ...


class Objective(Bounds, Protocol):
    """What sampling planners maximise."""

    def score(self, plans: NDArray[np.float32]) -> NDArray[np.float64]:
        """Judge plans (N, T, A): (N,) scores, the same for the same plan."""
        ...


class Budget:
    """The clock of an anytime planner: says whether one more iteration fits."""

    def __init__(self, milliseconds: float) -> None:
        """Start the clock; 0 is no limit."""
        self._limit = milliseconds / 1000
        self._began = self._last = time.perf_counter()
        self._longest = 0.0

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self._began

    def allows(self, done: int) -> bool:
        """Whether to go on after ``done`` iterations; the first one is always done.

        The longest iteration so far is what the next one is expected to take.
        """
        now = time.perf_counter()
        if done:
            self._longest = max(self._longest, now - self._last)
        self._last = now
        return not self._limit or not done or now - self._began + self._longest <= self._limit


def coloured_noise(
    rng: np.random.Generator, shape: tuple[int, int, int], beta: float
) -> NDArray[np.float32]:
    """Gaussian noise of variance 1 with a power spectrum 1 / f^beta over time.

    By the spectral method of Timmer and Koenig (1995): random Fourier coefficients, scaled; the
    lowest frequency that T steps can show stands in for frequency 0.

    Args:
        rng: draws the coefficients.
        shape: (N, T, A); every plan and every action has its own noise.
        beta: 0 is white noise.
    """
    number, steps, size = shape
    if beta == 0 or steps < 2:
        return rng.standard_normal(shape, np.float32)
    frequency = np.fft.rfftfreq(steps)
    frequency[0] = frequency[1]
    scale = frequency ** (-beta / 2)
    parts = rng.standard_normal((2, number, size, len(frequency)))
    parts[1, ..., 0] = 0.0  # frequency 0 is real, and so is the highest of an even number of steps
    parts[0, ..., 0] *= np.sqrt(2)
    power = 2 * scale[0] ** 2 + 4 * (scale[1:] ** 2).sum()
    if steps % 2 == 0:
        parts[1, ..., -1] = 0.0
        parts[0, ..., -1] *= np.sqrt(2)
        power -= 2 * scale[-1] ** 2
    noise = np.fft.irfft((parts[0] + 1j * parts[1]) * scale, steps, axis=-1)
    unit = noise * (steps / np.sqrt(power))
    return np.ascontiguousarray(unit.transpose(0, 2, 1)).astype(np.float32)
