"""What turns the steps of a group into episodes ready to be written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from worldmodels.envs.frames import FrameSpec, to_vision
from worldmodels.experience.encoding import EncodedEpisode, EpisodeEncoder
from worldmodels.experience.rollout import EpisodeResult, GroupStep


class Recorder:
    """Takes a group's steps and keeps them compressed, so that memory does not grow with frames."""

    def __init__(self, seeds: Sequence[int], spec: FrameSpec) -> None:
        """Prepare for one episode for each seed; `spec` makes V's frames of raw ones."""
        self._spec = spec
        self._encoders = [EpisodeEncoder(seed) for seed in seeds]
        self._actions: list[list[Any]] = [[] for _ in seeds]
        self._rewards: list[list[float]] = [[] for _ in seeds]

    def __call__(self, step: GroupStep) -> None:
        """Record one lockstep."""
        rows = np.flatnonzero(step.active)
        frames = to_vision(step.obs[rows], self._spec)
        for frame, row in zip(frames, rows.tolist(), strict=True):
            self._encoders[row].add(frame)
            if step.action is not None:
                self._actions[row].append(step.action[row])
                self._rewards[row].append(step.reward[row])

    def finish(self, results: Sequence[EpisodeResult]) -> list[EncodedEpisode]:
        """Return the episodes, ready to be written."""
        return [
            self._encoders[row].finish(
                np.array(self._actions[row]),
                np.array(self._rewards[row], np.float32),
                terminated=result.terminated,
                truncated=result.truncated,
                lap_finished=result.lap_finished,
                env_steps=result.length,
                lost=result.lost,
            )
            for row, result in enumerate(results)
        ]
