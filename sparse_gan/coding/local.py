"""Local filters without weight sharing, over whole images (Gregor & LeCun, arXiv:1006.0448).

Every place of the image has units of its own, and encoder and decoder look at the same small window
of it. Pools of neighbouring units, weighted as in `groups`, make their tuning change smoothly over
the image, as in the cortex.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparse_gan.checks import check_images
from sparse_gan.coding.groups import pooled
from sparse_gan.coding.training import Log, cosine, finite, generator_of, set_rate, shuffled
from sparse_gan.energy import LatentEnergyModel
from worldmodels._threads import on_one_core
from worldmodels.config import (
    Config,
    Count,
    NotNegative,
    Positive,
    PositiveFraction,
    Size,
)


@dataclass(frozen=True)
class LocalConfig(Config):
    """Shape, energy and training."""

    height: Size = 24
    """of the images, in pixels"""
    width: Size = 24
    """of the images, in pixels"""
    channels: Size = 1
    """of the images"""
    window: Size = 8
    """side of what a unit sees, in pixels"""
    stride: Size = 2
    """distance of two places, in pixels"""
    units: Size = 4
    """units at each place"""
    pool: Size = 3
    """side of the square of places that one pool spans"""
    lam: NotNegative = 0.05
    """weight of the pools"""
    beta: NotNegative = 1.0
    """weight of the distance between code and encoder"""
    floor: Positive = 1e-4
    """added to a pool's square, so that its root is smooth at 0"""
    epochs: Count = 10
    """passes over the data"""
    batch_size: Size = 50
    """images a step"""
    learning_rate: PositiveFraction = 2e-3
    """Adam's, falling along a cosine"""

    def _check(self) -> None:
        for name in ("height", "width"):
            if getattr(self, name) < self.window:
                self.refuse(name, f"at least {self.window}, as the window")
        if self.pool > (most := min(self.rows, self.columns)):
            self.refuse("pool", f"at most {most}, the places of a side")

    @property
    def rows(self) -> int:
        """Places from top to bottom."""
        return (self.height - self.window) // self.stride + 1

    @property
    def columns(self) -> int:
        """Places from left to right."""
        return (self.width - self.window) // self.stride + 1

    @property
    def window_size(self) -> int:
        """Values in a window, over all channels."""
        return self.channels * self.window**2


