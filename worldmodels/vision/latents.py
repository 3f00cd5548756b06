"""Episodes as V sees them: (mu, logvar) of every frame, beside actions and rewards.

M resamples ``z = mu + exp(logvar / 2) * noise`` for every batch (the paper's code), so the
posterior is what is stored, never one sample of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodels.artifacts import pick, require_shape
from worldmodels.envs.spaces import ActionSpec
from worldmodels.experience.episode import Episode
from worldmodels.protocols import UserError
from worldmodels.runs import mixed_precision
from worldmodels.vision.vae import ConvVAE, to_float

ENCODE_BATCH = 256
"""Frames encoded at once; the batch is padded to this width so that results never depend on it."""


@dataclass(frozen=True)
class Latents:
    """Encoded episodes laid end to end; F frames, E episodes, F - E steps."""

    mu: NDArray[np.float32]
    """(F, Z)"""
    logvar: NDArray[np.float32]
    """(F, Z)"""
    action: NDArray[np.float32]
    """(F, A) encoded action taken at each frame; zeros at an episode's last frame"""
    reward: NDArray[np.float32]
    """(F,) reward of that action; 0 at an episode's last frame"""
    terminated: NDArray[np.bool_]
    """(E,) whether the episode ended by termination, or by patience: M learns where dreams end"""
    offsets: NDArray[np.int64]
    """(E + 1,) first frame of each episode, and F"""
    seeds: NDArray[np.int64]
    """(E,) environment seed of each episode"""

    @property
    def num_episodes(self) -> int:
        """E."""
        return len(self.offsets) - 1

    @property
    def num_frames(self) -> int:
        """F."""
        return len(self.mu)

    @property
    def z_dim(self) -> int:
        """Z."""
        return int(self.mu.shape[1])

    def lengths(self) -> NDArray[np.int64]:
        """(E,) steps of each episode."""
        return np.diff(self.offsets) - 1

    def tensors(self) -> dict[str, Tensor]:
        """As a file holds them: mu and logvar as float16."""
        arrays: dict[str, NDArray[Any]] = {
            "mu": self.mu.astype(np.float16),
            "logvar": self.logvar.astype(np.float16),
            "action": self.action,
            "reward": self.reward,
            "terminated": self.terminated.astype(np.uint8),
            "offsets": self.offsets,
            "seeds": self.seeds,
        }
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], path: Path, remedy: str) -> Latents:
        """What `tensors` gave, read from a file.

        Raises:
            UserError: one is missing or does not fit the others.
        """
        names = ("mu", "logvar", "action", "reward", "terminated", "offsets", "seeds")
        mu, logvar, action, reward, terminated, offsets, seeds = pick(tensors, names, path, remedy)
        frames, episodes = len(mu) if mu.ndim else 0, offsets.numel() - 1
        width = mu.shape[1] if mu.ndim == 2 else 0
        actions = action.shape[1] if action.ndim == 2 else 0
        for name, tensor, shape in (
            *(("mu", mu, (frames, width)), ("logvar", logvar, (frames, width))),
            *(("action", action, (frames, actions)), ("reward", reward, (frames,))),
            *(("terminated", terminated, (episodes,)), ("seeds", seeds, (episodes,))),
            ("offsets", offsets, (episodes + 1,)),
        ):
            require_shape(tensor, shape, name, path)
        ends = offsets.double()
        whole = episodes > 0 and ends[0] == 0 and ends[-1] == frames
        if not (width and actions and whole and (ends.diff() >= 2).all()):
            raise UserError(f"{path} has offsets of no episodes, or no numbers; {remedy}")
        return cls(
            mu=mu.float().numpy(),
            logvar=logvar.float().numpy(),
            action=action.float().numpy(),
            reward=reward.float().numpy(),
            terminated=terminated.bool().numpy(),
            offsets=offsets.long().numpy(),
            seeds=seeds.long().numpy(),
        )

    def select(self, episodes: Sequence[int] | NDArray[np.int64]) -> Latents:
        """Some of the episodes, in the order given."""
        return Latents.concatenate([self._one(int(episode)) for episode in episodes])

    def _one(self, episode: int) -> Latents:
        first, last = int(self.offsets[episode]), int(self.offsets[episode + 1])
        return Latents(
            mu=self.mu[first:last],
            logvar=self.logvar[first:last],
            action=self.action[first:last],
            reward=self.reward[first:last],
            terminated=self.terminated[episode : episode + 1],
            offsets=np.array([0, last - first], np.int64),
            seeds=self.seeds[episode : episode + 1],
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Latents]) -> Latents:
        """Lay several sets end to end, in order."""
        if not parts:
            raise UserError("no latents to concatenate: encode at least one shard")
        starts = np.cumsum([0] + [part.num_frames for part in parts])
        offsets = [part.offsets[:-1] + start for part, start in zip(parts, starts, strict=False)]
        return cls(
            mu=np.concatenate([part.mu for part in parts]),
            logvar=np.concatenate([part.logvar for part in parts]),
            action=np.concatenate([part.action for part in parts]),
            reward=np.concatenate([part.reward for part in parts]),
            terminated=np.concatenate([part.terminated for part in parts]),
            offsets=np.concatenate([*offsets, starts[-1:]]).astype(np.int64),
            seeds=np.concatenate([part.seeds for part in parts]),
        )


def encode_frames(
    model: ConvVAE, frames: NDArray[np.uint8], bfloat16: bool = True
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Posterior (mu, logvar), each (N, Z) float32, of frames (N, 64, 64, 3) uint8."""
    device = next(model.parameters()).device
    mus, logvars = [], []
    with torch.inference_mode():
        for first in range(0, len(frames), ENCODE_BATCH):
            part = frames[first : first + ENCODE_BATCH]
            padded = np.zeros((ENCODE_BATCH, *frames.shape[1:]), np.uint8)
            padded[: len(part)] = part
            with mixed_precision(device, bfloat16):
                mu, logvar = model.encode(to_float(torch.from_numpy(padded).to(device)))
            mus.append(mu[: len(part)].float().cpu().numpy())
            logvars.append(logvar[: len(part)].float().cpu().numpy())
    return np.concatenate(mus), np.concatenate(logvars)


def encode_episodes(
    model: ConvVAE, episodes: Iterable[Episode], spec: ActionSpec, bfloat16: bool = True
) -> Latents:
    """Encode whole episodes, in their order.

    An episode that was given up (`Episode.lost`) counts as terminated. What would have come after
    is in no data, so a dream must not go there either: a car that M never saw lost for longer
    would find a road again in no time.
    """
    parts = [_encode_one(model, episode, spec, bfloat16) for episode in episodes]
    return Latents.concatenate(parts)


def _encode_one(model: ConvVAE, episode: Episode, spec: ActionSpec, bfloat16: bool) -> Latents:
    mu, logvar = encode_frames(model, episode.obs, bfloat16)
    frames = len(mu)
    action = np.zeros((frames, spec.size), np.float32)
    action[:-1] = spec.encode(episode.action)
    reward = np.zeros(frames, np.float32)
    reward[:-1] = episode.reward
    return Latents(
        mu=mu,
        logvar=logvar,
        action=action,
        reward=reward,
        terminated=np.array([episode.terminated or episode.lost]),
        offsets=np.array([0, frames], np.int64),
        seeds=np.array([episode.seed], np.int64),
    )
