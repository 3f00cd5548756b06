"""An episode replayed, seen through V and dreamt by M."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodels import envs
from worldmodels.agent import Agent
from worldmodels.envs.frames import to_vision
from worldmodels.experience.episode import EpisodeResult
from worldmodels.experience.rollout import run_group
from worldmodels.memory.mixture import mixture_noise
from worldmodels.protocols import UserError
from worldmodels.video.config import Frames, VideoConfig


@dataclass(frozen=True, eq=False)
class Recording:
    """An episode as it was seen."""

    frames: Frames
    """(T + 1, H, W, C) the environment's own frames, C 3, or 1 for grey ones"""
    actions: NDArray[Any]
    """(T, A) or (T,) executed actions"""
    rewards: NDArray[np.float64]
    """(T,)"""


@dataclass(frozen=True, eq=False)
class Views:
    """What V and M make of a recording: frames (n, 64, 64, 3) of every k-th step from 0."""

    every: int
    """k, a multiple of the steps that the agent holds an action for"""
    sync: int
    """steps after which the dream saw reality again"""

    seen: Frames
    """V's input"""
    reconstructed: Frames
    """V's mean, decoded"""
    dreamt: Frames
    """M's dream, decoded; at every ``sync``-th step it is V's reconstruction"""


def replay(
    env_id: str, episode: EpisodeResult, env_kwargs: Mapping[str, Any] | None = None
) -> Recording:
    """Drive an episode again, by its seed and actions.

    Args:
        env_id: the environment, or one of the same physics with faster pixels.
        episode: evaluated with ``keep_actions=True``.
        env_kwargs: passed to `envs.make`.

    Raises:
        UserError: the record has no actions.
    """
    if episode.actions is None:
        raise UserError("the episode has no actions to replay; evaluate with keep_actions=True")
    env = envs.make(env_id, **(env_kwargs or {}))
    try:
        (driven,) = run_group(
            [env],
            _Recorded(episode.actions),
            [episode.seed],
            max_steps=len(episode.actions),
            width=1,
            keep_frames=True,
        )
    finally:
        env.close()
    assert driven.frames is not None and driven.rewards is not None
    return Recording(driven.frames, episode.actions[: driven.length], driven.rewards)


class _Recorded:
    """A behaviour that takes the recorded actions (T, A) or (T,) of one episode."""

    def __init__(self, actions: NDArray[Any]) -> None:
        self._actions, self._t = actions, 0

    def start(self, seeds: Sequence[int]) -> None:
        """Begin at the first action."""
        self._t = 0

    def act(self, obs: NDArray[np.uint8], active: NDArray[np.bool_]) -> NDArray[Any]:
        """Return the next action, (1, A) or (1,)."""
        self._t += 1
        return self._actions[self._t - 1 : self._t]


@torch.inference_mode()
def views(agent: Agent, recording: Recording, cfg: VideoConfig, seed: int = 0) -> Views:
    """See a recording through V, and dream it: open loop from every ``cfg.sync``-th step.

    M gets the executed actions. Its state at a synchronised step is warmed on the episode so far.
    Where the agent holds its actions, only the frames at its decisions count.
    """
    held = agent.action_repeat
    frames, sync, every = recording.frames[::held], max(1, cfg.sync // held), cfg.every // held
    every = max(1, every)
    mu = torch.cat([agent.encode(chunk)[0] for chunk in _chunks(frames, 64)])
    actions = recording.actions[::held][: len(frames) - 1]
    z = dream_along(agent, mu, actions, sync, cfg.temperature, seed)[::every]
    mu = mu[::every]
    return Views(
        every * held,
        sync * held,
        to_vision(frames[::every], agent.frame_spec),
        np.concatenate([agent.decode(chunk) for chunk in _chunks(mu, 64)]),
        np.concatenate([agent.decode(chunk) for chunk in _chunks(z, 64)]),
    )


@torch.inference_mode()
def dream_along(
    agent: Agent,
    mu: Tensor,
    actions: NDArray[Any],
    sync: int,
    temperature: float = 1.0,
    seed: int = 0,
) -> Tensor:
    """Dream latents for recorded actions, beginning anew from reality at every ``sync``-th step.

    Args:
        agent: its first memory dreams.
        mu: (T + 1, Z) V's means of the recorded frames.
        actions: (T, A) or (T,) executed.
        sync: steps between two looks at reality.
        temperature: of the samples.
        seed: of the samples.

    Returns:
        (T + 1, Z) with ``z[k * sync] = mu[k * sync]``.
    """
    memory = agent.memories[0]
    encoded = torch.from_numpy(agent.action_spec.encode(actions))
    generator = torch.Generator().manual_seed(seed)
    state = memory.initial_state(1)
    z = mu.clone()
    for first in range(0, len(actions), sync):
        stop = min(first + sync, len(actions))
        dream, past = state, slice(first, stop)
        for t in range(first, stop if stop == len(actions) else stop - 1):
            at = slice(t, t + 1)
            noise = mixture_noise(z[at], generator)
            z[t + 1], _, dream = memory.dream(z[at], encoded[at], dream, noise, temperature)
        _, _, state = memory(mu[None, past], encoded[None, past], state)
    return z


def _chunks(values: Any, size: int) -> Iterator[Any]:
    """Pieces of an array or a tensor, for a bounded memory."""
    for first in range(0, len(values), size):
        yield values[first : first + size]
