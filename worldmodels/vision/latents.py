"""Episodes as V sees them: (mu, logvar) of every frame, beside actions and rewards.

M resamples ``z = mu + exp(logvar / 2) * noise`` for every batch (the paper's code), so the
posterior is stored, not a sample of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodels._threads import CoreThreads
from worldmodels.artifacts import pick, require_shape
from worldmodels.envs.spaces import ActionSpec
from worldmodels.experience.episode import Episode
from worldmodels.protocols import UserError
from worldmodels.runs import mixed_precision
from worldmodels.vision.vae import ConvVAE, to_float

ENCODE_BATCH = 256
"""Frames encoded at once; batches are padded to this size, so results do not depend on it."""


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
        arrays = dict(vars(self), terminated=self.terminated.astype(np.uint8))
        arrays |= {name: arrays[name].astype(np.float16) for name in ("mu", "logvar")}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], path: Path, remedy: str) -> Latents:
        """What `tensors` gave, read from a file.

        Raises:
            UserError: one is missing or does not fit the others.
        """
        names = [field.name for field in fields(cls)]
        found = dict(zip(names, pick(tensors, names, path, remedy), strict=True))
        mu, action, offsets = found["mu"], found["action"], found["offsets"]
        frames, episodes = len(mu) if mu.ndim else 0, offsets.numel() - 1
        width, actions = (part.shape[1] if part.ndim == 2 else 0 for part in (mu, action))
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("mu", "logvar"), (frames, width))
        shapes |= {"action": (frames, actions), "reward": (frames,), "offsets": (episodes + 1,)}
        shapes |= dict.fromkeys(_PER_EPISODE, (episodes,))
        for name, shape in shapes.items():
            require_shape(found[name], shape, name, path)
        ends = offsets.double()
        whole = episodes > 0 and ends[0] == 0 and ends[-1] == frames
        if not (width and actions and whole and (ends.diff() >= 2).all()):
            raise UserError(f"{path} has no episodes, or they have no steps; {remedy}")
        types = {"terminated": torch.bool, "offsets": torch.int64, "seeds": torch.int64}
        return cls(**{k: part.to(types.get(k, torch.float32)).numpy() for k, part in found.items()})

    def select(self, episodes: Sequence[int] | NDArray[np.int64]) -> Latents:
        """Some of the episodes, in the order given."""
        chosen = np.asarray(episodes, np.int64)
        spans = [np.arange(*self.offsets[episode : episode + 2]) for episode in chosen]
        rows = np.concatenate([chosen[:0], *spans])
        return Latents(
            **{name: getattr(self, name)[rows] for name in _PER_FRAME},
            **{name: getattr(self, name)[chosen] for name in _PER_EPISODE},
            offsets=np.cumsum([0, *map(len, spans)]),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Latents]) -> Latents:
        """Lay several sets end to end, in order."""
        if not parts:
            raise UserError("no latents to concatenate: encode at least one shard")
        names = _PER_FRAME + _PER_EPISODE
        frames = np.concatenate([part.lengths() + 1 for part in parts])
        return cls(
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names},
            offsets=np.append(0, np.cumsum(frames)),
        )


_PER_FRAME = ("mu", "logvar", "action", "reward")
_PER_EPISODE = ("terminated", "seeds")


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


def encode_episodes(model: ConvVAE, episodes: Iterable[Episode], spec: ActionSpec) -> Latents:
    """Encode whole episodes, in their order; batches reach over their ends.

    An episode that was given up (`Episode.lost`) counts as terminated: otherwise M, having never
    seen long off-track stretches, dreams an early return to the road.
    """
    actions, rewards, lengths, terminated, seeds = [], [], [0], [], []

    def frames() -> Iterator[NDArray[np.uint8]]:
        for episode in episodes:
            action = np.zeros((len(episode.obs), spec.size), np.float32)
            action[:-1] = spec.encode(episode.action)
            actions.append(action)
            rewards.append(np.append(episode.reward, np.float32(0)))
            lengths.append(len(episode.obs))
            terminated.append(episode.terminated or episode.lost)
            seeds.append(episode.seed)
            yield episode.obs

    on_cpu = next(model.parameters()).device.type == "cpu"
    with CoreThreads(torch.get_num_threads() if on_cpu else 1) as threads:
        packed = _packed(frames(), ENCODE_BATCH)
        encoded = list(threads.map(partial(encode_frames, model), packed))
    if not encoded:
        raise UserError("there is no episode to encode")
    mu, logvar = (np.concatenate(part) for part in zip(*encoded, strict=True))
    per_frame = mu, logvar, np.concatenate(actions), np.concatenate(rewards)
    offsets = np.cumsum(lengths)
    return Latents(*per_frame, np.array(terminated), offsets, np.array(seeds))


def _packed(parts: Iterable[NDArray[np.uint8]], size: int) -> Iterator[NDArray[np.uint8]]:
    """The same rows in arrays of one size, of which only the last is shorter."""
    held, rows = list[NDArray[np.uint8]](), 0
    for part in parts:
        held.append(part)
        rows += len(part)
        if rows >= size:
            whole = np.concatenate(held)
            rows = len(whole) % size
            yield from np.split(whole[: len(whole) - rows], len(whole) // size)
            held = [whole[len(whole) - rows :]]
    if rows:
        yield np.concatenate(held)
