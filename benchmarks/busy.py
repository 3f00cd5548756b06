"""Training beside other programs: alone, and next to loops that keep cores busy.

    python benchmarks/busy.py [--loops 1 2] [--seconds 4] [--repeats 3] [--json FILE]

With as many threads as cores and k busy loops a fair share is cores / (threads + k) of the rate
alone. "Former" are torch's own threads, which share every operation, in place of parts of a batch
that meet once; both alternate within one run, and the median of their repeats counts. A GAN's
batch cannot be cut, so it changes between all threads and one; DrSAE always has one.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from benchmarks.gan import Args as GANArgs
from benchmarks.gan import ours
from benchmarks.training import noise_latents
from sparse_gan.coding.drsae import DrSAE, DrSAEConfig, DrSAETrainConfig, train_drsae
from worldmodels import _training, executors
from worldmodels._threads import with_fastest_threads
from worldmodels.memory.mdn_rnn import MDNRNNConfig
from worldmodels.memory.train import MemoryTrainConfig, fit_reward_model, train_memory
from worldmodels.runs import machine, versions, write_json
from worldmodels.vision.train import VisionTrainConfig, train_vision
from worldmodels.vision.vae import VAEConfig

WARM_UP = 5
"""Steps that do not count."""


@dataclass(frozen=True)
class Args:
    """What to measure."""

    loops: tuple[int, ...] = (1, 2)
    """busy loops beside the training, besides none"""
    seconds: float = 4.0
    """of each measurement"""
    repeats: int = 3
    """measurements of each"""
    trainings: tuple[str, ...] = ("V 32", "V 100", "M 24x32", "M 96x48", "GAN 32", "DrSAE 10")
    """V, GAN or DrSAE and samples in a batch, M and streams x steps"""
    json: Path | None = None
    """where to write the figures"""
    part: str | None = None
    """for the trainings' own processes"""
    former: bool = False
    """for the trainings' own processes"""


class Enough(Exception):
    """The measurement's time is over."""


class Clock:
    """A log that counts steps and ends the training."""

    def __init__(self, seconds: float) -> None:
        """Begin."""
        self.seconds, self.steps = seconds, -WARM_UP

    def __call__(self, **line: float) -> None:
        """After a step."""
        self.steps += 1
        if self.steps == 0:
            self.wall, self.core = time.perf_counter(), time.process_time()
        if self.steps > 0 and time.perf_counter() - self.wall > self.seconds:
            raise Enough

    def rates(self, units: int) -> dict[str, float]:
        """Units a second of the clock, and of a core's time."""
        wall, core = time.perf_counter() - self.wall, time.process_time() - self.core
        return {"rate": units * self.steps / wall, "per_core_second": units * self.steps / core}


def train_v(batch: int, clock: Clock) -> int:
    """Train V on noise until the clock ends it; images in a step."""
    frames = np.random.default_rng(0).integers(0, 256, (2048, 64, 64, 3), np.uint8)

    def batches(start: int) -> Iterator[NDArray[np.uint8]]:
        rng = np.random.default_rng(start)
        while True:
            yield frames[rng.integers(len(frames), size=batch)]

    cfg = VisionTrainConfig(steps=10**6, batch_size=batch, log_every=1, checkpoint_every=10**6)
    try:
        train_vision(cfg, VAEConfig(), batches, frames[:32], seed=0, log=clock)
    except Enough:
        pass
    return batch


def train_m(streams: int, length: int, clock: Clock) -> int:
    """Train M on noise until the clock ends it; dream steps in a step."""
    latents = noise_latents()
    cfg = MemoryTrainConfig(
        steps=10**6,
        batch_size=streams,
        sequence_length=length,
        log_every=1,
        checkpoint_every=10**6,
        bfloat16=True,  # as the presets
    )
    reward = fit_reward_model(latents, "event")
    try:
        train_memory(cfg, MDNRNNConfig(), reward, latents, seed=0, log=clock)
    except Enough:
        pass
    return streams * length


def train_gan(batch: int, former: bool, clock: Clock) -> int:
    """Train a DCGAN on noise until the clock ends it; pictures in a step."""
    step = ours(GANArgs(width=32, batch_size=batch), fast=True)
    try:
        steps = itertools.count()
        for number in steps if former else with_fastest_threads(steps):
            step(number)
            clock()
    except Enough:
        pass
    return batch


def train_sae(batch: int, former: bool, clock: Clock) -> int:
    """Train DrSAE on noise until the clock ends it; samples in a step."""
    x = torch.nn.functional.normalize(torch.randn(batch, 144), dim=1)
    model = DrSAE(x.repeat(40, 1), DrSAEConfig(), 0)
    cfg = DrSAETrainConfig(unsupervised_epochs=10**6, batch_size=batch)
    train = getattr(train_drsae, "__wrapped__") if former else train_drsae  # noqa: B009
    try:
        train(model, x, None, cfg, 0, lambda **line: clock())
    except Enough:
        pass
    return 40 * batch  # the log is of epochs


class TorchsOwn:
    """In place of `CoreThreads`: one part, in which torch's threads share every operation."""

    def __init__(self, count: int) -> None:
        """Nothing to start."""

    def __enter__(self) -> TorchsOwn:
        """Nothing to start."""
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to end."""

    map = staticmethod(map)


def run_part(args: Args) -> dict[str, float]:
    """One training in this process."""
    torch.set_num_threads(executors.usable_cores())
    if args.former:
        vars(_training).update(PARTS=1, CoreThreads=TorchsOwn)
    assert args.part is not None
    kind, shape = args.part.split()
    clock = Clock(args.seconds)
    if kind in ("GAN", "DrSAE"):
        train = train_gan if kind == "GAN" else train_sae
        return clock.rates(train(int(shape), args.former, clock))
    if kind == "V":
        return clock.rates(train_v(int(shape), clock))
    streams, length = map(int, shape.split("x"))
    return clock.rates(train_m(streams, length, clock))


def spin() -> None:
    """Keep a core busy."""
    while True:
        pass


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """Keep cores busy meanwhile."""
    others = [multiprocessing.Process(target=spin, daemon=True) for _ in range(loops)]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.join()


def measure(args: Args, training: str, former: bool, loops: int) -> dict[str, float]:
    """One training in a process of its own."""
    command = [sys.executable, __file__, "--part", training, "--seconds", str(args.seconds)]
    command += ["--former"] if former else []
    with busy(loops):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{training} failed:\n{done.stderr[-2000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main(args: Args) -> None:
    """Measure and print."""
    if args.part is not None:
        print(json.dumps(run_part(args)))
        return
    print(machine())
    cores, results = executors.usable_cores(), dict[str, Any]()
    for training in args.trainings:
        alone: dict[bool, float] = {}
        for loops in (0, *args.loops):
            rates: dict[bool, list[float]] = {True: [], False: []}
            for _ in range(args.repeats):
                for former, found in rates.items():
                    found.append(measure(args, training, former, loops)["rate"])
            fair = cores / (cores + loops)
            for former, found in rates.items():
                rate = statistics.median(found)
                alone.setdefault(former, rate)
                name = f"{training}, {'former' if former else 'parts'}, {loops} loops"
                share = rate / (fair * alone[former])
                results[name] = {"rates": found, "of_the_fair_share": share}
                print(
                    f"{name:28} {rate:9,.0f}/s (of {min(found):,.0f} to {max(found):,.0f}), "
                    f"{share:.0%} of the fair share",
                    flush=True,
                )
    if args.json is not None:
        write_json(args.json, {**results, "machine": machine(), "versions": versions()})


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
