"""Stored episodes as a Minari dataset, for other libraries. Minari is an optional dependency."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from worldmodels.experience.store import EpisodeStore
from worldmodels.protocols import UserError, install_extra

_EPISODES_AT_ONCE = 8


def export_minari(store: EpisodeStore, dataset_id: str, author: str | None = None) -> Any:
    """Write all episodes, frames as V sees them, into a new local Minari dataset and return it.

    Minari keeps its datasets where `MINARI_DATASETS_PATH` says, or in `~/.minari/datasets`.

    Raises:
        UserError: Minari is not installed, or refuses the name: it exists already, or has another
            form than "namespace/name-v0" ("car-racing/random-v0").
    """
    try:
        import minari
        from minari.data_collector import EpisodeBuffer
    except ImportError:
        raise UserError(
            f"exporting needs Minari: install it with `{install_extra('minari')}`"
        ) from None
    size, dataset = store.frame_shape[0], None
    facts = ", ".join(f"{name} {value}" for name, value in store.meta["versions"].items())
    for first in range(0, len(store), _EPISODES_AT_ONCE):
        numbers = range(first, min(first + _EPISODES_AT_ONCE, len(store)))
        buffers = [EpisodeBuffer(id=number, **_columns(store, number)) for number in numbers]
        if dataset is not None:
            dataset.update_dataset_from_buffer(buffers)
            continue
        try:
            dataset = minari.create_dataset_from_buffers(
                dataset_id,
                buffers,
                observation_space=gym.spaces.Box(0, 255, store.frame_shape, np.uint8),
                action_space=store.action_spec.to_space(),
                author=author,
                algorithm_name=str(store.meta.get("behaviour", {}).get("kind", "unknown")),
                description=f"{store.env_id}, frames of {size} pixels as V sees them; {facts}",
                jpeg_encoding=False,  # its default loses detail
            )
        except ValueError as error:
            raise UserError(f"Minari refuses the dataset {dataset_id!r}: {error}") from error
    return dataset


def _columns(store: EpisodeStore, index: int) -> dict[str, Any]:
    """One episode as the fields of Minari's buffer."""
    episode = store.read(index)
    last = np.arange(len(episode)) == len(episode) - 1
    return {
        "seed": episode.seed,
        "observations": list(episode.obs),
        "actions": list(store.action_spec.to_env(episode.action)),
        "rewards": episode.reward.tolist(),
        "terminations": (last & episode.terminated).tolist(),
        "truncations": (last & episode.truncated).tolist(),
    }
