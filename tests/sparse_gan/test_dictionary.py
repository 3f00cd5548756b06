"""Dictionaries: lengths of 1, the known one found again, the dead refilled; PSD's joint energy."""

from __future__ import annotations

import warnings

import pytest
import torch

from sparse_gan.coding.dictionary import (
    DictionaryConfig,
    SparseCoding,
    learn_dictionary,
    refill_dead,
    update_atoms,
)
from sparse_gan.coding.ista import ConvergenceWarning, SolverConfig
from sparse_gan.coding.psd import PSD, PSDConfig, train_psd

B, M, N = 500, 16, 20


def planted(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Signals of two atoms each, and the atoms."""
    generator = torch.Generator().manual_seed(seed)
    d = torch.nn.functional.normalize(torch.randn(M, N, generator=generator), dim=0)
    z = torch.zeros(B, N)
    for row in z:
        on = torch.randperm(N, generator=generator)[:2]
        row[on] = 1 + torch.rand(2, generator=generator)
    return z @ d.T, d


def test_it_finds_planted_atoms_again() -> None:
    x, d = planted()
    cfg = DictionaryConfig(N, 0.2, nonnegative=True, epochs=15, batch_size=50, coding_steps=50)
    rows: list[dict[str, float]] = []
    model = learn_dictionary(x, cfg, 0, lambda **row: rows.append(row))
    torch.testing.assert_close(model.dictionary.norm(dim=0), torch.ones(N))
    likeness = (model.dictionary.detach().T @ d).amax(0)
    assert int((likeness > 0.98).sum()) >= N - 2
    assert rows[-1]["energy"] < 0.8 * rows[0]["energy"]


def test_one_seed_learns_one_dictionary() -> None:
    x, _ = planted()
    cfg = DictionaryConfig(N, 0.2, epochs=1, batch_size=50, coding_steps=10)
    one, same = (learn_dictionary(x, cfg, 0).dictionary for _ in range(2))
    assert torch.equal(one, same)


def test_an_update_of_one_atom_is_least_squares() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.rand(30, 1, generator=generator, dtype=torch.float64)
    x = torch.randn(30, M, generator=generator, dtype=torch.float64)
    d = torch.nn.functional.normalize(torch.ones(M, 1, dtype=torch.float64), dim=0)
    update_atoms(d, z.T @ z, x.T @ z)
    best = torch.linalg.lstsq(z, x).solution.T
    torch.testing.assert_close(d, best / best.norm())


def test_dead_atoms_become_what_is_explained_worst() -> None:
    d, x = torch.eye(4)[:, :3].contiguous(), torch.zeros(5, 4)
    x[3, 3] = 7.0
    z = torch.ones(5, 3)
    usage = torch.diag(torch.tensor([1.0, 1.0, 0.0]))
    targets = torch.ones(4, 3)
    z[3] = 0
    x[[0, 1, 2, 4], :3] = 1.0
    assert refill_dead(d, usage, targets, x, z, 1e-3) == 1
    assert d[:, 2].tolist() == [0, 0, 0, 1]
    assert targets[:, 2].tolist() == [0, 0, 0, 0]
    assert refill_dead(d, torch.eye(3), targets, x, z, 1e-3) == 0


def test_chunks_change_nothing_and_warm_starts_are_taken() -> None:
    x, d = planted()
    solver = SolverConfig(200, tolerance=1e-6)
    whole = SparseCoding(d, 0.1, solver=solver, chunk_rows=B).infer(x)
    parts = SparseCoding(d, 0.1, solver=solver, chunk_rows=7).infer(x)
    torch.testing.assert_close(whole, parts, atol=1e-3, rtol=0)
    none = SparseCoding(d, 0.1, solver=SolverConfig(0)).infer(x, whole)
    assert torch.equal(none, whole)


def test_inference_that_stops_early_warns_and_flags_its_rows() -> None:
    x, d = planted()
    short = SparseCoding(d, 0.1, solver=SolverConfig(20, tolerance=1e-5), chunk_rows=90)
    found = short.solve(x)
    assert 0 < int(found.converged.sum()) < B
    assert (found.steps[~found.converged] == 20).all()
    with pytest.warns(ConvergenceWarning, match=f"{int((~found.converged).sum())} of {B} codes"):
        assert torch.equal(short.infer(x), found.z)
    with warnings.catch_warnings(action="error"):
        SparseCoding(d, 0.1, solver=SolverConfig(2000, tolerance=1e-5)).infer(x)
        SparseCoding(d, 0.1, solver=SolverConfig(5)).infer(x)


def test_psds_code_is_the_minimum_of_its_energy() -> None:
    generator = torch.Generator().manual_seed(0)
    d = torch.randn(M, N, generator=generator, dtype=torch.float64)
    x = torch.randn(4, M, generator=generator, dtype=torch.float64)
    model = PSD(d, PSDConfig(N, lam=0.5, beta=0.7), SolverConfig(5000, tolerance=1e-15))
    z = model.infer(x).requires_grad_(True)
    error = (x - model.decode(z)).square().sum() + 0.7 * (z - model.encode(x)).square().sum()
    (slope,) = torch.autograd.grad(error, z)
    on = z != 0
    torch.testing.assert_close(slope[on], -0.5 * z[on].sign(), atol=1e-6, rtol=0)
    assert bool((slope[~on].abs() <= 0.5 + 1e-6).all())
    assert torch.autograd.gradcheck(
        lambda x, z: model.joint_energy(x, z), (x.requires_grad_(True), z)
    )


def test_psds_guess_comes_closer() -> None:
    x, _ = planted()
    rows: list[dict[str, float]] = []
    cfg = PSDConfig(N, lam=0.1, epochs=8, batch_size=50, learning_rate=1e-2)
    model = train_psd(x, cfg, 0, lambda **row: rows.append(row))
    assert rows[-1]["guess"] < 0.5 * rows[0]["guess"]
    assert rows[-1]["energy"] < rows[0]["energy"]
    torch.testing.assert_close(model.dictionary.norm(dim=0), torch.ones(N))


@pytest.mark.parametrize(
    ("field", "value"), [("atoms", 0), ("lam", -1.0), ("rho", -1.0), ("batch_size", 0)]
)
def test_settings_that_cannot_learn(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"DictionaryConfig.{field} is {value}"):
        DictionaryConfig(**{field: value})  # type: ignore[arg-type]
