"""Speed and memory of learning: collection, V, encoding, M; and V and M within a memory limit.

    python benchmarks/training.py [--frames 128000] [--limit-gib 1.5] [--json FILE]

Each part runs in a process of its own, so that its peak memory is its own. The last part takes the
hold-out of a store whose raw frames are ten times as large as the limit, trains V on it, and M on
latents of as many frames, with the limit enforced on the process's data segment (RLIMIT_DATA): it
would die if it held the frames in memory.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from worldmodels import executors
from worldmodels.envs.spaces import ActionSpec
from worldmodels.experience.collect import CollectConfig, collect
from worldmodels.experience.exploration import AR1Config
from worldmodels.experience.store import EpisodeStore, shard_files
from worldmodels.memory.mdn_rnn import MDNRNNConfig
from worldmodels.memory.train import MemoryTrainConfig, fit_reward_model, train_memory
from worldmodels.runs import machine, versions, write_json
from worldmodels.stages.learning import sample_frames
from worldmodels.vision.latents import Latents, encode_frames
from worldmodels.vision.train import VisionTrainConfig, train_vision
from worldmodels.vision.vae import VAEConfig

TIMES = 10
"""Size of the large store, in memory limits."""
ENV = "worldmodels/CarRacing-v3"
ACTIONS = ActionSpec("box", 3, (-1.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Args:
    """What to measure."""

    frames: int = 128_000
    """frames collected for the measurements"""
    steps: int = 30
    """training steps measured"""
    limit_gib: float = 1.5
    """memory limit of the last part"""
    json: Path | None = None
    """where to write the figures"""
    part: str | None = None
    """for the parts' own processes"""
    folder: Path | None = None
    """for the parts' own processes"""


def measure_collection(args: Args, folder: Path) -> dict[str, float]:
    """Frames a second into the store, with one process a core, started before."""
    with executors.make("processes", executors.usable_cores()) as pool:
        cfg = CollectConfig(group=8)
        count = 8 * max(2, args.frames // 8_000)
        collect(
            CollectConfig(max_steps=5), ENV, AR1Config(), range(9000, 9016), folder / "warm",
            executor=pool,
        )  # fmt: skip
        begin = time.perf_counter()
        frames = collect(cfg, ENV, AR1Config(), range(count), folder / "store", executor=pool)
    return {"frames_per_second": frames / (time.perf_counter() - begin), "frames": frames}


def measure_vision(args: Args, folder: Path) -> dict[str, float]:
    """Images a second of V's training loop, reading included, and of encoding."""
    store = EpisodeStore([folder / "store"])
    rates: list[float] = []
    cfg = VisionTrainConfig(steps=args.steps, log_every=10)
    model = train_vision(
        cfg,
        VAEConfig(),
        lambda start: store.frame_batches(cfg.batch_size, 0, start=start),
        store.read(0).obs[:64],
        seed=0,
        log=lambda **line: rates.append(line["images_per_second"]),
    )
    frames = np.concatenate([store.read(index).obs for index in range(4)])
    encode_frames(model, frames[:256])
    begin = time.perf_counter()
    encode_frames(model, frames)
    encoded = len(frames) / (time.perf_counter() - begin)
    return {"images_per_second": max(rates), "encoded_per_second": encoded}


def noise_latents(frames: int = 72_000) -> Latents:
    """Noise of the shapes of CarRacing's latents, of about so many frames."""
    rng = np.random.default_rng(0)
    length = 600
    episodes = frames // length
    frames = episodes * (length + 1)
    return Latents(
        mu=rng.standard_normal((frames, 32), np.float32),
        logvar=np.full((frames, 32), -3, np.float32),
        action=rng.uniform(-1, 1, (frames, 3)).astype(np.float32),
        reward=np.where(rng.random(frames, np.float32) < 0.05, np.float32(3.4), np.float32(-0.1)),
        terminated=np.zeros(episodes, np.bool_),
        offsets=np.arange(episodes + 1) * (length + 1),
        seeds=np.arange(episodes),
    )


def measure_memory(args: Args, folder: Path) -> dict[str, float]:
    """Steps a second of M's training loop, on noise of the real shapes."""
    latents = noise_latents()
    rates: list[float] = []
    cfg = MemoryTrainConfig(steps=args.steps, log_every=10)
    train_memory(
        cfg,
        MDNRNNConfig(),
        fit_reward_model(latents, "event"),
        latents,
        seed=0,
        log=lambda **line: rates.append(line["steps_per_second"]),
    )
    return {"steps_per_second": max(rates)}


def measure_limited(args: Args, folder: Path) -> dict[str, float]:
    """Train V and M on a store ten times as large as the memory that the process may use."""
    store = EpisodeStore(sorted((folder / "large").iterdir()))
    limit = int(args.limit_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    raw = store.num_frames * 64 * 64 * 3
    assert raw > TIMES * limit, "the store is not large enough"
    cfg = VisionTrainConfig(steps=args.steps)
    validation, neighbours = sample_frames(store, 512)
    train_vision(
        cfg,
        VAEConfig(),
        lambda start: store.frame_batches(cfg.batch_size, 0, start=start),
        validation,
        neighbours,
        seed=0,
    )
    latents = noise_latents(store.num_frames)
    reward = fit_reward_model(latents, "event")
    train_memory(MemoryTrainConfig(steps=args.steps), MDNRNNConfig(), reward, latents, seed=0)
    return {
        "frames": store.num_frames,
        "raw_store_mib": raw / 2**20,
        "limit_mib": limit / 2**20,
    }


def enlarge(folder: Path, limit_gib: float) -> None:
    """Link the store's shards into as many folders as make it ten times the limit."""
    raw = EpisodeStore([folder / "store"]).num_frames * 64 * 64 * 3
    for copy in range(int(TIMES * limit_gib * 2**30 / raw) + 1):
        target = folder / "large" / f"{copy}"
        target.mkdir(parents=True)
        for shard in shard_files(folder / "store"):
            (target / shard.name).hardlink_to(shard)


PARTS = {
    "collection": measure_collection,
    "vision": measure_vision,
    "memory": measure_memory,
    "limited": measure_limited,
}


def run_part(name: str, args: Args, folder: Path) -> dict[str, Any]:
    """One part in a process of its own; its figures and its peak memory."""
    command = [sys.executable, __file__, "--part", name, "--folder", str(folder)]
    command += ["--frames", str(args.frames), "--steps", str(args.steps)]
    command += ["--limit-gib", str(args.limit_gib)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main(args: Args) -> None:
    """Measure and print."""
    if args.part is not None and args.folder is not None:
        torch.set_num_threads(executors.usable_cores())
        figures = PARTS[args.part](args, args.folder)
        figures["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(figures))
        return
    print(machine())
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in PARTS:
            if part == "limited":
                enlarge(folder, args.limit_gib)
            results[part] = run_part(part, args, folder)
            shown = ", ".join(f"{key} {value:,.0f}" for key, value in results[part].items())
            print(f"{part:10} {shown}", flush=True)
    if args.json is not None:
        write_json(args.json, {**results, "machine": machine(), "versions": versions()})


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
