"""Maps, the score of oddity, and the pictures it is tried on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sparse_gan.energy import EnergyModel, descend
from sparse_gan.gan.tools import anomaly_table, auroc, corruptions, energies, energy_map
from worldmodels.protocols import UserError


class Bowl(EnergyModel):
    """Squared distance to a point."""

    def __init__(self, *centre: float) -> None:
        super().__init__()
        self.centre = torch.tensor(centre)

    def energy(self, x: Tensor) -> Tensor:
        return (x.flatten(1) - self.centre).square().sum(1)

    def infer(self, x: Tensor) -> Tensor:
        return descend(self, x, 50, 0.1)


def test_a_map_has_x_along_its_rows() -> None:
    heights = energy_map(Bowl(1.0, -1.0), half=2.0, points=5)
    assert heights.shape == (5, 5)
    assert heights.argmin() == 5 * 1 + 3
    assert heights[4, 0] == 18.0


def test_descent_in_sample_space_ends_at_the_lowest_point() -> None:
    bowl = Bowl(1.0, -1.0)
    reached = bowl.infer(torch.randn(4, 2, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(reached, bowl.centre.expand(4, 2), atol=1e-3, rtol=0)


def test_auroc_equals_counting_pairs() -> None:
    rng = np.random.default_rng(0)
    low, high = rng.integers(0, 6, 20).astype(float), rng.integers(2, 8, 15).astype(float)
    pairs = [(b > a) + 0.5 * (b == a) for a in low for b in high]
    assert auroc(low, high) == pytest.approx(np.mean(pairs))
    assert auroc(low, low) == 0.5
    assert auroc(np.zeros(3), np.ones(2)) == 1.0


def test_corruptions_are_what_they_are_called() -> None:
    x = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    odd = corruptions(x)
    assert all(y.shape == x.shape and float(y.abs().max()) <= 1 for y in odd.values())
    assert torch.equal(odd["negative"], -x)
    torch.testing.assert_close(odd["shuffled"].flatten(1).sort(1)[0], x.flatten(1).sort(1)[0])
    assert not torch.equal(odd["shuffled"], x)
    assert float((odd["covered"] == 0).double().mean()) == pytest.approx(0.25)
    assert float(odd["blur"].diff(dim=3).abs().mean()) < float(x.diff(dim=3).abs().mean()) / 2
    assert torch.equal(corruptions(x)["noise"], odd["noise"])


def test_the_table_of_oddity() -> None:
    real = 0.1 * torch.randn(50, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    rows = anomaly_table(Bowl(0.0, 0.0), real, {"far": real + 5, "same": real})
    assert rows["far"]["auroc"] == 1.0
    assert rows["same"]["auroc"] == 0.5
    assert rows["same"]["auroc_deviation"] == pytest.approx((0.25 / 54) ** 0.5)
    assert rows["far"]["auroc_deviation"] > 0
    assert rows["real"]["energy_deviation"] < 0.05
    assert rows["real"]["energy"] < rows["far"]["energy"]
    with pytest.raises(UserError, match="energy of sample 1 is not finite"):
        energies(Bowl(0.0), torch.tensor([[0.0], [torch.nan]]))
