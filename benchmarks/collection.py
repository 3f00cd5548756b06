"""Speed of collecting episodes into the store, and of reading them back.

    python benchmarks/collection.py [--workers 1 2] [--episodes 32] [--json FILE]

Collection counts everything from the first reset to the manifest on the disk: physics, drawing,
resizing, exploration, compression, checksums. The processes are started before, as the pipeline
does once for all its stages; what that costs is printed beside it.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import tyro

from worldmodels import executors
from worldmodels.experience.collect import CollectConfig, collect
from worldmodels.experience.exploration import AR1Config
from worldmodels.experience.store import EpisodeStore
from worldmodels.runs import machine, versions, write_json


@dataclass(frozen=True)
class Args:
    """What to measure."""

    env: str = "worldmodels/CarRacing-v3"
    """environment id"""
    workers: tuple[int, ...] = (1, 2)
    """numbers of processes to compare"""
    episodes: int = 32
    """episodes collected with each"""
    max_steps: int = 1000
    """longest episode"""
    batch: int = 128
    """frames in a shuffled batch"""
    rounds: int = 3
    """measurements of reading, of which the best counts"""
    json: Path | None = None
    """where to write the figures"""


def measure_collection(args: Args, workers: int, out: Path) -> dict[str, float]:
    """Collect with so many processes; environment steps a second, and what the files weigh."""
    cfg = CollectConfig(max_steps=args.max_steps)
    begin = time.perf_counter()
    # Processes even for one worker, so that all figures have the same threads.
    with executors.make("processes", workers) as pool:
        warm = range(args.episodes, args.episodes + cfg.group * workers)
        short = CollectConfig(max_steps=5)
        collect(short, args.env, AR1Config(), warm, out / "warm", executor=pool)
        started = time.perf_counter() - begin
        seeds, begin = range(args.episodes), time.perf_counter()
        frames = collect(cfg, args.env, AR1Config(), seeds, out / "full", executor=pool)
    seconds = time.perf_counter() - begin
    size = sum(path.stat().st_size for path in (out / "full").iterdir())
    return {
        "frames_per_second": frames / seconds,
        "frames": frames,
        "start_seconds": started,
        "bytes_per_frame": size / (frames + args.episodes),
    }


def rate(batches: Iterator[Any], units: int) -> float:
    """Units a second over all batches of `units` each."""
    begin = time.perf_counter()
    number = sum(1 for _ in batches)
    return number * units / (time.perf_counter() - begin)


def measure_reading(args: Args, store: EpisodeStore) -> dict[str, float]:
    """Best rates of reading, in frames or transitions a second; epochs are read to their end."""
    best: dict[str, float] = {}
    for seed in range(args.rounds):
        batches = store.frame_batches(args.batch, seed)
        both = 2 * (store.num_frames // args.batch)  # batches of two epochs
        rates = {
            "shuffled_frames_prefetched": rate(islice(batches, both), args.batch),
        }
        best = {name: max(value, best.get(name, 0.0)) for name, value in rates.items()}
    return best


def main(args: Args) -> None:
    """Measure and print."""
    print(machine())
    figures: dict[str, Any] = {"collection": {}}
    with tempfile.TemporaryDirectory() as folder:
        for workers in args.workers:
            figures["collection"][workers] = measure_collection(
                args, workers, Path(folder) / str(workers)
            )
            print(f"{workers} processes", figures["collection"][workers])
        store = EpisodeStore([Path(folder) / str(args.workers[-1]) / "full"])
        figures["reading"] = measure_reading(args, store)
    figures["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for name, value in figures["reading"].items():
        print(f"{name:28} {value:12,.0f}/s")
    print(f"peak memory of this process  {figures['peak_memory_mib']:12,.0f} MiB")
    if args.json is not None:
        write_json(args.json, {**figures, "machine": machine(), "versions": versions()})


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
