"""From an environment's frames to the 64x64 images that V sees: crop, then antialiased resize."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from worldmodels._compile import compiled
from worldmodels.config import AtLeast, Config, Limit, Size, SizeOrZero
from worldmodels.protocols import UserError

Crop: TypeAlias = tuple[SizeOrZero, SizeOrZero, SizeOrZero, SizeOrZero]
"""Pixels to crop at the top, bottom, left and right."""


@dataclass(frozen=True)
class FrameSpec(Config):
    """How raw frames become V's frames."""

    rows: Size | None = None
    """Rows kept from the top before resizing; None keeps all."""
    size: Annotated[int, AtLeast(1), Limit(4096)] = 64
    """Height and width of V's frames, in pixels."""
    crop: Crop | None = field(default=None, metadata={"omit_default": True})
    """Cut off what `rows` keeps; None cuts nothing."""

    def changed(self, rows: int | None, crop: Crop | None) -> FrameSpec:
        """The same with other rows or another crop, where these are not None."""
        crop = self.crop if crop is None else crop
        return FrameSpec(self.rows if rows is None else rows, self.size, crop)

    def cut(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The part of frames (B, H, W, C) that V sees, a view; `UserError` if nothing is left."""
        if self.rows is not None:
            frames = frames[:, : self.rows]
        if self.crop is None:
            return frames
        (height, width), (top, bottom, left, right) = frames.shape[1:3], self.crop
        if top + bottom >= height or left + right >= width:
            must = f"it must leave something of frames of {height}x{width}"
            raise UserError(f"crop (top, bottom, left, right) is {self.crop}; {must}")
        return frames[:, top : height - bottom, left : width - right]


def _axis_weights(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Weights of one axis of the resize: first source index (target,) and weights (target, taps).

    Shrinking averages the area that a target pixel covers (PIL's BOX filter); growing interpolates
    linearly between pixel centres, as an area average would only repeat pixels.
    """
    ratio = source / target
    low = np.arange(target) * ratio
    if source >= target:
        first = np.floor(low + 1e-9).astype(np.int64)
        cells = first[:, None] + np.arange(math.ceil(ratio) + 1)
        high = (low + ratio)[:, None]
        overlap = np.minimum(cells + 1, high) - np.maximum(cells, low[:, None])
        overlap = np.where(overlap > 1e-9, overlap, 0.0)
    else:
        centre = np.clip(low + ratio / 2 - 0.5, 0, source - 1)
        first = np.floor(centre).astype(np.int64)
        overlap = np.stack([1 - (centre - first), centre - first], axis=1)
    overlap = overlap[:, : np.flatnonzero(overlap.any(axis=0)).max() + 1]
    # a window that sticks out of the image moves left, and its weights in it to the right
    over = np.maximum(first + overlap.shape[1] - source, 0)
    overlap = np.stack([np.roll(taps, shift) for taps, shift in zip(overlap, over, strict=True)])
    weights = (overlap / overlap.sum(axis=1, keepdims=True)).astype(np.float32)
    return first - over, np.ascontiguousarray(weights)


@compiled(error_model="numpy")
def _resize(obs: Any, rows: Any, values: Any, channels: int, out: Any) -> None:
    """Resize flat rows (B, H, W * C) to (B, S, S * C), so that all loops run along memory.

    `rows` are (S) the first source row of each target row and (S, taps) weights from there on;
    `values` (S * C) the first source value of each target value and (taps, S * C) weights of the
    pixels from there on, whose values lie C = `channels` apart.
    """
    first_row, row_weights = rows
    first_value, value_weights = values
    width, target = obs.shape[2], out.shape[2]
    row, mean = np.empty(width, np.float32), np.empty(target, np.float32)
    for b in range(obs.shape[0]):
        for i in range(out.shape[1]):
            row[:] = np.float32(0.5)  # so that cutting to whole numbers rounds
            for k in range(row_weights.shape[1]):
                weight, source = row_weights[i, k], obs[b, first_row[i] + k]
                for x in range(width):
                    row[x] += weight * np.float32(np.int32(source[x]))
            mean[:] = np.float32(0)
            for k in range(value_weights.shape[0]):
                weights, shifted = value_weights[k], row[channels * k :]
                for x in range(target):
                    mean[x] += weights[x] * shifted[first_value[x]]
            line = out[b, i]
            for x in range(target):
                line[x] = np.uint8(np.int32(mean[x]))


@functools.cache
def _plan(height: int, width: int, channels: int, size: int) -> tuple[Any, Any]:
    """The `rows` and `values` of `_resize`."""
    first_col, col_weights = _axis_weights(width, size)
    first_value = (first_col[:, None] * channels + np.arange(channels)).ravel().astype(np.uintp)
    value_weights = np.ascontiguousarray(np.repeat(col_weights, channels, axis=0).T)
    return _axis_weights(height, size), (first_value, value_weights)


def to_vision(obs: NDArray[np.uint8], spec: FrameSpec) -> NDArray[np.uint8]:
    """Crop and resize frames for V, averaging over the area of each target pixel.

    Args:
        obs: one frame (H, W), (H, W, 1) or (H, W, 3), or a batch (B, H, W, 1) or (B, H, W, 3);
            uint8. Grey frames become three equal channels.
        spec: what to keep and the size to reach.

    Returns:
        uint8 (S, S, 3), or (B, S, S, 3) for a batch, S = `spec.size`.
    """
    if obs.dtype != np.uint8:
        raise UserError(f"frames have type {obs.dtype}; they must be uint8")
    single = obs.ndim in (2, 3)
    obs = obs[:, :, None] if obs.ndim == 2 else obs
    obs = obs[None] if obs.ndim == 3 else obs
    if obs.ndim != 4 or obs.shape[3] not in (1, 3) or 0 in obs.shape[1:3]:
        raise UserError(
            f"frames have shape {obs.shape}; allowed: (H, W), (H, W, 1), (H, W, 3), "
            "(B, H, W, 1), (B, H, W, 3)"
        )
    obs = spec.cut(obs)
    batch, height, width, channels = obs.shape
    flat = np.ascontiguousarray(obs).reshape(batch, height, width * channels)
    out = np.empty((batch, spec.size, spec.size * channels), np.uint8)
    _resize(flat, *_plan(height, width, channels, spec.size), channels, out)
    frames = out.reshape(batch, spec.size, spec.size, channels)
    frames = np.repeat(frames, 3, axis=3) if channels == 1 else frames
    return frames[0] if single else frames
