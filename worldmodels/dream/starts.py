"""Where dreams begin: recorded states, with M's state warmed on the recorded steps before them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodels.config import Count, CountOrZero, require
from worldmodels.memory.interface import Memory
from worldmodels.protocols import UserError
from worldmodels.vision.latents import Latents

Array = NDArray[np.float32]

WARMUP_BATCH = 1024
"""Starts warmed at once."""


@dataclass(frozen=True)
class DreamStarts:
    """S recorded states, as each of M memories would know them."""

    z: Array
    """(S, Z)"""
    h: Array
    """(M, S, H): one warmed state per memory"""
    c: Array
    """(M, S, C)"""

    def __post_init__(self) -> None:
        """Check that the shapes belong together."""
        fits = self.z.ndim == 2 and self.h.ndim == self.c.ndim == 3
        fits = fits and self.h.shape[1] == self.c.shape[1] == len(self.z) > 0
        if not fits or len(self.h) != len(self.c):
            shapes = f"z {self.z.shape}, h {self.h.shape}, c {self.c.shape}"
            raise UserError(f"dream starts have {shapes}; expected (S, Z), (M, S, H), (M, S, C)")

    def __len__(self) -> int:
        """S."""
        return len(self.z)

    def check(self, memories: Sequence[Memory]) -> None:
        """Refuse starts of other memories: their shapes differ."""
        cfg, shape = memories[0].cfg, (len(memories), len(self))
        h, c = (*shape, cfg.hidden_size), (*shape, memories[0].carry_size)
        expected = (shape[1], cfg.z_dim), h, c
        found = self.z.shape, self.h.shape, self.c.shape
        if found != expected:
            raise UserError(
                "dream starts have z {}, h {} and c {}; ".format(*found)
                + "these memories need {}, {} and {}: ".format(*expected)
                + "build the starts again with these memories"
            )

    def seen(self, carry: bool) -> Array:
        """What a policy sees of the first memory: h (S, H), or [h, c] with the ``carry``."""
        return np.concatenate((self.h[0], self.c[0]), axis=1) if carry else self.h[0]

    def at(self, members: Sequence[int], index: NDArray[np.int64]) -> DreamStarts:
        """The states of ``index`` (R,), as some of the memories know them."""
        h, c = (np.stack([state[m][index] for m in members]) for state in (self.h, self.c))
        return DreamStarts(self.z[index], h, c)


def before_off_track(
    reward: Array, offsets: NDArray[np.int64], before: int, streak: int
) -> NDArray[np.bool_]:
    """Frames shortly before a run without reward (off track), where more dreams should begin.

    Args:
        reward: (F,) of the action at each frame; an episode's last frame has no action.
        offsets: (E + 1,) first frame of each episode, and F.
        before: frames before such a run that count.
        streak: minimum length of a run, in steps without a reward above 0.

    Returns:
        (F,) True from ``before`` frames before the first step of a run up to that step.
    """
    chosen = np.zeros(len(reward), np.bool_)
    for first, end in itertools.pairwise(offsets):
        paid = np.flatnonzero(reward[first : end - 1] > 0)
        edges = np.concatenate([[-1], paid, [end - 1 - first]])
        for at in np.flatnonzero(np.diff(edges) > streak):
            run = first + edges[at] + 1
            chosen[max(first, run - before) : run + 1] = True
    return chosen


def with_beginnings(
    weight: NDArray[np.float64], offsets: NDArray[np.int64], share: float
) -> NDArray[np.float64]:
    """Weights (F,) of which the episodes' first frames have the fraction ``share``.

    ``offsets`` (E + 1,) are the first frame of each episode, and F; nothing begins at a last frame.
    Within both kinds of frames the weights keep their proportions.
    """
    weight, first = weight.copy(), np.zeros(len(weight), np.bool_)
    weight[offsets[1:] - 1] = 0.0
    first[offsets[:-1]] = True
    for rows, part in ((first, share), (~first, 1 - share)):
        weight[rows] *= part / (weight[rows].sum() or 1.0)
    return weight


def build_starts(
    memories: Sequence[Memory],
    latents: Latents,
    count: int,
    warmup: int,
    rng: np.random.Generator,
    weight: NDArray[np.float64] | None = None,
    posterior_noise: float = 1.0,
) -> DreamStarts:
    """Choose recorded frames at random and run every memory over the steps before them.

    Args:
        memories: M memories; the recorded prefix is played to each.
        latents: recorded episodes as (mu, logvar) and actions, F frames.
        count: S, starts to choose (with replacement); not an episode's last frame.
        warmup: recorded steps to play before a start, or all if the episode has fewer.
        rng: chooses frames and samples z from its posterior.
        weight: (F,) relative probability of each frame; None for uniform.
        posterior_noise: fraction of V's posterior standard deviation sampled into z.

    Raises:
        UserError: no episode has a step, or the weight is invalid.
    """
    require("count", count, Count)
    require("warmup", warmup, CountOrZero)
    frames = np.setdiff1d(np.arange(latents.offsets[-1]), latents.offsets[1:] - 1)
    if len(frames) == 0:
        raise UserError("no recorded episode has a step, so there is nowhere to start a dream")
    chance = None
    if weight is not None:
        if weight.shape != (len(latents.mu),):
            needs = f"needs ({len(latents.mu)},)"
            raise UserError(f"weight of the dream starts has shape {weight.shape}, {needs}")
        chance = np.asarray(weight[frames], np.float64)
        if not (np.isfinite(chance).all() and (chance >= 0).all() and chance.sum() > 0):
            raise UserError("weights of the dream starts must be finite, not negative, not all 0")
        chance = chance / chance.sum()
    chosen = np.sort(rng.choice(frames, size=count, p=chance))
    parts = [
        _warm(memories, latents, chosen[first : first + WARMUP_BATCH], warmup, rng, posterior_noise)
        for first in range(0, count, WARMUP_BATCH)
    ]
    z, h, c = zip(*parts, strict=True)
    return DreamStarts(np.concatenate(z), np.concatenate(h, axis=1), np.concatenate(c, axis=1))


@torch.inference_mode()
def _warm(
    memories: Sequence[Memory],
    latents: Latents,
    frames: NDArray[np.int64],
    warmup: int,
    rng: np.random.Generator,
    noise: float,
) -> tuple[Array, Array, Array]:
    """z, h and c after the steps before each frame; before the episode's first step h stays 0."""
    first = latents.offsets[np.searchsorted(latents.offsets, frames, side="right") - 1]
    longest = int(np.minimum(frames - first, warmup).max())
    device = memories[0].device
    states = [memory.initial_state(len(frames)) for memory in memories]

    def sampled_z(index: NDArray[np.int64]) -> Tensor:
        normal = rng.standard_normal((len(index), latents.mu.shape[1]), dtype=np.float32)
        z = latents.mu[index] + noise * np.exp(0.5 * latents.logvar[index]) * normal
        return torch.from_numpy(z.astype(np.float32)).to(device)

    for back in range(longest, 0, -1):
        index = frames - back
        begun = torch.from_numpy((index >= first).astype(np.float32)).to(device).unsqueeze(-1)
        index = np.maximum(index, first)
        z = sampled_z(index)
        action = torch.from_numpy(latents.action[index]).to(device)
        states = [
            memory.advance(z, action, state).kept(begun)
            for memory, state in zip(memories, states, strict=True)
        ]
    h, c = (torch.stack(parts).float().cpu().numpy() for parts in zip(*states, strict=True))
    return sampled_z(frames).cpu().numpy(), h, c
