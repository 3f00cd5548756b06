"""Size and speed of films, and what their dreams are reminded of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from worldmodels.protocols import UserError

Frames: TypeAlias = NDArray[np.uint8]
"""(..., H, W, 3) uint8; an environment's own frames may be grey, (..., H, W, 1)."""


@dataclass(frozen=True)
class VideoConfig:
    """Size, speed and what the dream is reminded of."""

    panel: int = 144
    """height and width of one panel, in pixels; even"""
    every: int = 2
    """one frame of the film for so many steps"""
    fps: int = 25
    """frames of the film per second; CarRacing runs at 50 steps per second"""
    sync: int = 50
    """steps after which the dream sees reality again; between, it goes on by itself"""
    temperature: float = 1.0
    """of the dream's samples; at 0 it takes the likeliest component's mean"""
    max_bytes: int = 600_000
    """a film is encoded with a bit rate that keeps it about below this"""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        for name in ("every", "fps", "sync", "max_bytes"):
            if getattr(self, name) < 1:
                raise UserError(
                    f"VideoConfig.{name} is {getattr(self, name)}; it must be at least 1"
                )
        if self.panel < 16 or self.panel % 2:
            raise UserError(f"VideoConfig.panel is {self.panel}; it must be even and at least 16")
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"VideoConfig.temperature is {self.temperature}; it must be 0 or more")
