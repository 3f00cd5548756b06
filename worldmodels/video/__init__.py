"""Films and pictures of a driver: the real frame, what V keeps of it, and what M dreams.

An episode is replayed from its seed and actions, so nothing needs to be kept while it is measured.
"""

from worldmodels.video.config import Frames, VideoConfig
from worldmodels.video.drawing import compose, grid, write_picture, write_video
from worldmodels.video.films import (
    dream_frames,
    dream_strip,
    episode_frames,
    film,
    reconstructions,
)
from worldmodels.video.replays import Recording, Views, dream_along, replay, views

__all__ = [
    "Frames",
    "Recording",
    "VideoConfig",
    "Views",
    "compose",
    "dream_along",
    "dream_frames",
    "dream_strip",
    "episode_frames",
    "film",
    "grid",
    "reconstructions",
    "replay",
    "views",
    "write_picture",
    "write_video",
]
