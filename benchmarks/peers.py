"""Speed of training V and M beside ctallec/world-models, in turn within one run.

    git clone https://github.com/ctallec/world-models /tmp/world-models
    python benchmarks/peers.py --ctallec /tmp/world-models [--threads 1 2] [--json FILE]

Both train on noise of CarRacing's shapes. Theirs has one mixture for all of z (325 outputs), where
the paper's and ours have one for each number (480); V is the same network. Ours reads batches from
its store's layout, samples z, clips, and validates, as in a run; theirs does its training step
alone, on tensors that are there. The machine's limit is a large bfloat16 product in the same turns:
the share is that of ours, where only the arithmetic of the networks counts.
"""

from __future__ import annotations

import importlib
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.busy import Clock, Enough, train_m, train_v
from benchmarks.dream import SQUARE, flops_per_step
from worldmodels import executors
from worldmodels.memory.mdn_rnn import MDNRNNConfig
from worldmodels.runs import machine, versions, write_json
from worldmodels.vision.vae import ConvVAE, VAEConfig

PRODUCT = "product"
"""The large product's name among the trainings."""


@dataclass(frozen=True)
class Args:
    """What to measure."""

    ctallec: Path
    """a clone of ctallec/world-models"""
    trainings: tuple[str, ...] = ("V 32", "V 100", "M 16x32", "M 24x32", "M 96x48")
    """V and frames in a batch, M and streams x steps"""
    threads: tuple[int, ...] = (1, executors.usable_cores())
    """numbers of threads"""
    seconds: float = 4.0
    """of each measurement"""
    repeats: int = 3
    """measurements of each, of which the median counts"""
    json: Path | None = None
    """where to write the figures"""
    part: str | None = None
    """for the trainings' own processes"""
    theirs: bool = False
    """for the trainings' own processes"""


def their_v(folder: Path, batch: int, clock: Clock) -> int:
    """Train their V until the clock ends it: the step of their trainvae.py."""
    sys.path.insert(0, str(folder))
    model = importlib.import_module("models.vae").VAE(3, 32)
    optimiser = torch.optim.Adam(model.parameters())
    frames = torch.rand(512, 3, 64, 64)
    try:
        while True:
            data = frames[torch.randint(len(frames), (batch,))]
            optimiser.zero_grad()
            shown, mu, logsigma = model(data)
            error = functional.mse_loss(shown, data, reduction="sum")
            kl = -0.5 * torch.sum(1 + 2 * logsigma - mu.pow(2) - (2 * logsigma).exp())
            loss = error + kl
            loss.backward()
            loss.item()
            optimiser.step()
            clock()
    except Enough:
        return batch


def their_m(folder: Path, streams: int, length: int, clock: Clock) -> int:
    """Train their M until the clock ends it: the step of their trainmdrnn.py, latents given."""
    sys.path.insert(0, str(folder))
    module = importlib.import_module("models.mdrnn")
    model = module.MDRNN(32, 3, 256, 5)
    optimiser = torch.optim.RMSprop(model.parameters(), lr=1e-3, alpha=0.9)
    mu, logsigma = torch.randn(2048, length + 1, 32), torch.full((2048, length + 1, 32), -1.5)
    action, reward = torch.rand(2048, length, 3), torch.randn(2048, length)
    ended = torch.zeros(streams, length)
    try:
        while True:
            rows = torch.randint(len(mu), (streams,))
            z = mu[rows] + logsigma[rows].exp() * torch.randn(streams, length + 1, 32)
            seen, wanted = z[:, :-1].transpose(1, 0), z[:, 1:].transpose(1, 0)
            means, sigmas, log_pi, paid, over = model(action[rows].transpose(1, 0), seen)
            loss = module.gmm_loss(wanted, means, sigmas, log_pi)
            loss = loss + functional.mse_loss(paid, reward[rows].transpose(1, 0))
            ends = functional.binary_cross_entropy_with_logits(over, ended.transpose(1, 0))
            loss = (loss + ends) / 34
            optimiser.zero_grad()
            loss.backward()
            loss.item()
            optimiser.step()
            clock()
    except Enough:
        return streams * length


def product(clock: Clock) -> int:
    """Large products until the clock ends them; operations in one."""
    square = torch.randn(SQUARE, SQUARE, dtype=torch.bfloat16)
    try:
        while True:
            square @ square
            clock()
    except Enough:
        return 2 * SQUARE**3


def operations(training: str) -> float:
    """Of the networks for one image or dream step, forward and back."""
    if training.startswith("M"):
        return 3.0 * flops_per_step(MDNRNNConfig())
    model = ConvVAE(VAEConfig())
    with FlopCounterMode(display=False) as counter:
        mu, _ = model.encode(torch.zeros(1, 3, 64, 64))
        model.decode(mu).sum().backward()
    return float(counter.get_total_flops())


def run_part(args: Args) -> dict[str, float]:
    """One training in this process."""
    assert args.part is not None
    torch.set_num_threads(args.threads[0])
    clock = Clock(args.seconds)
    if args.part == PRODUCT:
        return clock.rates(product(clock))
    kind, shape = args.part.split()
    if kind == "V":
        batch = int(shape)
        units = their_v(args.ctallec, batch, clock) if args.theirs else train_v(batch, clock)
        return clock.rates(units)
    streams, length = map(int, shape.split("x"))
    if args.theirs:
        return clock.rates(their_m(args.ctallec, streams, length, clock))
    return clock.rates(train_m(streams, length, clock))


def measure(args: Args, training: str, threads: int, theirs: bool) -> float:
    """Units a second of one training in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.peers",
        "--ctallec",
        str(args.ctallec),
        "--part",
        training,
    ]
    command += ["--threads", str(threads), "--seconds", str(args.seconds)]
    command += ["--theirs"] if theirs else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{training} failed:\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["rate"])


def main(args: Args) -> None:
    """Measure and print."""
    if args.part is not None:
        print(json.dumps(run_part(args)))
        return
    print(machine())
    results: dict[str, Any] = {}
    for training in args.trainings:
        for threads in args.threads:
            rates: dict[str, list[float]] = {"theirs": [], "ours": [], PRODUCT: []}
            for _ in range(args.repeats):
                rates["theirs"].append(measure(args, training, threads, theirs=True))
                rates["ours"].append(measure(args, training, threads, theirs=False))
                rates[PRODUCT].append(measure(args, PRODUCT, threads, theirs=False))
            peer, ours, limit = (statistics.median(found) for found in rates.values())
            name = f"{training}, {threads} threads"
            share = ours * operations(training) / limit
            results[name] = {**rates, "ratio": ours / peer, "of_the_product": share}
            print(
                f"{name:22} {peer:9,.0f}/s theirs {ours:9,.0f}/s ours {ours / peer:6.2f}x, "
                f"{share:4.0%} of {limit / 1e9:,.0f} GFLOP/s"
            )
    if args.json is not None:
        write_json(args.json, {**results, "machine": machine(), "versions": versions()})


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
