"""Speed of the dream engine, beside what the machine's matrix products allow.

    python benchmarks/dream.py [--population 64] [--rewards event two_hot] [--json FILE]

All rounds alternate between the engine and the bare products, and the best round of each counts,
so that other work on the machine disturbs the comparison little; rates per core-second, which
count only the time that the benchmark itself computed, are disturbed least.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from worldmodels import executors
from worldmodels.controller import linear
from worldmodels.dream.config import DreamConfig
from worldmodels.dream.engine import DreamEngine, DreamReturns
from worldmodels.dream.starts import DreamStarts
from worldmodels.executors import Executor
from worldmodels.memory.mdn_rnn import MDNRNN, MDNRNNConfig
from worldmodels.memory.rewards import RewardKind, RewardModel
from worldmodels.runs import machine, versions, write_json

CONTROLLER = linear.ControllerConfig()
CONTROLLERS = partial(linear.Controllers, cfg=CONTROLLER)
SQUARE = 2048
ROWS = DreamConfig().chunk_rows
LARGE = "large product"


@dataclass(frozen=True)
class Args:
    """What to measure."""

    population: int = 64
    """candidates"""
    episodes: int = 16
    """dreams per candidate"""
    horizon: int = 100
    """steps per dream; no dream ends sooner here"""
    rounds: int = 5
    """measurements, of which the best counts"""
    threads: int = 0
    """0 takes as many as torch does"""
    slow: bool = True
    """measure plain torch and float32 too"""
    rewards: tuple[Literal["event", "count", "raw", "two_hot"], ...] = ("event",)
    """forms of reward to dream with, each beside the others"""
    memories: tuple[int, ...] = (1, 2, 3)
    """numbers of memories, each dreamt on one thread and on all"""
    json: Path | None = None
    """where to write the figures"""


def make_engine(cfg: DreamConfig, reward: RewardKind = "event", members: int = 1) -> DreamEngine:
    """M at the paper's sizes, untrained: the arithmetic is the same."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    z = rng.standard_normal((64, 32), np.float32)
    h = np.zeros((members, 64, 256), np.float32)
    model = RewardModel(reward, base=-0.1, event_value=3.4, low=-2.0, high=6.0)
    memories = [MDNRNN(MDNRNNConfig(reward=reward)) for _ in range(members)]
    return DreamEngine(memories, model, DreamStarts(z, h, h.copy()), cfg)


def flops_per_step(cfg: MDNRNNConfig) -> int:
    """Of the two matrix products."""
    inputs = cfg.z_dim + cfg.action_size + cfg.hidden_size
    outputs = 3 * cfg.z_dim * cfg.mixtures + 2
    return 2 * cfg.hidden_size * (4 * inputs + outputs)


class Best(dict[str, tuple[float, float]]):
    """Best rates per second of wall clock, and per second of one core's time."""

    def time(self, name: str, work: Callable[[], object], amount: float) -> None:
        """Do some work and keep its rates where they are the best so far."""
        wall, core = time.perf_counter(), time.process_time()
        work()
        wall, core = time.perf_counter() - wall, time.process_time() - core
        old = self.get(name, (0.0, 0.0))
        self[name] = max(old[0], amount / wall), max(old[1], amount / core)


def products(dtype: torch.dtype, rows: int, repeats: int, threads: int) -> Callable[[], None]:
    """The engine's two products and nothing else, on every thread at once."""
    x, w = torch.randn(rows, 291).to(dtype), torch.randn(291, 1024).to(dtype)
    v = torch.randn(256, 482).to(dtype)
    gates, heads = (
        [torch.empty(rows, n, dtype=dtype) for _ in range(threads)] for n in (1024, 482)
    )

    def work(i: int) -> None:
        with torch.inference_mode():
            for _ in range(repeats):
                torch.mm(x, w, out=gates[i])
                torch.mm(x[:, :256], v, out=heads[i])

    def run() -> None:
        with ThreadPoolExecutor(threads, "products", torch.set_num_threads, (1,)) as pool:
            list(pool.map(work, range(threads)))

    return run


