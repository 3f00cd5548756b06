"""Figures that tell whether a code is any good. Each says its unit and its direction."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def nmse_db(estimate: Tensor, truth: Tensor) -> float:
    """Squared error over squared signal, in decibels; lower is better, 0 is what all zeros get.

    NaN for a signal of zeros.

    Args:
        estimate: (B, ...).
        truth: of the same shape; sums run over all of it.
    """
    error, signal = (float(x.square().sum()) for x in (estimate - truth, truth))
    return 10 * math.log10(max(error, 1e-300) / signal) if signal else math.nan


def snr_db(x: Tensor, reconstruction: Tensor) -> float:
    """Signal over reconstruction error, in decibels; higher is better."""
    return -nmse_db(reconstruction, x)


def active_fraction(z: Tensor) -> float:
    """Fraction of the code's entries (B, ...) that are not 0."""
    return float((z != 0).double().mean())


def dead_units(z: Tensor) -> int:
    """Number of units (columns of z (B, N)) that no sample uses."""
    return int((z == 0).all(0).sum())


def objective_gap(energy: Tensor, least: Tensor) -> float:
    """Mean of (E - E*) / E* over the samples, E* being converged FISTA's; 0 is optimal.

    Args:
        energy: (B,) reached.
        least: (B,) the least there is.
    """
    return float(((energy - least) / least.clamp_min(torch.finfo(least.dtype).tiny)).mean())


def invariance(features: Tensor, moved: Tensor, others: Tensor) -> float:
    """Change under a transformation over the change to another sample: 0 never changes, 1 as much.

    Scale-free, so features of different size and number can be compared. ``mean ||f(Tx) - f(x)||^2
    / mean ||f(x') - f(x)||^2``.

    Args:
        features: (B, N) of the samples.
        moved: (B, N) of the same samples, transformed.
        others: (B, N) of unrelated samples.
    """
    change = (moved - features).square().sum(1).mean()
    spread = (others - features).square().sum(1).mean()
    return float(change / spread)


def tuning(atoms: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Orientation and frequency of filters, from the second moments of their power spectra.

    Args:
        atoms: (N, S, S).

    Returns:
        (N,) angle of the wave vector in [0, pi), and (N,) mean frequency in cycles per pixel.
    """
    side = atoms.shape[-1]
    padded = 4 * side  # a finer grid of frequencies
    centred = atoms - atoms.mean((1, 2), keepdims=True)
    power = np.abs(np.fft.fft2(centred, (padded, padded))) ** 2
    frequency = np.fft.fftfreq(padded)
    v, u = np.meshgrid(frequency, frequency, indexing="ij")
    total = power.sum((1, 2)) + 1e-30
    along = (power * (u**2 - v**2)).sum((1, 2))
    across = (power * 2 * u * v).sum((1, 2))
    angle = 0.5 * np.arctan2(across, along) % np.pi
    return angle, (power * np.hypot(u, v)).sum((1, 2)) / total


def neighbour_difference(
    angle: NDArray[np.float64], frequency: NDArray[np.float64], side: int
) -> tuple[float, float]:
    """Mean difference between units next to each other on a torus.

    Args:
        angle: (side^2,) orientations, row by row, in radians modulo pi.
        frequency: (side^2,) in cycles per pixel.
        side: length of the torus.

    Returns:
        Orientation in radians (pi / 4 if unrelated and uniform), frequency in octaves.
    """
    a, f = angle.reshape(side, side), np.log2(np.maximum(frequency, 1e-6)).reshape(side, side)
    turns, octaves = [], []
    for axis in (0, 1):
        turn = np.abs(a - np.roll(a, 1, axis)) % np.pi
        turns.append(np.minimum(turn, np.pi - turn).mean())
        octaves.append(np.abs(f - np.roll(f, 1, axis)).mean())
    return float(np.mean(turns)), float(np.mean(octaves))


def topography(
    atoms: NDArray[np.floating], side: int, shuffles: int = 1000, seed: int = 0
) -> dict[str, float]:
    """Compare a map's neighbours with those of the same units in random places.

    Args:
        atoms: (side^2, S, S) filters, row by row on the torus.
        side: length of the torus.
        shuffles: random maps.
        seed: fixes them.

    Returns:
        ``orientation`` and ``frequency``: mean difference of neighbours over the mean in shuffled
        maps (1 is no order); ``orientation_p`` and ``frequency_p``: fraction of maps, including
        this one, with neighbours at least as similar.
    """
    angle, frequency = tuning(atoms)
    found = np.array(neighbour_difference(angle, frequency, side))
    rng = np.random.default_rng(seed)
    orders = (rng.permutation(side * side) for _ in range(shuffles))
    random = np.array([neighbour_difference(angle[o], frequency[o], side) for o in orders])
    fraction = ((random <= found).sum(0) + 1) / (shuffles + 1)
    ratio = found / random.mean(0)
    return {
        "orientation": float(ratio[0]),
        "frequency": float(ratio[1]),
        "orientation_p": float(fraction[0]),
        "frequency_p": float(fraction[1]),
    }
