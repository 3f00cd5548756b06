"""The stage that encodes: episodes as V sees them, with their horizontal flips if asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from worldmodels.experience.episode import Episode
from worldmodels.experience.store import EpisodeStore
from worldmodels.runs import progress
from worldmodels.stages.context import StageContext
from worldmodels.stages.vision import HOLDOUT_EVERY, mirror_of
from worldmodels.tasks import Symmetry
from worldmodels.vision.latents import Latents, encode_episodes
from worldmodels.vision.vae import ConvVAE


def encode(
    vision: ConvVAE, store: EpisodeStore, ctx: StageContext, *, mirror: bool = False
) -> Latents:
    """Encode every episode of a store with V.

    Args:
        vision: V.
        store: episodes of one iteration.
        ctx: device.
        mirror: let each episode be followed by its horizontal flip.

    Raises:
        UserError: the environment has no known horizontal flip.
    """
    flip = mirror_of(store) if mirror else None
    indices = progress(range(len(store)), "encoding", unit="episodes")
    episodes = (seen for index in indices for seen in _with_flip(store.read(index), flip))
    return encode_episodes(vision.to(ctx.device), episodes, store.action_spec)


def _with_flip(episode: Episode, mirror: Symmetry | None) -> list[Episode]:
    if mirror is None:
        return [episode]
    obs, action = mirror.frames(episode.obs), mirror.actions(episode.action)
    return [episode, dataclasses.replace(episode, obs=obs, action=action)]


def originals(parts: Sequence[Latents], mirror: bool) -> list[Latents]:
    """The latents without the flipped episodes, where there are any."""
    if not mirror:
        return list(parts)
    return [part.select(np.arange(0, part.num_episodes, 2)) for part in parts]


def held_out(episodes: int, mirror: bool) -> NDArray[np.bool_]:
    """(E,) which encoded episodes are kept for validation, each with its flip; not all of them."""
    copies = 2 if mirror else 1
    held: NDArray[np.bool_] = np.arange(episodes) // copies % HOLDOUT_EVERY == 0
    return ~held if held.all() else held
