"""Group-sparse auto-encoder: features that pool over units with similar tuning, and so vary less.

Kavukcuoglu et al. 2009. The code is ordered on a torus, and a pool costs the length of its part of
the code, so what is active together comes to lie together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from sparse_gan.checks import check_batch
from sparse_gan.coding.dictionary import CHUNK_ROWS
from sparse_gan.coding.groups import PooledProblem, check_pools, pooled, torus_pools
from sparse_gan.coding.ista import SolverConfig, minimise
from sparse_gan.coding.prox import unit_columns
from sparse_gan.coding.training import Log, cosine, finite, generator_of, set_rate, shuffled
from sparse_gan.energy import LatentEnergyModel
from worldmodels._threads import on_one_core
from worldmodels.config import (
    AtLeast,
    Config,
    Count,
    CountOrZero,
    Limit,
    NotNegative,
    Positive,
    PositiveFraction,
    Size,
)


@dataclass(frozen=True)
class TopographicConfig(Config):
    """Map, energy and training; the defaults are the paper's map for 12x12 patches."""

    side: Annotated[int, AtLeast(1), Limit(256)] = 16
    """length of the torus; the code has side^2 units"""
    pool: Size = 6
    """side of a pool"""
    stride: Size = 3
    """distance of two pools"""
    lam: NotNegative = 0.15
    """weight of the pools"""
    beta: NotNegative = 1.0
    """weight of the distance between code and encoder"""
    floor: Positive = 1e-4
    """added to a pool's square, so that its root is smooth at 0"""
    coding_steps: CountOrZero = 0
    """steps of the inference for each batch; 0 takes the encoder's code as it is"""
    epochs: Count = 40
    """passes over the data"""
    batch_size: Size = 50
    """samples a step"""
    learning_rate: PositiveFraction = 4e-3
    """Adam's, falling along a cosine"""


class GroupSparseAutoencoder(LatentEnergyModel):
    """E(x, z) = 1/2 ||x - D z||^2 + lam sum_p sqrt(floor + w_p . z^2) + beta/2 ||z - W x||^2."""

    pools: Tensor

    def __init__(self, dictionary: Tensor, pools: Tensor, cfg: TopographicConfig) -> None:
        """Start with a dictionary (M, N), pools (P, N) and the encoder W = D^T."""
        super().__init__()
        d = unit_columns(dictionary.detach())
        self.cfg = cfg
        self.register_buffer("pools", check_pools(pools, d.shape[1]).to(d))
        self.dictionary = nn.Parameter(d)
        self.weight = nn.Parameter(d.T.clone())

    def encode(self, x: Tensor) -> Tensor:
        """W x (B, N), the encoder's code."""
        check_batch(x, self.dictionary.shape[0])
        return x @ self.weight.T

    def features(self, x: Tensor) -> Tensor:
        """Pooled features (B, P) of the encoder's code."""
        return pooled(self.encode(x), self.pools)

    def decode(self, z: Tensor) -> Tensor:
        """D z, (B, M)."""
        return z @ self.dictionary.T

    def joint_energy(self, x: Tensor, z: Tensor) -> Tensor:
        """E(x, z) (B,)."""
        return self._problem(x, self.encode(x)).smooth(z)

    @torch.no_grad()
    def infer(self, x: Tensor, steps: int = 200) -> Tensor:
        """Codes (B, N) of least energy, found from the encoder's on."""
        solver = SolverConfig(steps, line_search=True)
        parts = []
        for rows in x.split(CHUNK_ROWS):
            guess = self.encode(rows)
            parts.append(minimise(self._problem(rows, guess), solver, guess).z)
        return torch.cat(parts)

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled features; see `features`."""
        return self.features(x)

    def _problem(self, x: Tensor, anchor: Tensor) -> PooledProblem:
        cfg = self.cfg
        return PooledProblem(
            x, self.dictionary, self.pools, cfg.lam, cfg.floor, anchor, float(cfg.beta)
        )


@on_one_core
def train_topographic(
    x: Tensor, cfg: TopographicConfig, seed: int, log: Log | None = None
) -> GroupSparseAutoencoder:
    """Learn a map from data (B, M), whitened best.

    Args:
        x: the data.
        cfg: the configuration.
        seed: fixes the first dictionary and the order of the samples.
        log: receives ``epoch, energy, error``, the last the mean of ||x - D z||^2.

    Raises:
        InputError: x is empty or not finite, or pools that do not cover the torus.
        UserError: a loss that is not finite.
    """
    check_batch(x)
    generator = generator_of(seed)
    noise = torch.randn(x.shape[1], cfg.side**2, generator=generator, dtype=torch.float64).to(x)
    pools = torus_pools(cfg.side, cfg.pool, cfg.stride)
    model = GroupSparseAutoencoder(noise, pools, cfg).to(x)
    optimiser = torch.optim.Adam(model.parameters(), lr=cfg.learning_rate)
    step, steps = 0, cfg.epochs * -(-len(x) // cfg.batch_size)
    for epoch in range(cfg.epochs):
        energy, error = 0.0, 0.0
        for picked in shuffled(len(x), cfg.batch_size, generator):
            batch = x[picked.to(x.device)]
            z = model.infer(batch, cfg.coding_steps) if cfg.coding_steps else model.encode(batch)
            set_rate(optimiser, cfg.learning_rate * cosine(step, steps))
            loss = model.joint_energy(batch, z).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            step += 1
            with torch.no_grad():
                model.dictionary.copy_(unit_columns(model.dictionary))
                energy += finite(loss, "the map", step) * len(batch) / len(x)
                error += float((batch - model.decode(z)).square().sum()) / len(x)
        if log is not None:
            log(epoch=epoch + 1, energy=energy, error=error)
    return model
