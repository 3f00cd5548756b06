"""Stored episodes as a dataset of torch, for networks of your own."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from worldmodels.config import Count, require
from worldmodels.protocols import UserError

if TYPE_CHECKING:
    from worldmodels.experience.store import EpisodeStore


class Steps(TypedDict):
    """T steps of one episode, with the frames around them."""

    obs: Tensor
    """(T + 1, S, S, 3) uint8, the frames as V sees them"""
    action: Tensor
    """(T, A) float32, or (T,) int64 for a Discrete action space"""
    reward: Tensor
    """(T,) float32"""
    terminated: Tensor
    """(T,) bool, True where the environment's own rules ended the episode"""


class EpisodeDataset(Dataset[Steps]):
    """Whole episodes, or windows of equal length that a `DataLoader` can put into batches.

    ::

        windows = EpisodeStore("runs/demo").as_dataset(length=32)
        for batch in DataLoader(windows, batch_size=16, shuffle=True):
            batch["obs"]  # (16, 33, 64, 64, 3)
    """

    def __init__(self, store: EpisodeStore, length: int | None = None) -> None:
        """Take every episode, or cut each from its start into windows of ``length`` steps.

        What an episode has beyond its last whole window is left out.

        Raises:
            UserError: no episode is that long.
        """
        self.store, sizes = store, [record.entry.length for record in store.episodes]
        self._spans = [(index, 0, size) for index, size in enumerate(sizes)]
        if length is not None:
            require("length", length, Count)
            self._spans = [
                (index, first, first + length)
                for index, size in enumerate(sizes)
                for first in range(0, size - length + 1, length)
            ]
        if not self._spans:
            raise UserError(f"length is {length}; the longest episode has {max(sizes)} steps")

    def __len__(self) -> int:
        """Number of items."""
        return len(self._spans)

    def __getitem__(self, number: int) -> Steps:
        """One item, read from the disk."""
        index, first, stop = self._spans[number]
        entry = self.store.episodes[index].entry
        action, reward = self.store.read_steps(index)
        ended = (np.arange(first, stop) == entry.length - 1) & entry.terminated
        return Steps(
            obs=torch.from_numpy(self.store.read_frames(index, first, stop + 1)),
            action=torch.from_numpy(action[first:stop]),
            reward=torch.from_numpy(reward[first:stop]),
            terminated=torch.from_numpy(ended),
        )
