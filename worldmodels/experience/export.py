"""Stored episodes as a Minari dataset, for other libraries. Minari is an optional dependency."""

from __future__ import annotations

from itertools import islice
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np

from worldmodels.experience.store import EpisodeStore
from worldmodels.protocols import UserError

_EPISODES_AT_ONCE = 8


def export_minari(store: EpisodeStore, dataset_id: str, author: str | None = None) -> Any:
    """Write all episodes into a new local Minari dataset, frames without loss.

    Minari keeps its datasets where `MINARI_DATASETS_PATH` says, or in `~/.minari/datasets`. A few
    episodes are in memory at a time. The frames are those that V sees, not the environment's own.

    Args:
        store: what to export.
        dataset_id: Minari's name for it, such as "car-racing/random-v0".
        author: recorded in the dataset.

    Returns:
        The `minari.MinariDataset`.

    Raises:
        UserError: Minari is not installed, or refuses the name (it exists already, or has another
            form than "namespace/name-v0").
    """
    minari = _import_minari()
    records = iter(store.episodes)
    dataset = None
    while chunk := list(islice(records, _EPISODES_AT_ONCE)):
        buffers = [_buffer(minari, store, record.index) for record in chunk]
        if dataset is None:
            dataset = _create(minari, store, dataset_id, author, buffers)
        else:
            dataset.update_dataset_from_buffer(buffers)
    return dataset


def _create(
    minari: ModuleType,
    store: EpisodeStore,
    dataset_id: str,
    author: str | None,
    buffers: list[Any],
) -> Any:
    """Begin the dataset with its first episodes."""
    facts = ", ".join(f"{name} {value}" for name, value in store.meta["versions"].items())
    try:
        return minari.create_dataset_from_buffers(
            dataset_id,
            buffers,
            observation_space=gym.spaces.Box(0, 255, store.frame_shape, np.uint8),
            action_space=store.action_spec.to_space(),
            author=author,
            algorithm_name=str(store.meta.get("behaviour", {}).get("kind", "unknown")),
            description=f"{store.env_id}, frames cropped and resized to "
            f"{store.frame_shape[0]} pixels; {facts}",
            jpeg_encoding=False,  # its default loses detail
        )
    except ValueError as error:
        raise UserError(f"Minari refuses the dataset {dataset_id!r}: {error}") from error


def _buffer(minari: ModuleType, store: EpisodeStore, index: int) -> Any:
    """Turn one episode into Minari's form."""
    episode = store.read(index)
    steps = len(episode)
    last = np.arange(steps) == steps - 1
    return minari.data_collector.EpisodeBuffer(
        id=index,
        seed=episode.seed,
        observations=list(episode.obs),
        actions=list(store.action_spec.to_env(episode.action)),
        rewards=episode.reward.tolist(),
        terminations=(last & episode.terminated).tolist(),
        truncations=(last & episode.truncated).tolist(),
    )


def _import_minari() -> ModuleType:
    try:
        import minari
        import minari.data_collector
    except ImportError:
        raise UserError(
            "exporting needs Minari: install it with `pip install 'worldmodels[minari]'`"
        ) from None
    module: ModuleType = minari
    return module
