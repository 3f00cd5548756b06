"""Speed of collecting episodes into the store, and of reading them back.

    python benchmarks/collection.py [--workers 1 2] [--episodes 32] [--json FILE]
    python benchmarks/collection.py --quick [--workers 1 2] [--json FILE]

Collection counts everything from the first reset to the manifest on the disk: physics, drawing,
resizing, exploration, compression, checksums. The processes are started before, as the pipeline
does once for all its stages; what that costs is printed beside it. `--quick` measures the stage as
the preset has it instead: 150 of the first iteration's 600 episodes at random, and a later
iteration's 64 by 4 snapshots of C with 4 noises each.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing import active_children as children
from pathlib import Path
from typing import Any

import tyro

from worldmodels import executors
from worldmodels.agent import Agent, find
from worldmodels.experience.collect import CollectConfig, collect
from worldmodels.experience.exploration import AR1Config
from worldmodels.experience.store import EpisodeStore
from worldmodels.presets import quick
from worldmodels.runs import machine, versions, write_json
from worldmodels.stages import StageContext, by_agents, exploration
from worldmodels.stages import collect as collect_stage
from worldmodels.stages.collection import snapshot_folders


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
    quick: bool = False
    """measure the collection stage of the preset quick instead"""
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


def measure_stage(workers: int, out: Path) -> dict[str, dict[str, float]]:
    """Collect as `quick` does; environment steps a second, and the fraction of time spent at it."""
    cfg, agent = quick(), Agent.from_pretrained(find("car-racing"))
    found = dict[str, dict[str, float]]()
    snapshots = dict.fromkeys(range(20, 81, 20), agent.parameters)
    folders = snapshot_folders(find("car-racing"), snapshots, out / "snapshots")
    plans = {
        "random": replace(exploration(cfg.experience), episodes=150),
        "agents": by_agents(cfg.experience, folders, 1),
    }
    for name, plan in plans.items():
        with executors.make("processes", workers) as pool:
            for count, part in ((workers * len(plan.behaviours), "warm"), (plan.episodes, "full")):
                before, begin = _cpu(), time.perf_counter()
                what = replace(plan, episodes=count, steps=5 if part == "warm" else plan.steps)
                where = out / part / name
                ctx = StageContext(executor=pool)
                size = {"group": cfg.experience.group, "action_repeat": cfg.action_repeat}
                done: Any = collect_stage(
                    what, cfg.env_id, where, ctx, **size, frame_spec=cfg.frame_spec
                )
                seconds = time.perf_counter() - begin
            busy = (_cpu() - before) / seconds / workers
        found[name] = {"frames_per_second": done["frames"] / seconds, "seconds": seconds}
        found[name] |= {"frames": done["frames"], "busy": busy}
    return found


def _cpu() -> float:
    """Seconds of CPU that the workers have used."""
    fields = [Path(f"/proc/{c.pid}/stat").read_text().rsplit(")", 1)[1].split() for c in children()]
    return sum(int(field[11]) + int(field[12]) for field in fields) / os.sysconf("SC_CLK_TCK")


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
    if args.quick:
        with tempfile.TemporaryDirectory() as folder:
            for workers in args.workers:
                found = measure_stage(workers, Path(folder) / str(workers))
                figures["collection"][workers] = found
                for name, values in found.items():
                    print(f"{workers} processes, {name}", values)
        _write(args, figures)
        return
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
    _write(args, figures)


def _write(args: Args, figures: dict[str, Any]) -> None:
    if args.json is not None:
        write_json(args.json, {**figures, "machine": machine(), "versions": versions()})


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
