"""A window that shows frames, and knows which keys a person holds in it."""

from __future__ import annotations

import os
import sys
from typing import Any, Self

import numpy as np

from worldmodels.protocols import UserError
from worldmodels.video.drawing import ACCENT, INK, PAPER, Frames

SHORT_SIDE = 480
"""Pixels to which the shorter side of a small frame is enlarged."""
BAR, FONT = 28, 20
"""Height of the line of text under the frame and size of its letters, in pixels."""
WITHOUT = ("dummy", "offscreen")
"""Drivers of SDL that show nothing."""


def has_display() -> bool:
    """Whether a window can be opened here."""
    if os.environ.get("SDL_VIDEODRIVER") in WITHOUT:
        return False
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


class Window:
    """A window, open inside a `with`; closing it or the escape key ends what it shows."""

    def __init__(self, title: str, rate: float) -> None:
        """Give it a title, and show ``rate`` frames per second."""
        self.title, self.rate = title, rate
        self.held: list[str] = []
        """names of the keys that are held, the newest last"""
        self.closed = False
        self._tapped: list[str] = []
        self._screen: Any = None

    def __enter__(self) -> Self:
        """Open nothing yet: the first frame tells the size."""
        import pygame

        pygame.font.init()  # pygame.init() would look for a sound device, too
        self._clock, self._font = pygame.time.Clock(), pygame.font.Font(None, FONT)
        return self

    def __exit__(self, *_: object) -> None:
        """Close the window."""
        import pygame

        pygame.display.quit()

    def show(self, frame: Frames, line: str = "") -> bool:
        """Show a frame (H, W, 3) and a line under it for its time; whether to continue."""
        import pygame

        height, width = frame.shape[:2]
        scale = max(1, round(SHORT_SIDE / min(height, width)))
        size = width * scale, height * scale
        if self._screen is None:
            try:
                pygame.display.init()
                self._screen = pygame.display.set_mode((size[0], size[1] + BAR))
            except pygame.error as error:
                raise UserError(f"no window can be opened here: {error}") from error
            pygame.display.set_caption(self.title)
        picture = pygame.surfarray.make_surface(np.swapaxes(frame, 0, 1))
        self._screen.fill(PAPER)
        self._screen.blit(pygame.transform.smoothscale(picture, size), (0, 0))
        text = self._font.render(line, True, ACCENT if self.held else INK)
        self._screen.blit(text, (8, size[1] + (BAR - text.get_height()) // 2))
        pygame.display.flip()
        self._clock.tick(self.rate)
        self._listen()
        return not self.closed

    def keys(self) -> list[str]:
        """Keys that are held, or were touched since this was last asked; the newest last."""
        touched, self._tapped = self._tapped, []
        return [*(name for name in touched if name not in self.held), *self.held]

    def _listen(self) -> None:
        import pygame

        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                self.closed = True
            elif event.type in (pygame.KEYDOWN, pygame.KEYUP):
                name = pygame.key.name(event.key)
                self.closed |= event.type == pygame.KEYDOWN and name == "escape"
                self.held = [other for other in self.held if other != name]
                if event.type == pygame.KEYDOWN:
                    self.held.append(name)
                    self._tapped.append(name)
