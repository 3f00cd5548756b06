"""What a GPU buys: V, encoding, M and the dream on the CPU and on the GPU.

    python benchmarks/device.py [--steps 200] [--json FILE]

Shapes and batches are those of the presets `quick` and `full`; frames are plain shades and latents
noise, made before the clock starts. Every part runs on both, one after the other, in this one
process.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from worldmodels import executors
from worldmodels.dream.starts import build_starts
from worldmodels.envs.spaces import ActionSpec
from worldmodels.memory.mdn_rnn import MDNRNN
from worldmodels.memory.rewards import RewardModel
from worldmodels.memory.train import train_memory
from worldmodels.presets import quick
from worldmodels.runs import Device, machine, require_device, versions, write_json
from worldmodels.stages.controller import DreamEvolution
from worldmodels.vision.latents import ENCODE_BATCH, Latents, encode_frames
from worldmodels.vision.train import train_vision
from worldmodels.vision.vae import ConvVAE

CFG = quick()
ENV = "worldmodels/CarRacing-v3"
ACTIONS = ActionSpec("box", 3, (-1.0, 0.0, 0.0), (1.0, 1.0, 1.0))
REWARD = RewardModel("count", base=-0.4, event_value=3.4)


@dataclass(frozen=True)
class Args:
    """What to measure."""

    steps: int = 200
    """gradient steps of V and of M that are timed"""
    json: Path | None = None
    """where to write the figures"""


def vision_steps(device: Device, steps: int) -> float:
    """Gradient steps a second of V."""
    cfg = replace(CFG.vision_training, steps=2 * steps, log_every=steps // 4)
    rng = np.random.default_rng(0)
    shades = rng.integers(0, 255, (8, cfg.batch_size, 1, 1, 3), np.uint8)  # which V can learn
    frames = list(np.tile(shades, (1, 1, 64, 64, 1)))
    rates: list[float] = []
    train_vision(
        cfg,
        CFG.vision,
        lambda start: itertools.islice(itertools.cycle(frames), start, None),
        frames[0],
        seed=0,
        log=lambda **line: rates.append(line["images_per_second"] / cfg.batch_size),
        device=device,
    )
    return max(rates)


def encoded_frames(device: Device) -> float:
    """Frames a second that V encodes."""
    model = ConvVAE(CFG.vision).to(device).eval()
    frames = np.zeros((16 * ENCODE_BATCH, 64, 64, 3), np.uint8)
    encode_frames(model, frames[:ENCODE_BATCH])
    return timed(lambda: encode_frames(model, frames), len(frames))


def latents() -> Latents:
    """Noise in the shape of what `quick` encodes in its first iteration."""
    rng = np.random.default_rng(0)
    episodes, length = 120, 250
    frames = episodes * (length + 1)
    return Latents(
        mu=rng.standard_normal((frames, CFG.vision.z_dim), np.float32),
        logvar=np.full((frames, CFG.vision.z_dim), -3, np.float32),
        action=rng.uniform(-1, 1, (frames, ACTIONS.size)).astype(np.float32),
        reward=np.where(rng.random(frames) < 0.2, 3.0, -0.4).astype(np.float32),
        terminated=np.zeros(episodes, np.bool_),
        offsets=np.arange(episodes + 1) * (length + 1),
        seeds=np.arange(episodes),
    )


def memory_steps(device: Device, steps: int) -> float:
    """Gradient steps a second of M."""
    cfg = replace(CFG.memory_training, steps=2 * steps, log_every=steps // 4)
    network = CFG.memory.network(CFG.vision.z_dim, ACTIONS.size, REWARD.kind)
    rates: list[float] = []
    train_memory(
        cfg,
        network,
        REWARD,
        latents(),
        seed=0,
        log=lambda **line: rates.append(
            line["steps_per_second"] / cfg.batch_size / cfg.sequence_length
        ),
        device=device,
    )
    return max(rates)


def dream_generations(device: Device) -> float:
    """Generations a second of C's evolution: population x dreams x horizon of the preset."""
    network = CFG.memory.network(CFG.vision.z_dim, ACTIONS.size, REWARD.kind)
    torch.manual_seed(0)
    memories = [MDNRNN(network).to(device).eval()]
    starts = build_starts(memories, latents(), 512, 40, np.random.default_rng(0))
    dream = replace(CFG.dream, termination="off", no_event_penalty=0.0)
    search = DreamEvolution(CFG.controller, dream, memories, REWARD, starts, ENV, ACTIONS)
    judge, x0 = search.returns(), search.first_parameters(0)
    population = np.tile(x0, (CFG.controller.evolve.strategy.population, 1))
    judge(population, 0)  # compiles
    return timed(lambda: judge(population, 1), 1)


def timed(work: Callable[[], Any], amount: int, repeats: int = 3) -> float:
    """The best of a few rates."""
    rates = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        rates.append(amount / (time.perf_counter() - began))
    return max(rates)


def main(args: Args) -> None:
    """Measure and print."""
    require_device("cuda")
    torch.set_num_threads(executors.usable_cores())
    print(machine("cuda"))
    parts: dict[str, Callable[[Device], float]] = {
        "V, gradient steps": lambda device: vision_steps(device, args.steps),
        "V, frames encoded": encoded_frames,
        "M, gradient steps": lambda device: memory_steps(device, args.steps),
        "dream, generations": dream_generations,
    }
    results: dict[str, dict[str, float]] = {}
    print(f"{'a second':20} {'cpu':>10} {'cuda':>10} {'ratio':>7}")
    for name, part in parts.items():
        cpu, cuda = part("cpu"), part("cuda")
        results[name] = {"cpu": cpu, "cuda": cuda}
        print(f"{name:20} {cpu:10,.2f} {cuda:10,.2f} {cuda / cpu:7.2f}", flush=True)
    if args.json is not None:
        record = {**results, "machine": machine("cuda"), "versions": versions()}
        write_json(args.json, record)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
