"""Calibration of M: open-loop error against predicted spread, predicted events against observed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
WINDOWS, SAMPLES = 64, 16
"""Windows, and sampled futures of each."""
BINS = 10
"""Bins of predicted events, of equal width from 0 to the largest prediction or 1."""


def calibrate(
    memory: Memory,
    reward: RewardModel,
    latents: Latents,
    *,
    seed: int,
    horizons: Sequence[int] = HORIZONS,
    warmup: int = 40,
) -> dict[str, Any]:
    """Measure M on held-out episodes, open-loop under recorded actions after ``warmup`` steps.

    Returns lists ``horizon, error, sigma, persistence``, in units of z's standard deviation: the
    RMS error of the mean of the sampled futures, their RMS spread, and the error of predicting no
    change. Horizons longer than any episode are left out. Where the reward counts
    events also ``event_reliability``.
    """
    longest = int(latents.lengths().max()) - warmup
    kept = sorted(horizon for horizon in horizons if horizon <= longest)
    report: dict[str, Any] = {"horizon": kept, "error": [], "sigma": [], "persistence": []}
    if kept:
        z, action = _windows(latents, warmup + kept[-1], np.random.default_rng(seed))
        scale = float(latents.mu.std()) or 1.0
        generator = torch.Generator().manual_seed(seed % 2**63)
        for step, dreamt in enumerate(_futures(memory, z, action, warmup, generator), 1):
            if step in kept:
                real = z[:, warmup + step]
                report["error"].append(_rms(dreamt.mean(1) - real) / scale)
                report["sigma"].append(_rms(dreamt - dreamt.mean(1, keepdim=True)) / scale)
                report["persistence"].append(_rms(z[:, warmup] - real) / scale)
    if reward.has_events:
        report["event_reliability"] = event_reliability(memory, reward, latents)
    return report


@torch.inference_mode()
def _futures(
    memory: Memory, z: Tensor, action: Tensor, warmup: int, noise: torch.Generator
) -> Iterator[Tensor]:
    """Sampled z (N, SAMPLES, Z) one step after another, after ``warmup`` recorded steps."""
    state = memory(z[:, :warmup], action[:, :warmup])[2]
    state = MemoryState(*(part.repeat_interleave(SAMPLES, 0) for part in state))
    dreamt = z[:, warmup].repeat_interleave(SAMPLES, 0)
    for acted in action[:, warmup:].unbind(1):
        acted = acted.repeat_interleave(SAMPLES, 0)
        dreamt, _, state = memory.dream(dreamt, acted, state, mixture_noise(dreamt, noise))
        yield dreamt.view(len(z), SAMPLES, -1)


@torch.inference_mode()
def event_reliability(
    memory: Memory, reward: RewardModel, latents: Latents
) -> dict[str, list[float]]:
    """Predicted against observed number of events in a step, over recorded episodes.

    Returns ``predicted, observed, count`` of each bin that is not empty.
    """
    probability, event = [], []
    for first, last in zip(latents.offsets[:-1], latents.offsets[1:], strict=True):
        z = torch.from_numpy(latents.mu[first : last - 1])[None]
        action = torch.from_numpy(latents.action[first : last - 1])[None]
        _, out, _ = memory(z, action)
        probability.append(reward.events(out.reward[0]).numpy())
        event.append(reward.target(torch.from_numpy(latents.reward[first : last - 1])).numpy())
    p, y = np.concatenate(probability), np.concatenate(event)
    place = np.minimum((p * BINS / max(1.0, float(p.max()))).astype(np.int64), BINS - 1)
    used = np.unique(place)
    return {
        "predicted": [float(p[place == b].mean()) for b in used],
        "observed": [float(y[place == b].mean()) for b in used],
        "count": [float((place == b).sum()) for b in used],
    }


def _windows(latents: Latents, steps: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Random windows of ``steps`` steps: z (N, steps + 1, Z) at V's mean, action (N, steps, A)."""
    lengths = latents.lengths()
    fitting = np.flatnonzero(lengths >= steps)
    chosen = rng.choice(fitting, WINDOWS)
    first = latents.offsets[chosen] + rng.integers(0, lengths[chosen] - steps + 1)
    index: NDArray[np.int64] = first[:, None] + np.arange(steps + 1)
    return torch.from_numpy(latents.mu[index]), torch.from_numpy(latents.action[index[:, :-1]])


def _rms(value: Tensor) -> float:
    return float(value.square().mean().sqrt())
