"""Films and pictures of an agent: the real frame, V's reconstruction and M's dream.

An episode is replayed from its seed and actions, so its evaluation keeps no frames.
"""

from worldmodels.video.drawing import Frames, VideoConfig, grid, write_picture, write_video
from worldmodels.video.films import dream_frames, episode_frames, film, real_frames, replay, views

__all__ = [
    "Frames",
    "VideoConfig",
    "dream_frames",
    "episode_frames",
    "film",
    "grid",
    "real_frames",
    "replay",
    "views",
    "write_picture",
    "write_video",
]
