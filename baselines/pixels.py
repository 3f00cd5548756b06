"""What a model-free policy sees, in training and in tests: the newest frames, small and grey."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from worldmodels.config import AtLeast, Config, Few, Limit, Repeat, Size
from worldmodels.envs import FrameSpec, to_vision
from worldmodels.envs.frames import Crop

_GREY = np.array([0.2125, 0.7154, 0.0721], np.float32)
"""Weights of red, green and blue, as in Gymnasium's `GrayscaleObservation`."""


@dataclass(frozen=True)
class PixelConfig(Config):
    """From the environment's frames to the network's."""

    skip: Repeat = 1
    """frames of the environment for each decision; its action is held"""
    rows: Size | None = None
    """rows kept from the top; None keeps all, the dashboard too"""
    size: Annotated[int, AtLeast(1), Limit(4096)] = 64
    """height and width after resizing"""
    grey: bool = True
    """one channel in place of three"""
    stack: Few = 4
    """newest frames that the network sees together; zeros stand for those before the start"""
    crop: Crop | None = field(default=None, metadata={"omit_default": True})
    """pixels cut off what `rows` keeps, at the top, bottom, left and right; None cuts nothing"""

    @property
    def spec(self) -> FrameSpec:
        """Crop and size."""
        return FrameSpec(self.rows, self.size, self.crop)

    @property
    def channels(self) -> int:
        """Channels of one frame."""
        return 1 if self.grey else 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of what the network sees: (stack * channels, size, size)."""
        return (self.stack * self.channels, self.size, self.size)

    @property
    def space(self) -> spaces.Box:
        """Gymnasium's word for it; channels first, so that Stable-Baselines3 turns nothing."""
        return spaces.Box(0, 255, self.shape, np.uint8)


def shrink(obs: NDArray[np.uint8], cfg: PixelConfig) -> NDArray[np.uint8]:
    """Raw frames (B, H, W, 3) to the network's, (B, C, S, S), both uint8.

    The area average stands for OpenCV's `INTER_AREA`; grey is cut to whole numbers, both as in
    Gymnasium's wrappers.
    """
    frames = to_vision(obs, cfg.spec)
    if cfg.grey:
        return (frames @ _GREY).astype(np.uint8)[:, None]
    return np.ascontiguousarray(frames.transpose(0, 3, 1, 2))


def push(
    stack: NDArray[np.uint8], frame: NDArray[np.uint8], fresh: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Put a new frame behind the older ones.

    Args:
        stack: (B, K * C, S, S), oldest first.
        frame: (B, C, S, S).
        fresh: (B,) rows whose episode begins: zeros stand for what came before.

    Returns:
        (B, K * C, S, S); the arguments are left alone.
    """
    new = np.concatenate([stack[:, frame.shape[1] :], frame], axis=1)
    new[fresh, : -frame.shape[1]] = 0
    return new
