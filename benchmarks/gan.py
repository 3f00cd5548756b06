"""Training throughput of DCGAN beside a minimal plain PyTorch loop, on the same networks and data.

    python benchmarks/gan.py [--steps 20] [--rounds 3] [--threads 2] [--json FILE]

plain     the loop of every tutorial: float32, pictures row by row in memory, Adam, G's step
          backpropagating into F's weights as well
loop      ours in the same precision and memory format
fast      ours with bfloat16 and channels-last
The rounds alternate between the three, so that a busy machine slows all of them alike; the best
round of each counts. Beside them stand the operations that a step of each takes, and the bare
products of the machine in the format that `fast` computes in: no loop can be faster than these.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from sparse_gan.gan.losses import LossConfig
from sparse_gan.gan.networks import DCGANConfig, DCGANEnergy, DCGANGenerator
from sparse_gan.gan.train import GAN, GANTrainConfig
from worldmodels.runs import has_fast_bfloat16, machine, write_json


@dataclass(frozen=True)
class Args:
    """What to measure."""

    size: int = 64
    """28, 32 or 64"""
    width: int = 64
    """channels at the picture's end; 64 is the paper's"""
    batch_size: int = 64
    """pictures a step"""
    steps: int = 20
    """steps in a round, after two that do not count"""
    rounds: int = 3
    """of each"""
    threads: int = 2
    """of torch"""
    json: Path | None = None
    """where to write the figures"""


def plain(args: Args) -> Callable[[int], None]:
    """The minimal loop."""
    cfg = DCGANConfig(args.size, generator_width=args.width, energy_width=args.width)
    torch.manual_seed(0)
    g, f = DCGANGenerator(cfg), DCGANEnergy(cfg)
    g_adam = torch.optim.Adam(g.parameters(), lr=2e-4, betas=(0.5, 0.999))
    f_adam = torch.optim.Adam(f.parameters(), lr=2e-4, betas=(0.5, 0.999))
    data = pictures(args)
    bce = functional.binary_cross_entropy_with_logits
    ones, zeros = torch.ones(args.batch_size), torch.zeros(args.batch_size)

    def step(number: int) -> None:
        f_adam.zero_grad()
        bce(-f.energy(data(number)), ones).backward()
        fake = g(torch.randn(args.batch_size, cfg.noise))
        bce(-f.energy(fake.detach()), zeros).backward()
        f_adam.step()
        g_adam.zero_grad()
        bce(-f.energy(fake), ones).backward()
        g_adam.step()

    return step


def ours(args: Args, fast: bool) -> Callable[[int], None]:
    """The package's loop, the average of G included."""
    cfg = DCGANConfig(args.size, generator_width=args.width, energy_width=args.width)
    torch.manual_seed(0)
    g, f = DCGANGenerator(cfg), DCGANEnergy(cfg)
    data = pictures(args)
    if fast:
        g.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its types
        f.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in its types
    gan = GAN(GANTrainConfig(LossConfig("log"), bfloat16=fast), g, f, 0)

    def batch(number: int) -> Tensor:
        x = data(number)
        return x.contiguous(memory_format=torch.channels_last) if fast else x

    def step(_: int) -> None:
        gan.train_step(batch)

    return step


def pictures(args: Args) -> Callable[[int], Tensor]:
    """Random pictures by number; the network does not care what it sees."""
    generator = torch.Generator().manual_seed(0)
    shape = (4, args.batch_size, 3, args.size, args.size)
    stored = torch.rand(shape, generator=generator) * 2 - 1
    return lambda number: stored[number % 4]


@dataclass(frozen=True)
class Result:
    """What was measured."""

    pictures_per_second: dict[str, float]
    """pictures a second of each, the best of the rounds"""
    gflop_per_step: dict[str, float]
    """operations of one step of each"""
    products_gflops: float
    """GFLOP/s of square products, the best of the rounds"""


def measure(args: Args) -> Result:
    """Run the three and the products in turns."""
    steps = {"plain": plain(args), "loop": ours(args, False), "fast": ours(args, True)}
    best, gflop = dict.fromkeys(steps, 0.0), {}
    for name, step in steps.items():
        with FlopCounterMode(display=False) as counter:
            step(0)
        gflop[name] = counter.get_total_flops() / 1e9
        step(1)
    dtype = torch.bfloat16 if has_fast_bfloat16(torch.device("cpu")) else torch.float32
    square, products = torch.rand(2048, 2048).to(dtype), 0.0
    for _ in range(args.rounds):
        for name, step in steps.items():
            started = time.perf_counter()
            for number in range(args.steps):
                step(number)
            seconds = time.perf_counter() - started
            best[name] = max(best[name], args.steps * args.batch_size / seconds)
        started = time.perf_counter()
        for _ in range(args.steps):
            square @ square
        seconds = time.perf_counter() - started
        products = max(products, args.steps * 2 * 2.048**3 / seconds)
    return Result(best, gflop, products)


def main() -> None:
    """Measure and print."""
    args = tyro.cli(Args, description=__doc__)
    torch.set_num_threads(args.threads)
    result = measure(args)
    for name, rate in result.pictures_per_second.items():
        share, gflop = rate / result.pictures_per_second["plain"], result.gflop_per_step[name]
        speed = gflop * rate / args.batch_size
        print(
            f"{name:6} {rate:8.1f} pictures a second, {share:.2f} of plain; {gflop:.1f} GFLOP a "
            f"step, {speed:.0f} GFLOP/s, {speed / result.products_gflops:.2f} of bare products"
        )
    if args.json is not None:
        write_json(args.json, {**asdict(result), "threads": args.threads, "machine": machine()})


if __name__ == "__main__":
    main()
