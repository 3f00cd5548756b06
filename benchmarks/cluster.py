"""What work on Ray costs, and what a second machine brings.

    python benchmarks/cluster.py [--episodes 96] [--steps 300] [--json FILE]

Machines are processes of this one with one core each, on the loopback interface: the network is
free, and everything else is real. Printed are the overhead of an item in local processes and on
Ray, the bytes that a stage moves, and the speed of collection and of dreams on one and two
machines. The median of the rounds counts.
"""

from __future__ import annotations

import os
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from benchmarks.dream import make_engine
from tests.executor_work import square
from tests.loopback import Cluster, cluster
from worldmodels import executors
from worldmodels.agent import Agent, find
from worldmodels.controller import linear
from worldmodels.dream.config import DreamConfig
from worldmodels.dream.engine import DreamReturns
from worldmodels.executors import Executor
from worldmodels.experience.collect import CollectConfig, collect
from worldmodels.experience.exploration import AR1Config
from worldmodels.runs import machine, versions, write_json

ENV = "worldmodels/CarRacing-v3"
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Args:
    """What to measure."""

    episodes: int = 96
    """episodes collected in a round, in groups of two"""
    steps: int = 300
    """their length"""
    candidates: int = 64
    """population in the dream"""
    rounds: int = 5
    """measurements of each"""
    json: Path | None = None
    """where to write the figures"""


def seconds(work: Callable[[], object], rounds: int) -> float:
    """Median time of some calls, after one that does not count."""
    work()
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def used(made: Cluster) -> NDArray[np.float64]:
    """Seconds of CPU that this process has used, and those of the machines with their workers."""
    parents, taken = dict[int, int](), dict[int, float]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            fields = path.read_text().rpartition(")")[2].split()
            parents[int(path.parent.name)] = int(fields[1])
            taken[int(path.parent.name)] = (int(fields[11]) + int(fields[12])) / TICKS
    ours = {node.pid for node in made.nodes}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return np.array([time.process_time(), sum(taken.get(pid, 0.0) for pid in ours)])


def overhead(pool: Executor, rounds: int) -> float:
    """Milliseconds of an item that does nothing, one at a time."""
    return seconds(lambda: [list(pool.map(square, [1])) for _ in range(100)], rounds) * 10


def dreams(args: Args, pool: Executor | None) -> Callable[[], object]:
    """A generation: candidates x 16 dreams of 300 steps."""
    cfg = DreamConfig(horizon=300, episodes=16, chunk_rows=128, termination="off", dtype="float32")
    engine = make_engine(cfg)
    sizes = linear.ControllerConfig()
    make_act = partial(linear.Controllers, cfg=sizes, z_dim=32, h_dim=256)
    count = linear.num_parameters(sizes, 32, 256)
    population = np.zeros((args.candidates, count), np.float32)
    return partial(DreamReturns(engine, make_act, pool), population, 0)


def measure(args: Args, pool: Executor, made: Cluster) -> dict[str, float]:
    """Speeds on the machines there are, and the cores that home and the machines used meanwhile."""

    def record() -> None:
        cfg = CollectConfig(group=2, max_steps=args.steps)
        with tempfile.TemporaryDirectory() as out:
            collect(cfg, ENV, AR1Config(), range(args.episodes), Path(out) / "a", executor=pool)

    sizes = {"frames": args.episodes * args.steps, "dream_steps": args.candidates * 16 * 300}
    works = {"frames": record, "dream_steps": dreams(args, pool)}
    found = {"item_ms": overhead(pool, args.rounds)}
    for name, work in works.items():
        began, before = time.perf_counter(), used(made)
        found[f"{name}_per_second"] = sizes[name] / seconds(work, args.rounds)
        home, machines = (used(made) - before) / (time.perf_counter() - began)
        found |= {f"{name}_home_cores": home, f"{name}_machine_cores": machines}
    return found


def moved(args: Args) -> dict[str, float]:
    """Bytes on the wire."""
    with tempfile.TemporaryDirectory() as home:
        cfg, frames = CollectConfig(group=2, max_steps=args.steps), 2 * args.steps
        collect(cfg, ENV, AR1Config(), [0, 1], Path(home) / "a")
        raw = next((Path(home) / "a").glob("*.shard")).read_bytes()
    returns: Any = dreams(args, None)
    return {
        "shard_per_frame": round(len(raw) / frames),
        "agent": len(pickle.dumps(Agent.from_pretrained(find("car-racing")))),
        "dream": len(pickle.dumps(returns.func._work)),
        "candidate": returns.args[0][0].nbytes,
    }


def with_machines(made: Cluster, count: int, args: Args) -> dict[str, float]:
    """Join a machine, and measure."""
    made.add(["taskset", "-c", str(count - 1)])
    with executors.make("ray", None, made.address) as pool:
        while len({pid for _, pid in pool.map(_pid, range(4 * count))}) < count:
            time.sleep(1)
        return measure(args, pool, made)


def _pid(x: int) -> int:
    time.sleep(0.1)
    return os.getpid()


def model(found: Mapping[str, Any], workers: Any) -> Any:
    """Frames a second that so many workers collect.

    A frame costs 1 / rate on a worker, beside others, and at home, one after the other, the CPU
    time that home needed for two machines.
    """
    one, two = found["machines"]
    home = two["frames_home_cores"] / two["frames_per_second"]
    return 1 / np.maximum(1 / (workers * one["frames_per_second"]), home)


def main(args: Args) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {"args": asdict(args), "bytes": moved(args)}
    with executors.make("processes", 1) as pool:
        found["local_item_ms"] = overhead(pool, args.rounds)
    with cluster() as made:
        found["machines"] = [with_machines(made, count, args) for count in (1, 2)]
    one, two = found["machines"]
    found["speed_up"] = {name: two[name] / one[name] for name in one if "per_second" in name}
    found["model"] = {count: model(found, count) for count in (1, 2, 10, 100, 1000)}
    for name, value in found.items():
        print(name, value)
    if args.json is not None:
        write_json(args.json, {**found, "machine": machine(), "versions": versions()})


if __name__ == "__main__":
    main(tyro.cli(Args))
