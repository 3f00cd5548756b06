"""The search for C in the principal components of what it sees.

Of the paper's 867 parameters most weigh directions in which [z, h] hardly varies: an evolution
strategy samples them all alike and learns little about each. In the first K components, whitened,
C has 3 (K + 1) parameters of one scale, and is still a linear controller on [z, h]: the map back is
linear too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldmodels.config import ConfigError
from worldmodels.controller.linear import ControllerConfig
from worldmodels.protocols import UserError

Parameters = NDArray[np.float32]

_FLOOR = 0.01
"""Added to every input's standard deviation: an input that stands still is no direction."""


@dataclass(frozen=True)
class Components:
    """K principal components of C's inputs, and the maps between both kinds of parameters."""

    controller: ControllerConfig
    """the controller whose first layer they are put before"""
    mean: NDArray[np.float64]
    """(I,) of the inputs"""
    analysis: NDArray[np.float64]
    """(K, I) from an input's distance to the mean to components of standard deviation 1"""
    synthesis: NDArray[np.float64]
    """(I, K) and back, as far as K components reach"""

    @classmethod
    def of(cls, inputs: ArrayLike, count: int, controller: ControllerConfig) -> Components:
        """Find the components of standardised inputs.

        Args:
            inputs: (M, I) recorded [z, h] (or z).
            count: K.
            controller: must not be normalised itself.

        Raises:
            UserError: more components than inputs, or a normalised controller.
        """
        x = np.asarray(inputs, np.float64)
        assert x.ndim == 2, f"inputs are (M, I), got {x.shape}"
        if not 1 <= count <= min(x.shape):
            most = f"{min(x.shape)}, the number of C's inputs (or of dream starts)"
            must = f"it must be from 1 to {most}, or 0 for a search in all of them"
            raise ConfigError(object, ("components",), count, must, "components")
        if controller.normalize:
            raise UserError("controller.components already standardises; set normalize to false")
        mean, scale = x.mean(0), x.std(0) + _FLOOR
        standard = (x - mean) / scale
        variance, vectors = np.linalg.eigh(standard.T @ standard / len(x))
        deviation = np.sqrt(np.maximum(variance[::-1][:count], 1e-12))
        first = vectors[:, ::-1][:, :count]
        return cls(
            controller, mean, (first / deviation).T / scale, scale[:, None] * first * deviation
        )

    def expand(self, population: ArrayLike) -> Parameters:
        """Controllers on the components, (P, n), as controllers on the inputs, (P, N)."""
        weight, bias, rest = self._cut(population, len(self.analysis))
        full = weight @ self.analysis
        return _join(full, bias - full @ self.mean, rest)

    def compress(self, population: ArrayLike) -> Parameters:
        """Controllers on the inputs, (P, N), as nearly as the components can say it, (P, n)."""
        weight, bias, rest = self._cut(population, len(self.mean))
        return _join(weight @ self.synthesis, bias + weight @ self.mean, rest)

    def _cut(
        self, population: ArrayLike, width: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """First layer's weight (P, O, width) and bias (P, O), and all other parameters (P, R)."""
        flat = np.asarray(population, np.float64)
        assert flat.ndim == 2, f"a population is (P, N), got {flat.shape}"
        first = self.controller.hidden or self.controller.outputs
        end = first * width
        weight = flat[:, :end].reshape(len(flat), first, width)
        return weight, flat[:, end : end + first], flat[:, end + first :]


def _join(
    weight: NDArray[np.float64], bias: NDArray[np.float64], rest: NDArray[np.float64]
) -> Parameters:
    parts = [weight.reshape(len(weight), -1), bias, rest]
    return np.concatenate(parts, axis=1).astype(np.float32)


def controller_inputs(controller: ControllerConfig, z: ArrayLike, h: ArrayLike) -> Parameters:
    """What C sees, (M, I), of latents z (M, Z) and hidden states h (M, H)."""
    parts = [z, h] if controller.inputs == "zh" else [z]
    return np.concatenate([np.asarray(part, np.float32) for part in parts], axis=1)
