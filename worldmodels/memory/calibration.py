"""Calibration of M: predicted against observed errors, rewards and ends of episodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodels.memory.interface import Memory, MemoryState
from worldmodels.memory.mixture import mixture_noise
from worldmodels.memory.rewards import RewardModel
from worldmodels.vision.latents import Latents

Floats: TypeAlias = NDArray[np.float64]

HORIZONS = (1, 10, 50, 200)
"""Steps ahead at which the open-loop error is measured."""
WINDOWS, SAMPLES = 64, 16
"""Windows, and sampled futures of each."""
BINS = 10
"""Bins of predicted rewards, of equal width: events from 0 to the largest prediction or 1."""
CHANCES = 10.0 ** np.arange(-4, 0, 0.5)
"""Edges between the bins of the chance of an end, which is rare: the first begins at 0."""


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
    change. Horizons longer than any episode are left out. Beside them, from `told`,
    ``event_reliability`` or ``reward_reliability``, and ``ends`` where an episode ends by itself.
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
    seen = told(memory, reward, latents)
    if reward.has_events:
        report["event_reliability"] = reliability(seen.predicted, seen.observed, low=0.0, high=1.0)
    elif np.ptp(seen.observed) > 0:
        report["reward_reliability"] = reliability(seen.predicted, seen.observed)
    if seen.ended.any():
        report["ends"] = end_reliability(seen.end, seen.ended)
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


class Told(NamedTuple):
    """What M says of N recorded steps, and what followed."""

    predicted: Floats
    """(N,) expected events (kinds event and count), else the expected reward"""
    observed: Floats
    """(N,) the same, recorded"""
    end: Floats
    """(N,) chance that the step ends the episode"""
    ended: NDArray[np.bool_]
    """(N,) whether it did, by itself"""


@torch.inference_mode()
def told(memory: Memory, reward: RewardModel, latents: Latents) -> Told:
    """Run M over recorded episodes, one step ahead of each."""
    counts = reward.has_events
    parts = []
    for first, last, ended in zip(
        latents.offsets[:-1], latents.offsets[1:], latents.terminated, strict=True
    ):
        z, action = (
            torch.from_numpy(a[first : last - 1])[None] for a in (latents.mu, latents.action)
        )
        paid = torch.from_numpy(latents.reward[first : last - 1])
        out = memory(z, action)[1]
        predicted = (reward.events if counts else reward.expected)(out.reward[0])
        end, over = torch.sigmoid(out.terminated_logit[0]), np.zeros(len(paid), np.bool_)
        over[-1] = ended
        observed = reward.target(paid) if counts else paid
        parts.append([*(part.double().numpy() for part in (predicted, observed, end)), over])
    return Told(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def reliability(
    predicted: Floats, observed: Floats, low: float = np.inf, high: float = -np.inf
) -> dict[str, list[float]]:
    """Mean of observed (N,) by predicted (N,), in bins of equal width that reach low and high.

    Returns ``predicted, observed, count`` of each bin that is not empty.
    """
    low, high = min(low, float(predicted.min())), max(high, float(predicted.max()))
    width = (high - low) / BINS or 1.0
    return _by_bin(predicted, observed, np.minimum((predicted - low) // width, BINS - 1))


def end_reliability(chance: Floats, ended: NDArray[np.bool_]) -> dict[str, Any]:
    """Observed fraction of ends (N,) by their predicted chance (N,), in bins of `CHANCES`.

    Beside the fields of `reliability`: ``ends``, the recorded ones; ``expected``, the sum of all
    chances; ``recognised``, their sum over the steps that did end an episode; ``auc``, how often
    such a step has a higher chance than another (0.5 where M knows nothing; None without another).
    """
    bins: dict[str, Any] = _by_bin(chance, ended, np.digitize(chance, CHANCES))
    ends, others = int(ended.sum()), int((~ended).sum())
    rounded = np.log(np.maximum(chance, 1e-30)).round(4)  # equal chances differ by float error
    _, place, count = np.unique(rounded, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    above = rank[ended].sum() - ends * (ends + 1) / 2
    sums = {"expected": float(chance.sum()), "recognised": float(chance[ended].sum())}
    auc = float(above / (ends * others)) if ends and others else None
    return {**bins, "ends": ends, **sums, "auc": auc}


def _by_bin(predicted: Floats, observed: NDArray[Any], place: NDArray[Any]) -> dict[str, Any]:
    used = np.unique(place)
    return {
        "predicted": [float(predicted[place == b].mean()) for b in used],
        "observed": [float(observed[place == b].mean()) for b in used],
        "count": [float((place == b).sum()) for b in used],
    }


def survival(
    lengths: NDArray[np.int64], ended: NDArray[np.bool_], times: NDArray[np.int64]
) -> Floats:
    """Fraction of episodes that last longer than each time (T,) (Kaplan and Meier 1958).

    Of lengths (N,) in steps, those that have not ``ended`` (N,) by themselves were cut off there.
    """
    moments = np.unique(lengths[ended])
    at_risk = (lengths[:, None] >= moments).sum(0)
    deaths = ((lengths[:, None] == moments) & ended[:, None]).sum(0)
    left = np.concatenate([[1.0], np.cumprod(1 - deaths / at_risk)])
    found: Floats = left[np.searchsorted(moments, times, side="right")]
    return found


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
