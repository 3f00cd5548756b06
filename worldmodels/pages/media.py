"""Pictures and films inside of a page, as data addresses."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TYPES = {".png": "image/png", ".mp4": "video/mp4"}


@dataclass(frozen=True)
class Medium:
    """A picture or a video of the page."""

    path: str
    """Path relative to the page, for a file that is linked; empty for a drawn picture."""
    uri: str
    """Content as a data address; empty where the page has no room for it."""
    title: str
    """Heading."""
    headline: str = ""
    """The return of the episode that a video shows."""
    caption: str = ""
    """What it shows."""
    size: tuple[int, int] | None = None
    """Width and height in pixels, where they are known."""
    crisp: bool = False
    """Whether pixels of a picture stay squares when it is enlarged."""

    @property
    def wide(self) -> bool:
        """Whether the video is too flat to share its row with two others.

        So are all that `worldmodels.video.film` writes; early ones noted no size.
        """
        return self.size is None or self.size[0] >= 2 * self.size[1]

    @property
    def moves(self) -> bool:
        """Whether it is a video."""
        return self.path.endswith(".mp4")


def data_uri(content: bytes, suffix: str) -> str:
    """Bytes of a file with this suffix as a data address."""
    return f"data:{TYPES[suffix]};base64,{base64.b64encode(content).decode()}"


def drawn(picture: NDArray[np.uint8], title: str, caption: str = "") -> Medium:
    """A picture (H, W) or (H, W, 3) for a page, its pixels kept square."""
    height, width = picture.shape[:2]
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    uri = data_uri(buffer.getvalue(), ".png")
    return Medium("", uri, title, caption=caption, size=(width, height), crisp=True)
