"""Sparse coding with a learned dictionary: the energy is minimised over z, then over D.

Olshausen & Field 1996; the dictionary step is the online one of Mairal et al. 2009 (algorithm 2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sparse_gan.checks import check_batch, check_dictionary, check_number
from sparse_gan.coding.ista import (
    Lasso,
    Solution,
    SolverConfig,
    largest_eigenvalue,
    minimise,
    unfinished,
)
from sparse_gan.coding.prox import unit_columns
from sparse_gan.coding.training import Log, finite, generator_of, shuffled
from sparse_gan.energy import LatentEnergyModel
from worldmodels._threads import on_one_core
from worldmodels.config import Config, Count, Fraction, NotNegative, Size

CODING = SolverConfig(steps=500, tolerance=1e-4)
"""Solver of `SparseCoding` where none is given."""
CHUNK_ROWS = 1024
"""Rows coded at a time, so that a million need no more memory than their codes."""


class SparseCoding(LatentEnergyModel):
    """E(x, z) = 1/2 ||x - D z||^2 + lam ||z||_1, minimised over z by FISTA."""

    dictionary: nn.Parameter

    def __init__(
        self,
        dictionary: Tensor,
        lam: float,
        nonnegative: bool = False,
        solver: SolverConfig = CODING,
        chunk_rows: int = CHUNK_ROWS,
    ) -> None:
        """Code with a dictionary (M, N), copied; see `Lasso` for the other arguments."""
        super().__init__()
        check_number("lam", lam, 0)
        check_number("chunk_rows", chunk_rows, 1)
        self.dictionary = nn.Parameter(check_dictionary(dictionary).detach().clone())
        self.lam, self.nonnegative = lam, nonnegative
        self.solver, self.chunk_rows = solver, chunk_rows

    def joint_energy(self, x: Tensor, z: Tensor) -> Tensor:
        """E(x, z) (B,) for x (B, M) and z (B, N)."""
        return joint_energy(x, z, self.dictionary, self.lam)

    def decode(self, z: Tensor) -> Tensor:
        """D z, (B, M)."""
        return z @ self.dictionary.T

    @torch.no_grad()
    def solve(self, x: Tensor, start: Tensor | None = None) -> Solution:
        """Codes (B, N) of x (B, M) with each row's iterations, and whether it converged.

        Args:
            x: (B, M).
            start: (B, N) where to start, in place of 0.

        Raises:
            InputError: x is empty, not finite or of another width.
        """
        d = self.dictionary.detach()
        check_batch(x, d.shape[0])
        bound, parts = largest_eigenvalue(d), []
        z = x.new_empty(x.shape[0], d.shape[1])
        for first in range(0, len(x), self.chunk_rows):
            part = slice(first, first + self.chunk_rows)
            problem = Lasso(x[part], d, self.lam, self.nonnegative, bound)
            found = minimise(problem, self.solver, None if start is None else start[part])
            z[part] = found.z
            parts.append(replace(found, z=found.z[:0]))
        steps, converged = (
            torch.cat([getattr(p, n) for p in parts]) for n in ("steps", "converged")
        )
        return Solution(z, steps, [], converged)

    def infer(self, x: Tensor, start: Tensor | None = None) -> Tensor:
        """Codes (B, N); see `solve`. Rows that have not converged are a `ConvergenceWarning`."""
        found = self.solve(x, start)
        unfinished([found], self.solver)
        return found.z

    def forward(self, x: Tensor) -> Tensor:
        """Return the codes; see `infer`."""
        return self.infer(x)


def joint_energy(x: Tensor, z: Tensor, dictionary: Tensor, lam: float) -> Tensor:
    """1/2 ||x - D z||^2 + lam ||z||_1, (B,)."""
    return 0.5 * (x - z @ dictionary.T).square().sum(1) + lam * z.abs().sum(1)


@dataclass(frozen=True)
class DictionaryConfig(Config):
    """How a dictionary is learned."""

    atoms: Size = 256
    """N, its columns"""
    lam: NotNegative = 0.1
    """weight of the L1 norm"""
    nonnegative: bool = False
    """whether codes below 0 are forbidden"""
    epochs: Count = 5
    """passes over the data"""
    batch_size: Size = 256
    """samples a step"""
    coding_steps: Count = 100
    """iterations of FISTA for each batch"""
    rho: NotNegative = 10.0
    """how fast old codes are forgotten: at step t their statistics keep (1 - 1/t)^rho"""
    dead: Fraction = 1e-3
    """an atom used less than this fraction of the mean is refilled"""


@torch.no_grad()
@on_one_core
def learn_dictionary(
    x: Tensor, cfg: DictionaryConfig, seed: int, log: Log | None = None
) -> SparseCoding:
    """Learn a dictionary with columns of length 1 from data (B, M).

    Args:
        x: the data; it stays where it is, on whichever device.
        cfg: the configuration.
        seed: fixes the first atoms, drawn from the data, and the order of the batches.
        log: receives ``epoch, energy, active, refilled``.

    Raises:
        InputError: x is empty or not finite.
    """
    check_batch(x)
    generator = generator_of(seed)
    d = first_atoms(x, cfg.atoms, generator)
    usage, targets = x.new_zeros(cfg.atoms, cfg.atoms), x.new_zeros(x.shape[1], cfg.atoms)
    solver = SolverConfig(cfg.coding_steps, tolerance=1e-4)
    step = 0
    for epoch in range(cfg.epochs):
        energy, active, refilled = 0.0, 0.0, 0
        for index in shuffled(len(x), cfg.batch_size, generator):
            batch = x[index.to(x.device)]
            z = minimise(Lasso(batch, d, cfg.lam, cfg.nonnegative), solver).z
            loss = joint_energy(batch, z, d, cfg.lam).sum()
            energy += finite(loss, "the dictionary", step) / len(x)
            active += float((z != 0).float().mean()) * len(batch) / len(x)
            step += 1
            kept = (1 - 1 / step) ** cfg.rho
            usage.mul_(kept).addmm_(z.T, z)
            targets.mul_(kept).addmm_(batch.T, z)
            update_atoms(d, usage, targets)
            if step % 10 == 0:
                refilled += refill_dead(d, usage, targets, batch, z, cfg.dead)
        if log is not None:
            log(epoch=epoch + 1, energy=energy, active=active, refilled=refilled)
    return SparseCoding(d, cfg.lam, cfg.nonnegative)


def first_atoms(x: Tensor, atoms: int, generator: torch.Generator) -> Tensor:
    """Unit-length columns (M, N): random samples, with a little noise to tell equal ones apart."""
    index = torch.randint(len(x), (atoms,), generator=generator)
    noise = torch.randn(x.shape[1], atoms, generator=generator, dtype=torch.float64).to(x)
    picked = x[index.to(x.device)].T
    length = picked.norm(dim=0, keepdim=True).clamp_min(torch.finfo(x.dtype).eps)
    return unit_columns(picked / length + 0.1 / x.shape[1] ** 0.5 * noise)


def update_atoms(dictionary: Tensor, usage: Tensor, targets: Tensor) -> None:
    """Improve each atom in turn, the others fixed, and scale it to length 1; in place.

    Minimises 1/2 tr(D^T D A) - tr(D^T B) by block coordinate descent.

    Args:
        dictionary: (M, N).
        usage: A = sum of z z^T, (N, N).
        targets: B = sum of x z^T, (M, N).
    """
    for j in (usage.diagonal() > 0).nonzero()[:, 0].tolist():
        atom = dictionary[:, j] + (targets[:, j] - dictionary @ usage[:, j]) / usage[j, j]
        length = atom.norm()
        if length > 0:
            dictionary[:, j] = atom / length


def refill_dead(
    dictionary: Tensor, usage: Tensor, targets: Tensor, x: Tensor, z: Tensor, dead: float
) -> int:
    """Put the worst reconstructed samples in the place of atoms that are hardly used; in place.

    Args:
        dictionary: (M, N).
        usage: A (N, N); an atom's diagonal entry is how much it was used.
        targets: B (M, N).
        x: (B, M) the samples to take from.
        z: (B, N) their codes.
        dead: fraction of the mean usage below which an atom is dead.

    Returns:
        How many atoms were refilled.
    """
    used = usage.diagonal()
    dying = (used <= dead * used.mean()).nonzero()[:, 0]
    residual = x - z @ dictionary.T
    error = residual.square().sum(1)
    worst = error.argsort(descending=True)[: len(dying)]
    worst = worst[error[worst] > 0]
    dying = dying[: len(worst)]
    if len(dying):
        dictionary[:, dying] = unit_columns(residual[worst].T)
        usage[dying], usage[:, dying], targets[:, dying] = 0, 0, 0
    return len(dying)
