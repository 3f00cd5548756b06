"""How far M can be trusted: open-loop error against spread, hit probability against frequency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodels.memory.interface import Memory, MemoryState
from worldmodels.memory.mixture import mixture_noise
from worldmodels.memory.rewards import RewardModel
from worldmodels.vision.latents import Latents

HORIZONS = (1, 10, 50, 200)
"""Steps ahead at which the open-loop error is measured."""


def calibrate(
    memory: Memory,
    reward: RewardModel,
    latents: Latents,
    *,
    seed: int,
    horizons: Sequence[int] = HORIZONS,
    warmup: int = 40,
    windows: int = 64,
    samples: int = 16,
) -> dict[str, Any]:
    """Measure M on recorded episodes, driven by the recorded actions.

    Args:
        memory: M.
        reward: meaning of its reward head.
        latents: held-out episodes.
        seed: chooses the windows and drives the sampling.
        horizons: steps ahead; those longer than any episode are left out.
        warmup: recorded steps before M is left to itself.
        windows: windows looked at.
        samples: sampled futures per window.

    Returns:
        ``horizon, error, sigma, persistence``, lists of equal length: the RMS error of the mean of
        the sampled futures, their RMS spread, and the error of predicting no change, all in units
        of z's own deviation; where episodes are long enough. With a hit head also
        (or count) ``hit_reliability``: ``predicted, observed, count`` per bin of predicted events.
    """
    report = _open_loop(memory, latents, seed, sorted(horizons), warmup, windows, samples)
    if reward.kind != "raw":
        report["hit_reliability"] = hit_reliability(memory, reward, latents)
    return report


def _open_loop(
    memory: Memory,
    latents: Latents,
    seed: int,
    horizons: Sequence[int],
    warmup: int,
    windows: int,
    samples: int,
) -> dict[str, Any]:
    longest = int(latents.lengths().max()) - warmup
    kept = [horizon for horizon in horizons if horizon <= longest]
    if not kept:
        return {"horizon": [], "error": [], "sigma": [], "persistence": []}
    z, action = _windows(latents, warmup + kept[-1], windows, np.random.default_rng(seed))
    scale = float(latents.mu.std()) or 1.0
    generator = torch.Generator().manual_seed(seed % 2**63)
    rows: dict[str, list[float]] = {"error": [], "sigma": [], "persistence": []}
    with torch.inference_mode():
        _, _, state = memory(z[:, :warmup], action[:, :warmup])
        state = MemoryState(*(part.repeat_interleave(samples, 0) for part in state))
        dreamt = z[:, warmup].repeat_interleave(samples, 0)
        for t in range(kept[-1]):
            acted = action[:, warmup + t].repeat_interleave(samples, 0)
            noise = mixture_noise(dreamt, generator)
            dreamt, _, state = memory.dream(dreamt, acted, state, noise)
            if t + 1 in kept:
                real = z[:, warmup + t + 1]
                futures = dreamt.view(len(z), samples, -1)
                rows["error"].append(_rms(futures.mean(1) - real) / scale)
                rows["sigma"].append(_rms(futures - futures.mean(1, keepdim=True)) / scale)
                rows["persistence"].append(_rms(z[:, warmup] - real) / scale)
    return {"horizon": list(kept), **rows}


def hit_reliability(
    memory: Memory, reward: RewardModel, latents: Latents, bins: int = 10
) -> dict[str, list[float]]:
    """Predicted number of hits in a step against the observed one, over recorded episodes.

    The number is a probability for kind "hit". Bins are of equal width, from 0 to the largest
    prediction or 1; empty ones are left out.
    """
    events = RewardModel(reward.kind)  # rewards in units of one event
    probability, hit = [], []
    with torch.inference_mode():
        for first, last in zip(latents.offsets[:-1], latents.offsets[1:], strict=True):
            z = torch.from_numpy(latents.mu[first:last])[None]
            action = torch.from_numpy(latents.action[first:last])[None]
            _, out, _ = memory(z[:, :-1], action[:, :-1])
            probability.append(events.expected(out.reward[0]).numpy())
            hit.append(reward.target(torch.from_numpy(latents.reward[first : last - 1])).numpy())
    p, y = np.concatenate(probability), np.concatenate(hit)
    place = np.minimum((p * bins / max(1.0, float(p.max()))).astype(np.int64), bins - 1)
    used = [b for b in range(bins) if (place == b).any()]
    return {
        "predicted": [float(p[place == b].mean()) for b in used],
        "observed": [float(y[place == b].mean()) for b in used],
        "count": [float((place == b).sum()) for b in used],
    }


def _windows(
    latents: Latents, steps: int, count: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Random windows of ``steps`` steps: z (N, steps + 1, Z) at V's mean, action (N, steps, A)."""
    lengths = latents.lengths()
    fitting = np.flatnonzero(lengths >= steps)
    chosen = rng.choice(fitting, count)
    first = latents.offsets[chosen] + rng.integers(0, lengths[chosen] - steps + 1)
    index: NDArray[np.int64] = first[:, None] + np.arange(steps + 1)
    return torch.from_numpy(latents.mu[index]), torch.from_numpy(latents.action[index[:, :-1]])


def _rms(value: Tensor) -> float:
    return float(value.square().mean().sqrt())
