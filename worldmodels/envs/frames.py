"""From an environment's frames to the 64x64 images that V sees: crop, then antialiased resize."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldmodels.envs.kernels import kernel
from worldmodels.protocols import UserError

CAR_RACING_ROWS = 84
"""Rows of a CarRacing frame above its dashboard."""


@dataclass(frozen=True)
class FrameSpec:
    """How raw frames become V's frames."""

    rows: int | None = None
    """Rows kept from the top before resizing; None keeps all."""
    size: int = 64
    """Height and width of V's frames, in pixels."""

    def __post_init__(self) -> None:
        """Reject sizes that leave no picture."""
        if self.rows is not None and self.rows < 1:
            raise UserError(f"FrameSpec.rows is {self.rows}; it must be at least 1, or None for all rows")
        if self.size < 1:
            raise UserError(f"FrameSpec.size is {self.size}; it must be at least 1")

    @classmethod
    def for_env(cls, env_id: str) -> FrameSpec:
        """Choose the crop for an environment id: CarRacing loses its dashboard, others stay whole."""
        name = env_id.rsplit(":", 1)[-1].rsplit("/", 1)[-1]
        return cls(rows=CAR_RACING_ROWS if name.startswith("CarRacing") else None)


def _axis_weights(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Weights of one axis of the resize: first source index (target,) and weights (target, taps).

    Shrinking averages the area that a target pixel covers (PIL's BOX filter); growing interpolates
    linearly between pixel centres, as an area average would only repeat pixels.
    """
    ratio = source / target
    low = np.arange(target) * ratio
    if source >= target:
        first = np.floor(low).astype(np.int64)
        taps = int(np.ceil(ratio)) + 1
        cells = first[:, None] + np.arange(taps)
        overlap = np.minimum(cells + 1, (low + ratio)[:, None]) - np.maximum(cells, low[:, None])
        overlap = np.where(overlap > 1e-9, overlap, 0.0)
    else:
        centre = np.clip(low + ratio / 2 - 0.5, 0, source - 1)
        first = np.floor(centre).astype(np.int64)
        overlap = np.stack([1 - (centre - first), centre - first], axis=1)
    weights = (overlap / overlap.sum(axis=1, keepdims=True)).astype(np.float32)
    shift = np.maximum(first + weights.shape[1] - source, 0)
    if shift.any():  # keep every tap inside the image: move the window left, its weights right
        weights = np.stack([np.roll(w, s) for w, s in zip(weights, shift, strict=True)])
        first = first - shift
    if weights.shape[1] > source:  # an axis of one pixel
        first, weights = np.zeros(target, np.int64), np.ones((target, 1), np.float32)
    return first, np.ascontiguousarray(weights)


@kernel
def _resize(
    obs: Any, first_y: Any, weight_y: Any, first_x: Any, weight_x: Any, out: Any
) -> None:  # pragma: no cover - compiled
    """Resize (B, H, W*3) into (B, S, S, 3), rows first so that the inner loop runs along memory."""
    width = obs.shape[2]
    size = out.shape[1]
    row = np.empty(width, np.float32)
    for b in range(obs.shape[0]):
        for i in range(size):
            for x in range(width):
                row[x] = 0.5
            for k in range(weight_y.shape[1]):
                weight = weight_y[i, k]
                if weight != 0.0:
                    for x in range(width):
                        row[x] += weight * obs[b, first_y[i] + k, x]
            for j in range(size):
                base = first_x[j] * 3
                red = np.float32(0.0)
                green = np.float32(0.0)
                blue = np.float32(0.0)
                for k in range(weight_x.shape[1]):
                    weight = weight_x[j, k]
                    red += weight * row[base + 3 * k]
                    green += weight * row[base + 3 * k + 1]
                    blue += weight * row[base + 3 * k + 2]
                out[b, i, j, 0] = np.uint8(red)
                out[b, i, j, 1] = np.uint8(green)
                out[b, i, j, 2] = np.uint8(blue)


_WEIGHTS: dict[tuple[int, int], tuple[NDArray[np.int64], NDArray[np.float32]]] = {}


def _weights(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    key = (source, target)
    if key not in _WEIGHTS:
        _WEIGHTS[key] = _axis_weights(source, target)
    return _WEIGHTS[key]


def to_vision(obs: NDArray[np.uint8], spec: FrameSpec) -> NDArray[np.uint8]:
    """Crop and resize frames for V, averaging over the area of each target pixel.

    Args:
        obs: one frame (H, W), (H, W, 1) or (H, W, 3), or a batch (B, H, W, 1) or (B, H, W, 3); uint8. Grey
            frames become three equal channels.
        spec: rows to keep and the size to reach.

    Returns:
        uint8 (S, S, 3), or (B, S, S, 3) for a batch, S = `spec.size`.

    Raises:
        UserError: if the frames are not uint8 or have another shape.
    """
    if obs.dtype != np.uint8:
        raise UserError(f"frames have type {obs.dtype}; they must be uint8")
    single = obs.ndim == 2 or obs.ndim == 3
    if obs.ndim == 2:
        obs = obs[:, :, None]
    if obs.ndim == 3:
        obs = obs[None]
    if obs.ndim != 4 or obs.shape[3] not in (1, 3) or 0 in obs.shape[1:3]:
        raise UserError(
            f"frames have shape {obs.shape}; allowed: (H, W), (H, W, 1), (H, W, 3), (B, H, W, 1), (B, H, W, 3)"
        )
    if spec.rows is not None:
        obs = obs[:, : spec.rows]
    if obs.shape[3] == 1:
        obs = np.repeat(obs, 3, axis=3)
    batch, height, width, _ = obs.shape
    out = np.empty((batch, spec.size, spec.size, 3), np.uint8)
    flat = np.ascontiguousarray(obs).reshape(batch, height, width * 3)
    _resize(flat, *_weights(height, spec.size), *_weights(width, spec.size), out)
    return out[0] if single else out
