"""What a GPU buys: V, encoding, M and the dream on the CPU and on the GPU, in a few minutes.

    python benchmarks/device.py [--steps 200] [--json FILE]

Shapes and batches are those of the presets `quick` and `full`; frames are plain shades and latents
noise, made before the clock starts. Every part runs on the CPU, on the GPU as Python asks for it,
and on the GPU by recorded graphs, one after the other, in this one process. Then it says whether
graphs computed the same as Python, and which kernels a GPU spent its time on. `--device cpu` tries
the script where there is no GPU.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from worldmodels import _graphs, executors
from worldmodels.dream.starts import build_starts
from worldmodels.envs.spaces import ActionSpec
from worldmodels.memory.interface import Memory
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
    device: Device = "cuda"
    """what is compared with the CPU"""
    json: Path | None = None
    """where to write the figures"""


AIMS = {"V": 5 * 185 * 32, "M": 1e6, "dream": 20e6}
"""Images, steps of sequences and dream steps a second; V's is five times the first figure had."""
DREAMS = {
    "dream, one memory": (1, 64),
    "dream, three memories": (3, 64),
    "dream, population 1,024": (1, 1024),
}
"""Memories and population."""


@contextmanager
def asked() -> Iterator[None]:
    """Let Python ask for every kernel, as without graphs."""
    before = _graphs.EAGER_CALLS
    setattr(_graphs, "EAGER_CALLS", math.inf)  # noqa: B010  # a constant elsewhere
    try:
        yield
    finally:
        setattr(_graphs, "EAGER_CALLS", before)  # noqa: B010


def vision(device: Device, steps: int) -> tuple[ConvVAE, float]:
    """Train V; the network, and images a second."""
    cfg = replace(CFG.vision_training, steps=2 * steps, log_every=steps // 4)
    rng = np.random.default_rng(0)
    shades = rng.integers(0, 255, (8, cfg.batch_size, 1, 1, 3), np.uint8)  # which V can learn
    frames = list(np.tile(shades, (1, 1, 64, 64, 1)))
    rates: list[float] = []
    model = train_vision(
        cfg,
        CFG.vision,
        lambda start: itertools.islice(itertools.cycle(frames), start, None),
        frames[0],
        seed=0,
        log=lambda **line: rates.append(line["images_per_second"]),
        device=device,
    )
    return model, max(rates)


def encoded(device: Device) -> float:
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


def memory(device: Device, steps: int) -> tuple[Memory, float]:
    """Train M; the network, and steps of its sequences a second."""
    cfg = replace(CFG.memory_training, steps=2 * steps, log_every=steps // 4)
    network = CFG.memory.network(CFG.vision.z_dim, ACTIONS.size, REWARD.kind)
    rates: list[float] = []
    model = train_memory(
        cfg,
        network,
        REWARD,
        latents(),
        seed=0,
        log=lambda **line: rates.append(line["steps_per_second"]),
        device=device,
    )
    return model, max(rates)


def dream(device: Device, members: int, count: int) -> tuple[NDArray[np.float64], float]:
    """Returns of a generation, and dream steps a second: population x dreams x horizon."""
    network = CFG.memory.network(CFG.vision.z_dim, ACTIONS.size, REWARD.kind)
    torch.manual_seed(0)
    memories = [MDNRNN(network).to(device).eval() for _ in range(members)]
    starts = build_starts(memories, latents(), 512, 40, np.random.default_rng(0))
    cfg = replace(CFG.dream, termination="off", no_event_penalty=0.0)
    search = DreamEvolution(CFG.controller, cfg, memories, REWARD, starts, ENV, ACTIONS)
    judge, x0 = search.returns(), search.first_parameters(0)
    population = np.tile(x0, (count, 1)) + 0.1 * np.random.default_rng(0).standard_normal(
        (count, len(x0))
    ).astype(np.float32)
    found = judge(population, 0)  # compiles, or records
    return found, timed(lambda: judge(population, 1), count * cfg.episodes * cfg.horizon)


def timed(work: Callable[[], Any], amount: int, repeats: int = 3) -> float:
    """The best of a few rates."""
    rates = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        rates.append(amount / (time.perf_counter() - began))
    return max(rates)


def distance(one: Any, other: Any) -> float:
    """Largest difference between two networks' weights or two arrays, relative to the largest."""
    if isinstance(one, torch.nn.Module):
        pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    else:
        pairs = zip([torch.from_numpy(one)], [torch.from_numpy(other)], strict=True)
    return max(float((a - b).abs().max() / a.abs().max().clamp_min(1e-9)) for a, b in pairs)


def profiled(work: Callable[[], Any]) -> list[tuple[str, float, int]]:
    """The kernels that took longest: names, milliseconds and counts."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as found:
        work()
    events = found.key_averages()
    on_device = [e for e in events if e.self_device_time_total] or list(events)

    def spent(event: Any) -> float:
        return float(event.self_device_time_total or event.self_cpu_time_total)

    longest = sorted(on_device, key=spent, reverse=True)[:8]
    return [(event.key, spent(event) / 1e3, event.count) for event in longest]


def main(args: Args) -> None:
    """Measure and print."""
    require_device(args.device)
    torch.set_num_threads(executors.usable_cores())
    print(machine(args.device))
    trainings: dict[str, Callable[[Device], tuple[Any, float]]] = {
        "V": lambda device: vision(device, args.steps),
        "M": lambda device: memory(device, args.steps),
    }
    for name, (members, count) in DREAMS.items():
        trainings[name] = partial(dream, members=members, count=count)
    rows: dict[str, dict[str, float]] = {}
    columns = ("cpu", "asked", "graph", "aim", "differs")
    print(f"{'a second':24}" + "".join(f"{name:>13}" for name in columns))
    for name, train in trainings.items():
        rows[name] = row = {"cpu": train("cpu")[1]}
        with asked():
            one, row["asked"] = train(args.device)
        other, row["graph"] = train(args.device)
        row |= {"aim": AIMS[name.split(",")[0]], "differs": distance(one, other)}
        print(f"{name:24}" + "".join(f"{row[column]:13,.6g}" for column in columns), flush=True)
    rows["encoding"] = {"cpu": encoded("cpu"), "graph": encoded(args.device)}
    print("frames encoded          " + "".join(f"{v:13,.0f}" for v in rows["encoding"].values()))
    kernels: dict[str, Any] = {}
    for name in ("V", "M", "dream, one memory"):
        kernels[name] = profiled(partial(trainings[name], args.device))
        print(f"\n{name}: the longest kernels, milliseconds, calls")
        for kernel, spent, calls in kernels[name]:
            print(f"  {spent:10,.1f} {calls:8,}  {kernel[:90]}")
    if args.json is not None:
        about = {"machine": machine(args.device), "versions": versions()}
        write_json(args.json, {"rates": rows, "kernels": kernels, **about})


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
