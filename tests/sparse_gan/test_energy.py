"""The interface: losses against binary cross-entropy, the envelope's gradient, walking downhill."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sparse_gan.coding.dictionary import SparseCoding
from sparse_gan.coding.ista import SolverConfig
from sparse_gan.energy import EnergyModel, contrastive_loss, descend, regularised_loss
from worldmodels.protocols import UserError

B, M, N = 3, 4, 6


class Bowl(EnergyModel):
    """1/2 ||x - centre||^2, the simplest energy there is."""

    def __init__(self, centre: Tensor) -> None:
        super().__init__()
        self.centre = nn.Parameter(centre)

    def energy(self, x: Tensor) -> Tensor:
        return 0.5 * (x - self.centre).square().sum(1)

    def infer(self, x: Tensor) -> Tensor:
        return descend(self, x, steps=1, rate=1.0)


def test_the_soft_form_is_cross_entropy_with_the_logit_minus_f() -> None:
    low, high = torch.randn(5, generator=torch.Generator().manual_seed(0)), torch.randn(7)
    both = functional.binary_cross_entropy_with_logits
    expected = both(-low, torch.ones(5)) + both(-high, torch.zeros(7))
    torch.testing.assert_close(contrastive_loss(low, high), expected)


def test_the_margin_leaves_high_energies_alone() -> None:
    low, high = torch.tensor([1.0, 3.0]), torch.tensor([0.5, 9.0])
    assert float(contrastive_loss(low, high, margin=2.0)) == pytest.approx(2.0 + 1.5 / 2)
    with pytest.raises(UserError, match="margin is 0"):
        contrastive_loss(low, high, margin=0)


def test_walking_downhill_ends_at_the_minimum_and_changes_nothing_else() -> None:
    model = Bowl(torch.tensor([1.0, -2.0]))
    x = torch.zeros(B, 2)
    torch.testing.assert_close(model.infer(x), model.centre.detach().expand(B, 2))
    assert model.centre.grad is None
    assert not x.requires_grad
    assert float(regularised_loss(model, x).detach()) == 2.5


def test_gradients_of_the_minimal_energy_pass_around_the_inference() -> None:
    generator = torch.Generator().manual_seed(0)
    d = torch.randn(M, N, generator=generator, dtype=torch.float64)
    x = torch.randn(B, M, generator=generator, dtype=torch.float64, requires_grad=True)
    model = SparseCoding(d, 0.3, solver=SolverConfig(steps=3000, tolerance=1e-15))
    assert torch.autograd.gradcheck(model.energy, (x,))

    def of_dictionary(dictionary: Tensor) -> Tensor:
        given = {"dictionary": dictionary}
        energy: Tensor = torch.func.functional_call(model, given, (x.detach(),))
        return energy

    model.forward = model.energy  # type: ignore[method-assign]  # functional_call calls forward
    assert torch.autograd.gradcheck(of_dictionary, (d.clone().requires_grad_(True),))