class LocalAutoencoder(LatentEnergyModel):
    """E(x, z) = 1/2 ||x - D z||^2 + lam sum_p sqrt(floor + pool_p(z^2)) + beta/2 ||z - W x||^2.

    Codes are (B, P, U): U units at each of P places, row by row. Pixels at the right and bottom
    that no window reaches are left out of the energy.
    """

    def __init__(self, cfg: LocalConfig, seed: int) -> None:
        """Draw filters of length 1, the encoder's equal to the decoder's."""
        super().__init__()
        self.cfg = cfg
        shape = (cfg.rows * cfg.columns, cfg.units, cfg.window_size)
        noise = torch.randn(shape, generator=generator_of(seed))
        self.decoder = nn.Parameter(functional.normalize(noise, dim=2))
        self.encoder = nn.Parameter(self.decoder.detach().clone())
        self.register_buffer("pools", _grid_pools(cfg))

    pools: Tensor

    def encode(self, x: Tensor) -> Tensor:
        """W x (B, P, U): each place's filters on its own window of images (B, C, H, W)."""
        cfg = self.cfg
        check_images(x, cfg.channels, cfg.window)
        windows = functional.unfold(x, cfg.window, stride=cfg.stride)
        return torch.einsum("bmp,pum->bpu", windows, self.encoder)

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, C, H, W): every place paints its window, and windows add up."""
        cfg = self.cfg
        windows = torch.einsum("bpu,pum->bmp", z, self.decoder)
        size = (cfg.height, cfg.width)
        return functional.fold(windows, size, cfg.window, stride=cfg.stride)

    def joint_energy(self, x: Tensor, z: Tensor) -> Tensor:
        """E(x, z) (B,)."""
        cfg, reach = self.cfg, (self.cfg.rows - 1, self.cfg.columns - 1)
        h, w = (n * cfg.stride + cfg.window for n in reach)
        error = (x - self.decode(z))[:, :, :h, :w].square().flatten(1).sum(1)
        guess = (z - self.encode(x)).square().flatten(1).sum(1)
        pools = pooled(z.flatten(1), self.pools, cfg.floor).sum(1)
        return 0.5 * error + cfg.lam * pools + 0.5 * cfg.beta * guess

    def features(self, x: Tensor) -> Tensor:
        """Pooled features (B, pools) of the encoder's code."""
        return pooled(self.encode(x).flatten(1), self.pools)

    @torch.no_grad()
    def curvature(self) -> float:
        """Upper bound on the energy's curvature in z: a gradient step of 1 over it lowers it.

        By Schur's test `||D||^2` is at most the largest sum of `|D|` over the pixels of a unit
        times that over the units of a pixel.
        """
        cfg, size = self.cfg, self.decoder.abs()
        windows = size.sum(1).T[None]  # (1, M, P)
        paint = functional.fold(windows, (cfg.height, cfg.width), cfg.window, stride=cfg.stride)
        decoder = float(size.sum(2).max()) * float(paint.max())
        pools = cfg.lam * float(self.pools.sum(0).max()) / math.sqrt(cfg.floor)
        return decoder + pools + cfg.beta

    def infer(self, x: Tensor, steps: int = 100) -> Tensor:
        """Codes (B, P, U) after gradient descent on the energy, from the encoder's on."""
        z, rate = self.encode(x).detach(), 1 / self.curvature()
        for _ in range(steps):
            with torch.enable_grad():
                z.requires_grad_(True)
                (slope,) = torch.autograd.grad(self.joint_energy(x.detach(), z).sum(), z)
            z = (z - rate * slope).detach()
        return z

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled features; see `features`."""
        return self.features(x)

    @torch.no_grad()
    def project(self) -> None:
        """Scale every filter of the decoder to length 1."""
        self.decoder.copy_(functional.normalize(self.decoder, dim=2))


def _grid_pools(cfg: LocalConfig) -> Tensor:
    """Gaussian weights (pools, P * U): every square of places, with all units there."""
    size, places = cfg.pool, []
    away = torch.arange(size) - (size - 1) / 2
    bump = torch.exp(-0.5 * (away / max(size / 4, 0.5)) ** 2)
    square = torch.outer(bump, bump) / bump.sum() ** 2 / cfg.units
    for top in range(cfg.rows - size + 1):
        for left in range(cfg.columns - size + 1):
            grid = torch.zeros(cfg.rows, cfg.columns)
            grid[top : top + size, left : left + size] = square
            places.append(grid.flatten().repeat_interleave(cfg.units))
    return torch.stack(places)


@on_one_core
def train_local(x: Tensor, cfg: LocalConfig, seed: int, log: Log | None = None) -> LocalAutoencoder:
    """Learn from images (B, C, H, W), the code being the encoder's.

    Args:
        x: images of the configured size.
        cfg: the configuration.
        seed: fixes the first filters and the order of the images.
        log: receives ``epoch, energy``.

    Raises:
        InputError: images that are empty, not finite or of another size.
        UserError: a loss that is not finite.
    """
    check_images(x, cfg.channels, cfg.window)
    generator = generator_of(seed)
    model = LocalAutoencoder(cfg, seed).to(x)
    optimiser = torch.optim.Adam(model.parameters(), lr=cfg.learning_rate)
    step, steps = 0, cfg.epochs * -(-len(x) // cfg.batch_size)
    for epoch in range(cfg.epochs):
        energy = 0.0
        for picked in shuffled(len(x), cfg.batch_size, generator):
            images = x[picked.to(x.device)]
            set_rate(optimiser, cfg.learning_rate * cosine(step, steps))
            loss = model.joint_energy(images, model.encode(images)).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            model.project()
            step += 1
            energy += finite(loss, "the local filters", step) * len(images) / len(x)
        if log is not None:
            log(epoch=epoch + 1, energy=energy)
    return model
