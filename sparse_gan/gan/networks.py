"""DCGAN (Radford et al. 2016): a generator, and a discriminator read as an energy."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from sparse_gan.energy import EnergyModel, descend
from worldmodels.config import Channels, Config, OneOf, Size
from worldmodels.protocols import UserError

Norm = Literal["batch", "group", "spectral", "none"]
SIZES = {28: (7, 2), 32: (4, 3), 64: (4, 4)}
"""Side of a picture -> side of the smallest map, and the stages that double it."""


@dataclass(frozen=True)
class DCGANConfig(Config):
    """Shapes of both networks."""

    size: Annotated[int, OneOf(*SIZES)] = 64
    """height and width of a picture: 28, 32 or 64"""
    channels: Size = 3
    """1 for grey, 3 for colour"""
    noise: Size = 100
    """Z, size of the generator's input"""
    generator_width: Channels = 64
    """channels before the picture; each stage before has twice as many"""
    energy_width: Channels = 64
    """channels after the first convolution of the energy; each stage has twice as many"""
    norm: Norm = "batch"
    """of the energy: batch as in the paper; a gradient penalty needs another"""
    nonnegative: bool = False
    """softplus at the end of the energy, which gives it a floor; the margin loss needs one"""


class Generator(nn.Module):
    """What makes samples: noise (B, `noise_dim`) in, samples (B, ...) out."""

    noise_dim: int

    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        """Standard normal noise (count, Z), drawn on the CPU so that a seed means the same."""
        device = next(self.parameters()).device
        return torch.randn(count, self.noise_dim, generator=generator).to(device)


class DCGANGenerator(Generator):
    """Transposed convolutions from 1x1 to the picture; 3,576,704 parameters at 64x64x3.

    For 64x64: Z -> 4x4x512 -> 8x8x256 -> 16x16x128 -> 32x32x64 -> 64x64x3, kernels 4, batch norm
    and ReLU between, tanh at the end, no biases before a norm. 28x28 begins at 7x7.
    """

    def __init__(self, cfg: DCGANConfig) -> None:
        """Build it with the paper's start; weights come from the global torch generator."""
        super().__init__()
        self.cfg, self.noise_dim = cfg, cfg.noise
        first, stages = SIZES[cfg.size]
        widths = [cfg.generator_width * 2**n for n in reversed(range(stages))]
        layers = [nn.ConvTranspose2d(cfg.noise, widths[0], first, bias=False), *_normed(widths[0])]
        for before, after in pairwise(widths):
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), *_normed(after)]
        last = nn.ConvTranspose2d(widths[-1], cfg.channels, 4, 2, 1, bias=False)
        self.layers = nn.Sequential(*layers, last, nn.Tanh())
        self.apply(_start)

    def forward(self, noise: Tensor) -> Tensor:
        """Noise (B, Z) to pictures (B, C, H, W) in [-1, 1]."""
        pictures: Tensor = self.layers(noise[:, :, None, None])
        return pictures


class DCGANEnergy(EnergyModel):
    """Strided convolutions down to one number; 2,765,568 parameters at 64x64x3 with batch norm.

    The discriminator's mirror: kernels 4, LeakyReLU 0.2, a norm after all but the first and the
    last convolution. Its output is the energy, so the paper's logit is minus it.
    """

    def __init__(self, cfg: DCGANConfig) -> None:
        """Build it with the paper's start; weights come from the global torch generator."""
        super().__init__()
        self.cfg = cfg
        self.trunk = trunk(cfg)
        width = cfg.energy_width * 2 ** (SIZES[cfg.size][1] - 1)
        self.head = nn.Conv2d(width, 1, SIZES[cfg.size][0], bias=False)
        self.apply(_start)
        if cfg.norm == "spectral":
            for module in [m for m in self.modules() if isinstance(m, nn.Conv2d)]:
                spectral_norm(module)

    def energy(self, x: Tensor) -> Tensor:
        """Energy (B,) of pictures (B, C, H, W) in [-1, 1]; 0 or more if ``cfg.nonnegative``."""
        check_pictures(x, self.cfg)
        value: Tensor = self.head(self.trunk(x)).flatten()
        return functional.softplus(value) if self.cfg.nonnegative else value

    def infer(self, x: Tensor, steps: int = 50, rate: float = 0.1) -> Tensor:
        """Pictures that descent on the energy reaches from x (B, C, H, W)."""
        return descend(self, x, steps, rate)


class MLPGenerator(Generator):
    """A small generator of points: noise (B, Z) -> two hidden layers of ReLU -> (B, D)."""

    def __init__(self, noise: int = 2, width: int = 128, dims: int = 2) -> None:
        """Build it; weights come from the global torch generator."""
        super().__init__()
        self.noise_dim = noise
        self.layers = _mlp(noise, width, dims)

    def forward(self, noise: Tensor) -> Tensor:
        """Noise (B, Z) to points (B, D)."""
        points: Tensor = self.layers(noise)
        return points


class MLPEnergy(EnergyModel):
    """A small energy of points (B, D)."""

    def __init__(self, width: int = 128, dims: int = 2, nonnegative: bool = False) -> None:
        """Build it; weights come from the global torch generator."""
        super().__init__()
        self.nonnegative = nonnegative
        self.layers = _mlp(dims, width, 1)

    def energy(self, x: Tensor) -> Tensor:
        """Energy (B,) of points (B, D)."""
        value: Tensor = self.layers(x).flatten()
        return functional.softplus(value) if self.nonnegative else value

    def infer(self, x: Tensor, steps: int = 100, rate: float = 0.05) -> Tensor:
        """Points that descent on the energy reaches from x (B, D)."""
        return descend(self, x, steps, rate)


def trunk(cfg: DCGANConfig) -> nn.Sequential:
    """Convolutions from a picture (B, C, H, W) to its smallest map (B, width, s, s)."""
    first, stages = SIZES[cfg.size]
    widths = [cfg.channels, *(cfg.energy_width * 2**n for n in range(stages))]
    layers: list[nn.Module] = []
    side = cfg.size
    for number, (before, after) in enumerate(pairwise(widths)):
        side //= 2
        bias = cfg.norm == "none" or cfg.norm == "spectral"
        layers.append(nn.Conv2d(before, after, 4, 2, 1, bias=bias and number > 0))
        if number > 0 and cfg.norm == "batch":
            layers.append(nn.BatchNorm2d(after))
        elif number > 0 and cfg.norm == "group":
            layers.append(nn.GroupNorm(1, after))
        layers.append(nn.LeakyReLU(0.2, inplace=True))
    assert side == first
    return nn.Sequential(*layers)


def check_pictures(x: Tensor, cfg: DCGANConfig) -> None:
    """Refuse pictures of another shape than the network's.

    Raises:
        UserError: with both shapes.
    """
    wanted = (cfg.channels, cfg.size, cfg.size)
    if x.shape[1:] != wanted:
        raise UserError(f"the pictures are {tuple(x.shape)}; the network takes (B, *{wanted})")


def count_parameters(module: nn.Module) -> int:
    """Number of trainable numbers."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _normed(width: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]


def _mlp(before: int, width: int, after: int) -> nn.Sequential:
    hidden = [nn.Linear(before, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(width, after))


def _start(module: nn.Module) -> None:
    """Draw the paper's start: convolutions from N(0, 0.02), norms from N(1, 0.02)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
