"""Films and pictures of a driver: the real frame, what V keeps of it, and what M dreams.

An episode is replayed from its seed and actions, so nothing needs to be kept while it is measured.
"""

from worldmodels.video.drawing import Frames, VideoConfig, grid, write_picture, write_video
from worldmodels.video.films import dream_frames, episode_frames, film, replay, views

__all__ = [
    "Frames",
    "VideoConfig",
    "dream_frames",
    "episode_frames",
    "film",
    "grid",
    "replay",
    "views",
    "write_picture",
    "write_video",
]
