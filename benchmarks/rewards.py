"""How well M's reward heads predict mean rewards of many scales, signs and sparsities.

    python benchmarks/rewards.py [--seeds 3] [--kinds raw two_hot] [--json FILE]

M is trained on synthetic latents whose mean reward in each state is known, and tested on others.
Prints, for each reward and kind of head, the RMS error of the expected reward and its bias, both
relative to the standard deviation of the mean reward: a constant has an error of 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from worldmodels.memory.mdn_rnn import MDNRNNConfig
from worldmodels.memory.rewards import RewardKind
from worldmodels.memory.train import MemoryTrainConfig, fit_reward_model, train_memory
from worldmodels.runs import machine, write_json
from worldmodels.vision.latents import Latents

EPISODES, STEPS, Z = 200, 100, 4
Floats: TypeAlias = NDArray[np.float64]
Reward: TypeAlias = Callable[[Floats, np.random.Generator], tuple[Floats, Floats]]
"""z (N, Z) to rewards (N,) and their means (N,)."""


@dataclass(frozen=True)
class Args:
    """What to measure."""

    kinds: tuple[Literal["event", "count", "raw", "two_hot"], ...] = ("raw", "two_hot")
    """reward heads"""
    seeds: int = 3
    """trainings of each"""
    steps: int = 600
    """gradient steps"""
    only: tuple[str, ...] = ()
    """names of rewards, or their beginnings; none for all"""
    json: Path | None = None
    """where to write the figures"""


def _chance(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


def _noisy(scale: float) -> Reward:
    def reward(z: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
        mean = scale * (z[:, 0] + 0.5 * z[:, 1] * z[:, 2])
        return mean + 0.5 * scale * rng.standard_normal(len(z)), mean

    return reward


def _pendulum(z: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    mean = -16 * _chance(1.5 * z[:, 0] + z[:, 1])
    return mean, mean


def _rare(z: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    paid = (z[:, 0] + 0.5 * z[:, 1] > 3.22).astype(np.float64)  # 1 step in 500
    return paid, paid


def _mixture(z: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    gain, loss = _chance(2 * z[:, 0] - 4), _chance(2 * z[:, 1])
    drawn = rng.random(len(z))
    paid = np.select([drawn < gain, drawn < gain + (1 - gain) * loss], [100.0, -1.0], 0.0)
    return paid, 100 * gain - (1 - gain) * loss


def _skewed(z: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    noise = 1.5 * rng.standard_normal(len(z))
    return np.exp(z[:, 0] + noise), np.exp(z[:, 0] + 1.5**2 / 2)


REWARDS: dict[str, Reward] = {
    "scale 1e-3": _noisy(1e-3),
    "scale 1": _noisy(1.0),
    "scale 1e6": _noisy(1e6),
    "-16 to 0": _pendulum,
    "1 in 500": _rare,
    "0, 100, -1": _mixture,
    "lognormal": _skewed,
}


def make(reward: Reward, seed: int) -> tuple[Latents, NDArray[np.float64]]:
    """Latents of white noise, and the mean reward (E, T) of every step."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((EPISODES * (STEPS + 1), Z))
    paid, mean = reward(z, rng)
    latents = Latents(
        mu=z.astype(np.float32),
        logvar=np.full(z.shape, -12, np.float32),
        action=np.zeros((len(z), 1), np.float32),
        reward=paid.astype(np.float32),
        terminated=np.zeros(EPISODES, np.bool_),
        offsets=np.arange(EPISODES + 1) * (STEPS + 1),
        seeds=np.arange(EPISODES),
    )
    return latents, mean.reshape(EPISODES, -1)[:, :-1]


def error(name: str, kind: RewardKind, seed: int, steps: int) -> tuple[float, float]:
    """RMS error and bias on new episodes, relative to the std of the mean reward."""
    latents, _ = make(REWARDS[name], 2 * seed)
    unseen, mean = make(REWARDS[name], 2 * seed + 1)
    model = fit_reward_model(latents, kind)
    cfg = MemoryTrainConfig(steps=steps, batch_size=48, sequence_length=24)
    shape = MDNRNNConfig(z_dim=Z, action_size=1, hidden_size=64, mixtures=1, reward=kind)
    memory = train_memory(cfg, shape, model, latents, seed=seed)
    z, action = (
        torch.from_numpy(part).view(EPISODES, STEPS + 1, -1)[:, :-1]
        for part in (unseen.mu, unseen.action)
    )
    with torch.inference_mode():
        found = model.expected(memory(z, action)[1].reward).numpy() - mean
    return float(np.sqrt(np.square(found).mean()) / mean.std()), float(found.mean() / mean.std())


def main(args: Args) -> None:
    """Measure and print."""
    print(machine())
    rows = []
    for name in REWARDS:
        if args.only and not name.startswith(args.only):
            continue
        for kind in args.kinds:
            found = np.array([error(name, kind, seed, args.steps) for seed in range(args.seeds)])
            rms, bias = found.mean(0).tolist()
            rows.append({"reward": name, "kind": kind, "rms": rms, "bias": bias})
            print(f"{name:12} {kind:8} error {rms:.3f}  bias {bias:+.3f}", flush=True)
    if args.json is not None:
        options = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(args).items()}
        write_json(args.json, {"args": options, "rows": rows})


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
