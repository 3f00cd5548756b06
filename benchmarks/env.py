"""Speed of `worldmodels/CarRacing-v3` beside Gymnasium's and EnvPool's CarRacing-v3, and parity.

    python benchmarks/env.py [--rounds 5] [--json FILE]
    python benchmarks/env.py --parity [--episodes 20] [--every 10] [--json FILE]

The contestants take turns in every round and the best round of each counts. Rates are steps per
second of CPU time, which other work on the machine disturbs less than the clock; the clock's
rates stand beside them. EnvPool is left out where it is not installed.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from gymnasium.envs.box2d.car_racing import CarRacing
from numpy.typing import NDArray

from worldmodels.envs.car_racing import FastCarRacing
from worldmodels.envs.car_racing.parity import EPISODE, compare, pursue
from worldmodels.envs.car_racing.stock import StockCarRacing
from worldmodels.runs import machine, versions, write_json

STEPS = {"stock": 60, "ours": 3000, "physics": 3000, "EnvPool": 1600}
"""Steps that each contestant takes in a round."""
ENVPOOL_ENVS = 8
ENVPOOL = importlib.util.find_spec("envpool") is not None


@dataclass(frozen=True)
class Args:
    """What to measure."""

    parity: bool = False
    """compare pixels, rewards and infos with Gymnasium's instead of speeds"""
    rounds: int = 5
    """rounds of the speed test"""
    episodes: int = 20
    """driven and random episodes of the parity test, each"""
    every: int = 10
    """frames between two whose pixels are compared; Gymnasium draws slowly"""
    json: Path | None = None
    """file for the results"""


