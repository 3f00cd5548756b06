"""PSD, predictive sparse decomposition: sparse coding whose encoder learns to guess the code.

E(x, z) = ||x - D z||^2 + lam ||z||_1 + beta ||z - F(x)||^2 with F(x) = G tanh(W x + b), G diagonal
(Kavukcuoglu, Ranzato & LeCun 2008, arXiv:1010.3467).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparse_gan.checks import check_batch
from sparse_gan.coding.dictionary import CHUNK_ROWS, CODING, first_atoms
from sparse_gan.coding.ista import Lasso, SolverConfig, minimise, unfinished
from sparse_gan.coding.prox import unit_columns
from sparse_gan.coding.training import Log, cosine, finite, generator_of, set_rate, shuffled
from sparse_gan.energy import LatentEnergyModel
from worldmodels._threads import on_one_core
from worldmodels.config import Config, Count, NotNegative, PositiveFraction, Size


@dataclass(frozen=True)
class PSDConfig(Config):
    """Shape, energy and training."""

    units: Size = 256
    """N, the size of the code"""
    lam: NotNegative = 0.2
    """weight of the L1 norm; twice that of an energy that halves the squared error"""
    beta: NotNegative = 1.0
    """weight of the distance between code and guess"""
    epochs: Count = 10
    """passes over the data"""
    batch_size: Size = 100
    """samples a step"""
    coding_steps: Count = 50
    """iterations of FISTA for each batch, from the guess on"""
    learning_rate: PositiveFraction = 2e-3
    """Adam's, for decoder and encoder, falling along a cosine"""


class PSD(LatentEnergyModel):
    """Dictionary, encoder, and the energy that ties them."""

    def __init__(self, dictionary: Tensor, cfg: PSDConfig, solver: SolverConfig = CODING) -> None:
        """Start with a dictionary (M, N), W = D^T, b = 0 and G = I."""
        super().__init__()
        d = unit_columns(dictionary.detach())
        self.cfg, self.solver = cfg, solver
        self.dictionary = nn.Parameter(d)
        self.weight = nn.Parameter(d.T.clone())
        self.bias = nn.Parameter(torch.zeros_like(d[0]))
        self.gain = nn.Parameter(torch.ones_like(d[0]))

    def encode(self, x: Tensor) -> Tensor:
        """F(x) (B, N): the guess, at the price of one product."""
        check_batch(x, self.dictionary.shape[0])
        return self.gain * torch.tanh(x @ self.weight.T + self.bias)

    def decode(self, z: Tensor) -> Tensor:
        """D z, (B, M)."""
        return z @ self.dictionary.T

    def joint_energy(self, x: Tensor, z: Tensor) -> Tensor:
        """E(x, z) (B,)."""
        error = (x - self.decode(z)).square().sum(1)
        guess = (z - self.encode(x)).square().sum(1)
        return error + self.cfg.lam * z.abs().sum(1) + self.cfg.beta * guess

    @torch.no_grad()
    def infer(self, x: Tensor, solver: SolverConfig | None = None) -> Tensor:
        """Codes (B, N) of least energy, found by FISTA from the guess on.

        Both squares together are one: that of [x, sqrt(beta) F(x)] - [D, sqrt(beta) I] z.
        """
        guess, root = self.encode(x), self.cfg.beta**0.5
        d = 2**0.5 * torch.cat([self.dictionary, root * torch.eye(guess.shape[1]).to(guess)])
        target = 2**0.5 * torch.cat([x, root * guess], dim=1)
        solver = solver or self.solver
        parts = [
            minimise(Lasso(rows, d, self.cfg.lam), solver, start)
            for rows, start in zip(target.split(CHUNK_ROWS), guess.split(CHUNK_ROWS), strict=True)
        ]
        unfinished(parts, solver)
        return torch.cat([part.z for part in parts])

    def forward(self, x: Tensor) -> Tensor:
        """Return the guess; see `encode`."""
        return self.encode(x)


@on_one_core
def train_psd(x: Tensor, cfg: PSDConfig, seed: int, log: Log | None = None) -> PSD:
    """Learn dictionary and encoder from data (B, M): codes by FISTA, then one step of both.

    Args:
        x: the data.
        cfg: the configuration.
        seed: fixes the first dictionary and the order of the samples.
        log: receives ``epoch, energy, active, guess``, the last the mean of ||z - F(x)||^2.

    Raises:
        InputError: x is empty or not finite.
        UserError: a loss that is not finite.
    """
    check_batch(x)
    generator = generator_of(seed)
    model = PSD(first_atoms(x, cfg.units, generator), cfg)
    optimiser = torch.optim.Adam(model.parameters(), lr=cfg.learning_rate)
    solver = SolverConfig(cfg.coding_steps)
    step, steps = 0, cfg.epochs * -(-len(x) // cfg.batch_size)
    for epoch in range(cfg.epochs):
        totals = {"energy": 0.0, "active": 0.0, "guess": 0.0}
        for picked in shuffled(len(x), cfg.batch_size, generator):
            batch = x[picked.to(x.device)]
            z = model.infer(batch, solver)
            set_rate(optimiser, cfg.learning_rate * cosine(step, steps))
            loss = model.joint_energy(batch, z).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            step += 1
            with torch.no_grad():
                model.dictionary.copy_(unit_columns(model.dictionary))
                fraction = len(batch) / len(x)
                totals["energy"] += finite(loss, "PSD", step) * fraction
                totals["active"] += float((z != 0).float().mean()) * fraction
                totals["guess"] += float((z - model(batch)).square().sum(1).mean()) * fraction
        if log is not None:
            log(epoch=epoch + 1, **totals)
    return model