def measure(args: Args) -> Best:
    """Steps of engines and products, GFLOP of a large product."""
    threads = args.threads or torch.get_num_threads()
    names = {"kernels bfloat16": ("kernels", "bfloat16")}
    if args.slow:
        names["kernels float32"] = ("kernels", "float32")
        names["torch bfloat16"] = ("torch", "bfloat16")
        names["torch float32"] = ("torch", "float32")
    rng = np.random.default_rng(1)
    size = (args.population, linear.num_parameters(CONTROLLER))
    population: NDArray[np.float32] = 0.1 * rng.standard_normal(size, np.float32)
    steps = args.population * args.episodes * args.horizon
    engines = {
        (name if reward == "event" else f"{name} {reward}"): make_engine(
            DreamConfig(
                horizon=args.horizon,
                episodes=args.episodes,
                termination="off",
                backend=backend,  # type: ignore[arg-type]  # from the table above
                dtype=dtype,  # type: ignore[arg-type]
                threads=threads,
            ),
            reward,
        )
        for name, (backend, dtype) in names.items()
        for reward in args.rewards
    }
    bare = {
        f"products {str(dtype).removeprefix('torch.')}": products(dtype, ROWS, 50, threads)
        for dtype in (torch.bfloat16, torch.float32)
    }
    square = torch.randn(SQUARE, SQUARE, dtype=torch.bfloat16)
    best = Best()
    for engine in engines.values():
        engine.rollout(CONTROLLERS, population[:2], 0)  # compiles
    for seed in range(args.rounds):
        for name, engine in engines.items():
            rollout = lambda engine=engine, seed=seed: engine.rollout(CONTROLLERS, population, seed)  # noqa: E731
            best.time(name, rollout, steps)
        for name, run in bare.items():
            best.time(name, run, ROWS * 50 * threads)
        torch.set_num_threads(threads)
        best.time(LARGE, lambda: square @ square, 2 * SQUARE**3 / 1e9)
    return best


def scaling(args: Args) -> dict[str, float]:
    """Steps a second with each number of memories: by a thread, threads, and worker processes.

    Threads and processes are 2, 4, 8 and so on, up to the machine's.
    """
    most = args.threads or torch.get_num_threads()
    counts = [2**k for k in range(1, most.bit_length())]
    rng = np.random.default_rng(1)
    size = (args.population, linear.num_parameters(CONTROLLER))
    population = 0.1 * rng.standard_normal(size, np.float32)
    cfg = DreamConfig(horizon=args.horizon, episodes=args.episodes, termination="off")
    best, steps = Best(), args.population * args.episodes * args.horizon
    with ExitStack() as stack:
        ways: dict[str, tuple[int, Executor | None]] = {"1 thread": (1, None)}
        for count in counts:
            pool = stack.enter_context(executors.make("processes", count))
            ways |= {f"{count} threads": (count, None), f"{count} processes": (count, pool)}
        for seed in range(args.rounds):
            for members in args.memories:
                for name, (count, workers) in ways.items():
                    engine = make_engine(replace(cfg, threads=count), members=members)
                    dreamt = DreamReturns(engine, CONTROLLERS, workers)
                    dreamt(population[: 2 * count], seed)  # loads what a worker needs
                    best.time(
                        f"{members} memories, {name}", partial(dreamt, population, seed), steps
                    )
    return {name: rate for name, (rate, _) in best.items()}


def main(args: Args) -> None:
    """Measure and print."""
    best = measure(args)
    flops = flops_per_step(MDNRNNConfig())
    large, _ = best.pop(LARGE)
    limit, core_limit = best["products bfloat16"]
    print(f"{machine()}")
    print(f"{args.population} x {args.episodes} dreams, {flops / 1e6:.3f} MFLOP a step")
    print(
        f"bfloat16 {SQUARE}^3 product: {large:.0f} GFLOP/s, would allow "
        f"{large * 1e9 / flops:,.0f} steps/s"
    )
    print(f"{'':24} {'steps/s':>9} {'of limit':>9} {'per core-second':>16} {'of limit':>9}")
    for name, (rate, core) in best.items():
        shares = f"{rate:9,.0f} {rate / limit:9.0%} {core:16,.0f} {core / core_limit:9.0%}"
        print(f"{name:24} {shares}")
    print("limit: the two bfloat16 products of a step and nothing else")
    scaled = scaling(args)
    print(f"{'':24} {'steps/s':>9} {'of one thread':>14}")
    for name, rate in scaled.items():
        alone = scaled[f"{name.split(', ')[0]}, 1 thread"]
        print(f"{name:24} {rate:9,.0f} {rate / alone:14.2f}")
    if args.json is not None:
        options = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(args).items()}
        found = {"args": options, "rates": best, "scaling": scaled, "large_gflops": large}
        write_json(args.json, {**found, "machine": machine(), "versions": versions()})


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
