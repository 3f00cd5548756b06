"""DCGAN's shapes and parameter counts, and what each energy is."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from sparse_gan.gan.ebgan import AutoencoderEnergy
from sparse_gan.gan.networks import (
    DCGANConfig,
    DCGANEnergy,
    DCGANGenerator,
    MLPEnergy,
    MLPGenerator,
    Norm,
    count_parameters,
)
from worldmodels.protocols import UserError

B, Z = 2, 100
SMALL = DCGANConfig(32, 1, 8, 4, 4)


def shapes_of(network: nn.Module, x: Tensor) -> list[tuple[int, ...]]:
    """Shapes after each convolution."""
    found: list[tuple[int, ...]] = []
    hooks = [
        module.register_forward_hook(lambda _, __, out: found.append(tuple(out.shape[1:])))
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    ]
    with torch.no_grad():
        network.energy(x) if isinstance(network, DCGANEnergy) else network(x)
    for hook in hooks:
        hook.remove()
    return found


def test_the_64_pixel_form_is_the_papers() -> None:
    cfg = DCGANConfig()
    generator, energy = DCGANGenerator(cfg), DCGANEnergy(cfg)
    assert count_parameters(generator) == 3_576_704
    assert count_parameters(energy) == 2_765_568
    widths = [(512, 4, 4), (256, 8, 8), (128, 16, 16), (64, 32, 32), (3, 64, 64)]
    assert shapes_of(generator, torch.zeros(B, Z)) == widths
    back = [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (1, 1, 1)]
    assert shapes_of(energy, torch.zeros(B, 3, 64, 64)) == back


@pytest.mark.parametrize(("size", "first", "stages"), [(28, 7, 2), (32, 4, 3)])
def test_small_forms(size: int, first: int, stages: int) -> None:
    cfg = DCGANConfig(size, 1)
    generator, energy = DCGANGenerator(cfg), DCGANEnergy(cfg)
    shapes = shapes_of(generator, torch.zeros(B, Z))
    assert shapes[0] == (64 * 2 ** (stages - 1), first, first)
    assert shapes[-1] == (1, size, size)
    assert shapes_of(energy, torch.zeros(B, 1, size, size))[-2:] == [shapes[0], (1, 1, 1)]
    # every stage but the first and last: kernels of 16 numbers a pair of channels, two a norm
    widths = [64 * 2**n for n in range(stages)]
    middle = sum(16 * a * b + 2 * b for a, b in pairwise(widths))
    assert count_parameters(energy) == 16 * 64 + middle + first**2 * widths[-1]
    ends = Z * widths[-1] * first**2 + 2 * widths[-1] + 16 * 64
    swapped = sum(16 * a * b + 2 * a for a, b in pairwise(widths))
    assert count_parameters(generator) == ends + swapped


def test_weights_start_as_in_the_paper() -> None:
    torch.manual_seed(0)
    for module in [*DCGANGenerator(DCGANConfig()).modules(), *DCGANEnergy(DCGANConfig()).modules()]:
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.weight.numel() > 1000:
            assert float(module.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
        if isinstance(module, nn.BatchNorm2d):
            assert float(module.weight.detach().mean()) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("norm", ["batch", "group", "spectral", "none"])
def test_energies_are_one_number_a_picture(norm: Norm) -> None:
    energy = DCGANEnergy(DCGANConfig(32, 1, 8, 4, 4, norm=norm))
    assert energy.energy(torch.zeros(B, 1, 32, 32)).shape == (B,)
    has_bias = [m.bias is not None for m in energy.trunk.modules() if isinstance(m, nn.Conv2d)]
    assert any(has_bias) == (norm in ("spectral", "none"))


def test_a_floor_keeps_the_energy_at_0_or_above() -> None:
    x = 10 * torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    assert float(MLPEnergy(8, nonnegative=True).energy(x).detach().min()) >= 0
    torch.manual_seed(0)
    assert float(MLPEnergy(8).energy(x).detach().min()) < 0


def test_an_auto_encoders_energy_is_what_it_leaves_over() -> None:
    torch.manual_seed(0)
    energy = AutoencoderEnergy(SMALL, code=5).eval()
    x = torch.rand(B, 1, 32, 32) * 2 - 1
    left = (energy.repaint(x) - x).reshape(B, -1)
    torch.testing.assert_close(energy.energy(x), left.norm(dim=1))
    assert energy.features(x).shape == (B, 5)


def test_descent_lowers_the_energy() -> None:
    torch.manual_seed(0)
    energy = DCGANEnergy(SMALL).eval()
    x = torch.rand(B, 1, 32, 32)
    assert bool((energy.energy(energy.infer(x)) < energy.energy(x)).all())
    points = torch.ones(B, 2)
    assert MLPEnergy(8).infer(points, steps=2).shape == points.shape


def test_noise_is_the_same_for_the_same_seed() -> None:
    generator = MLPGenerator(3, 8)
    first, second = (generator.noise(4, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second)
    assert generator(first).shape == (4, 2)


def test_what_does_not_fit() -> None:
    with pytest.raises(UserError, match=r"DCGANConfig\.size is 48; it must be one of 28, 32, 64"):
        DCGANConfig(48)
    with pytest.raises(UserError, match=r"DCGANConfig\.noise is 0"):
        DCGANConfig(noise=0)
    with pytest.raises(
        UserError, match=r"\(2, 1, 28, 28\); the network takes \(B, \*\(1, 32, 32\)"
    ):
        DCGANEnergy(SMALL).energy(torch.zeros(2, 1, 28, 28))
