"""Size and speed of films, and what their dreams are reminded of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias

import numpy as np
from numpy.typing import NDArray

from worldmodels.config import EVEN, AtLeast, Config, Count, Few, Limit, NotNegative

Frames: TypeAlias = NDArray[np.uint8]
"""(..., H, W, 3) uint8; an environment's own frames may be grey, (..., H, W, 1)."""


@dataclass(frozen=True)
class VideoConfig(Config):
    """Size, speed and what the dream is reminded of."""

    panel: Annotated[int, EVEN, AtLeast(16), Limit(4096)] = 144
    """height and width of one panel, in pixels; even"""
    every: Count = 2
    """one frame of the film for so many steps"""
    fps: Few = 25
    """frames of the film per second; CarRacing runs at 50 steps per second"""
    sync: Count = 50
    """steps after which the dream sees reality again; between, it goes on by itself"""
    temperature: NotNegative = 1.0
    """of the dream's samples; at 0 it takes the likeliest component's mean"""
    max_bytes: Count = 600_000
    """a film is encoded with a bit rate that keeps it about below this"""