def look_ahead(obs: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Drive by the pixels alone: steer to the middle of the road ahead, slowly."""
    ahead = obs[44:62].astype(int)
    road = (np.abs(ahead[:, :, 0] - ahead[:, :, 1]) < 20) & (ahead[:, :, 0] < 150)
    columns = np.nonzero(road)[1]
    error = (columns.mean() - 47.5) / 48 if len(columns) else 0.0
    speed = obs[85:95, 12:15, 0].sum() / 765  # the white bar of the dashboard
    return np.array([np.clip(2.5 * error, -1, 1), 0.2 if speed < 4 else 0.0, 0.0], np.float32)


class FastPhysics(FastCarRacing):
    """Our class without drawing, and with a clock on Box2D's part of a step."""

    def _draw_observation(self) -> NDArray[np.uint8]:
        return np.zeros((96, 96, 3), np.uint8)


@dataclass
class Rate:
    """What one contestant reached in one round."""

    steps: int
    cpu: float
    """seconds of CPU time of all its processes"""
    clock: float
    """seconds by the clock"""
    cores: int = 1

    @property
    def per_second(self) -> float:
        """Steps per second of CPU time, times the cores that work."""
        return self.steps / self.cpu * self.cores


def driven_actions(seed: int) -> list[NDArray[np.float32]]:
    """A policy's actions over a whole episode."""
    env = FastPhysics()
    env.reset(seed=seed)
    actions = []
    for _ in range(EPISODE):
        actions.append(pursue(env))
        if env.step(actions[-1])[2]:
            break
    return actions


def gymnasium_run(env: CarRacing, seed: int) -> Callable[[int], None]:
    """A function that steps an environment through episodes of a policy."""
    actions = driven_actions(seed)
    at = len(actions)

    def run(steps: int) -> None:
        nonlocal at
        for _ in range(steps):
            if at == len(actions):
                env.reset(seed=seed)
                at = 0
            env.step(actions[at])
            at += 1

    return run


def envpool_run(threads: int) -> Callable[[int], None]:
    """A function that steps EnvPool's environments, which restart by themselves."""
    import envpool

    envs = envpool.make_gymnasium(
        "CarRacing-v3", num_envs=ENVPOOL_ENVS, num_threads=threads, seed=0
    )
    envs.reset()
    actions = [np.tile(a, (ENVPOOL_ENVS, 1)) for a in driven_actions(0)]
    at = 0

    def run(steps: int) -> None:
        nonlocal at
        for _ in range(steps // ENVPOOL_ENVS):
            envs.step(actions[at % len(actions)])
            at += 1

    return run


def make_run(name: str, cores: list[int], seed: int) -> Callable[[int], None]:
    """Prepare a contestant on some of the machine's cores."""
    pin(cores)
    if name == "EnvPool":
        return envpool_run(len(cores))
    kinds: dict[str, Any] = {"stock": CarRacing, "ours": FastCarRacing, "physics": FastPhysics}
    return gymnasium_run(kinds[name](), seed)


def pin(cores: list[int]) -> None:
    """Keep this process, and threads it will start, on these cores, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def serve(pipe: Connection, seed: int) -> None:
    """Be one of the two processes: run what is asked for and tell how long it took."""
    runs: dict[tuple[str, int], Callable[[int], None]] = {}
    while (job := pipe.recv()) is not None:
        name, cores = job
        key = (name, len(cores))
        if key not in runs:
            runs[key] = make_run(name, cores, seed)
            runs[key](40)
        pin(cores)
        cpu, clock = time.process_time(), time.perf_counter()
        runs[key](STEPS[name])
        pipe.send((time.process_time() - cpu, time.perf_counter() - clock))


def race(rounds: int) -> dict[str, list[Rate]]:
    """Let all contestants take turns, on one core and on two."""
    available = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0, 1]
    cores = [available[0], available[min(1, len(available) - 1)]]
    context = multiprocessing.get_context("spawn")
    pipes = []
    for seed in range(2):
        here, there = context.Pipe()
        context.Process(target=serve, args=(there, seed), daemon=True).start()
        pipes.append(here)
    names = [name for name in STEPS if name != "EnvPool" or ENVPOOL]
    rates: dict[str, list[Rate]] = {}
    for k in range(rounds):
        for name in names:
            pipes[0].send((name, cores[:1]))
            rates.setdefault(f"{name}, one core", []).append(Rate(STEPS[name], *pipes[0].recv()))
            if name == "EnvPool":  # one process with two threads
                pipes[0].send((name, cores))
                cpu, clock = pipes[0].recv()
                rate = Rate(STEPS[name], cpu, clock, 2)
            else:
                for pipe, core in zip(pipes, cores, strict=True):
                    pipe.send((name, [core]))
                times = [pipe.recv() for pipe in pipes]
                clock = max(clock for _, clock in times)
                rate = Rate(2 * STEPS[name], sum(cpu for cpu, _ in times), clock, 2)
            rates.setdefault(f"{name}, two cores", []).append(rate)
        print(f"round {k + 1} of {rounds}", flush=True)
    for pipe in pipes:
        pipe.send(None)
    return rates


def box2d_share() -> tuple[float, float]:
    """Microseconds of a step's physics, and of these in Box2D itself."""
    env = FastPhysics()
    actions = driven_actions(0)
    env.reset(seed=0)
    inside = 0.0
    start = time.process_time()
    for action in actions:
        env._control(action)
        env.car.step(0.02)
        before = time.process_time()
        env.world.Step(0.02, 180, 60)
        inside += time.process_time() - before
    whole = time.process_time() - start
    return 1e6 * whole / len(actions), 1e6 * inside / len(actions)


def reset_time(env: CarRacing, count: int = 30) -> float:
    """Milliseconds of a reset, the first frame included."""
    env.reset(seed=0)
    start = time.process_time()
    for seed in range(count):
        env.reset(seed=seed)
    return 1e3 * (time.process_time() - start) / count


def speed(rounds: int) -> dict[str, Any]:
    """Measure speeds and print them."""
    best = {k: max(v, key=lambda r: r.per_second) for k, v in race(rounds).items()}
    print(f"\n{'steps per second':24} {'CPU':>10} {'clock':>10} {'ours is':>9}")
    for name, rate in best.items():
        ours = best["ours, " + name.split(", ")[1]]
        ratio = f"{ours.per_second / rate.per_second:8.1f}x" if name[:4] in ("stoc", "EnvP") else ""
        print(f"{name:24} {rate.per_second:10.0f} {rate.steps / rate.clock:10.0f} {ratio:>9}")
    if not ENVPOOL:
        print("EnvPool is not installed: pip install envpool")
    step = 1e6 / best["ours, one core"].per_second
    physics, box2d = box2d_share()
    resets = {"stock": reset_time(StockCarRacing(), 10), "ours": reset_time(FastCarRacing())}
    print(
        f"\na step of ours: {step:.0f} us, of which physics {physics:.0f} us ({physics / step:.0%})"
    )
    print(
        f"of the physics, {box2d:.0f} us are Box2D and its contact callbacks ({box2d / step:.0%})"
    )
    print(f"reset: ours {resets['ours']:.1f} ms, stock {resets['stock']:.1f} ms")
    table = {k: {**asdict(r), "per_second": r.per_second} for k, r in best.items()}
    parts = {"step_us": step, "physics_us": physics, "box2d_us": box2d, "reset_ms": resets}
    return {"rates": table, **parts}


def pixel_driver_score(env: CarRacing, seed: int) -> float:
    """Return of a policy that sees the pixels only."""
    obs, total = env.reset(seed=seed)[0], 0.0
    for _ in range(EPISODE):
        obs, reward, terminated, _, _ = env.step(look_ahead(obs))
        total += float(reward)
        if terminated:
            break
    return total


def parity(episodes: int, every: int) -> dict[str, Any]:
    """Compare whole episodes and print what differs."""
    results: dict[str, Any] = {}
    for kind in ("driven", "random"):
        runs = []
        for k in range(episodes):
            extra = {"domain_randomize": True} if k % 4 == 3 else {}
            runs.append(compare(k, kind == "driven", every, **extra))
            print(f"{kind} episode {k + 1} of {episodes}", end="\r", flush=True)
        errors = [e for run in runs for e in run.errors]
        results[kind] = {
            "identical_episodes": sum(run.identical for run in runs),
            "episodes": episodes,
            "steps": sum(run.frames for run in runs),
            "frames_compared": len(errors),
            "mean_error": float(np.mean(errors)),
            "worst_frame_error": max(errors),
            "largest_pixel_error": max(run.largest for run in runs),
            "mean_return": np.mean([run.returns for run in runs], axis=0).tolist(),
        }
        print(f"{kind}: " + ", ".join(f"{k} {v}" for k, v in results[kind].items()))
    scores = [
        (pixel_driver_score(CarRacing(), seed), pixel_driver_score(FastCarRacing(), seed))
        for seed in range(max(1, episodes // 4))
    ]
    results["pixel_driver"] = scores
    means = np.mean(scores, axis=0)
    print(f"a policy by pixels: stock {means[0]:.0f}, ours {means[1]:.0f}, per track", scores)
    return results


def main() -> None:
    """Measure what the arguments ask for."""
    args = tyro.cli(Args)
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    results = parity(args.episodes, args.every) if args.parity else speed(args.rounds)
    if args.json is not None:
        write_json(args.json, {**results, "machine": machine(), "versions": versions()})


if __name__ == "__main__":
    main()
