"""The loop: exact resume, both noises apart, each loss on small networks, what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from sparse_gan.gan.diagnostics.toys import ring
from sparse_gan.gan.ebgan import AutoencoderEnergy
from sparse_gan.gan.losses import LossConfig, LossKind
from sparse_gan.gan.networks import (
    DCGANConfig,
    DCGANEnergy,
    DCGANGenerator,
    MLPEnergy,
    MLPGenerator,
)
from sparse_gan.gan.train import GAN, GANTrainConfig, train_gan
from worldmodels.protocols import UserError
from worldmodels.runs import save_checkpoint

B = 8
TINY = DCGANConfig(28, 1, 4, 2, 2)


def batches(number: int) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.rand(B, 1, 28, 28, generator=generator) * 2 - 1


def new(steps: int = 6, loss: LossConfig | None = None, **changes: Any) -> GAN:
    torch.manual_seed(0)
    loss = loss or LossConfig("log", instance_noise=0.1)
    cfg = GANTrainConfig(loss, steps, checkpoint_every=3, log_every=2, sample_every=3, **changes)
    return GAN(cfg, DCGANGenerator(TINY), DCGANEnergy(TINY), 0)


def points(loss: LossConfig, steps: int = 20, **changes: Any) -> GAN:
    torch.manual_seed(0)
    energy = MLPEnergy(8, nonnegative=loss.needs_floor)
    return GAN(GANTrainConfig(loss, steps, **changes), MLPGenerator(2, 8), energy, 0)


def same(a: dict[str, Any], b: dict[str, Any]) -> None:
    for name in ("generator", "average", "energy"):
        for key, value in a[name].items():
            assert torch.equal(value, b[name][key]), (name, key)
    assert torch.equal(a["fresh"], b["fresh"])


@pytest.mark.parametrize("bfloat16", [False, True])
def test_a_resumed_run_is_bit_by_bit_the_unbroken_one(tmp_path: Path, bfloat16: bool) -> None:
    whole = train_gan(new(bfloat16=bfloat16), batches)
    broken = new(bfloat16=bfloat16)
    for _ in range(3):
        broken.train_step(batches)
    save_checkpoint(tmp_path / "gan.pt", broken.state())
    drawn: list[int] = []
    resumed = train_gan(
        new(bfloat16=bfloat16),
        batches,
        checkpoint=tmp_path / "gan.pt",
        on_sample=lambda gan: drawn.append(gan.step),
    )
    same(whole.state(), resumed.state())
    assert drawn == [6]
    assert resumed.step == 6


def test_the_same_seed_gives_the_same_gan_and_drawing_changes_nothing() -> None:
    plain = train_gan(new(), batches)
    drawn: list[Tensor] = []
    watched = train_gan(new(), batches, on_sample=lambda gan: drawn.append(gan.sample(3, seed=5)))
    same(plain.state(), watched.state())
    assert len(drawn) == 3
    assert not torch.equal(drawn[0], drawn[-1])
    assert torch.equal(drawn[-1], watched.sample(3, seed=5))


def test_each_step_takes_fresh_noise() -> None:
    gan = points(LossConfig("log"))
    seen: list[Tensor] = []
    gan.generator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    data = ring().batches(B, 0)
    for _ in range(3):
        gan.train_step(data)
    assert len({float(noise[0, 0]) for noise in seen}) == 3


@pytest.mark.parametrize("kind", [k for k in get_args(LossKind) if k != "ebgan"])
def test_each_loss_trains_both(kind: LossKind) -> None:
    gan = points(LossConfig(kind), energy_steps=2, ema=0.5)
    before = {n: [p.clone() for p in getattr(gan, n).parameters()] for n in ("generator", "energy")}
    lines: list[dict[str, float]] = []
    train_gan(gan, ring().batches(B, 0), log=lambda **values: lines.append(values))
    for name, old in before.items():
        new_ones = list(getattr(gan, name).parameters())
        assert any(not torch.equal(a, b) for a, b in zip(old, new_ones, strict=True))
    if kind == "wasserstein":
        assert max(float(p.detach().abs().max()) for p in gan.energy.parameters()) <= 0.01
    assert {"step", "energy_loss", "energy_real", "energy_fake", "generator_loss"} <= set(lines[-1])


def test_ebgan_trains_and_keeps_samples_apart() -> None:
    torch.manual_seed(0)
    cfg = GANTrainConfig(LossConfig("ebgan"), 2)
    gan = GAN(cfg, DCGANGenerator(TINY), AutoencoderEnergy(TINY, code=4), 0)
    metrics = gan.train_step(batches)
    assert float(metrics["energy_real"]) > 0
    without = float(metrics["generator_loss"])
    assert without > float(metrics["energy_fake"]) * 0.5


def test_the_average_lags_behind_and_0_is_g_itself() -> None:
    for ema in (0.0, 0.9):
        gan = points(LossConfig("log"), ema=ema)
        before = next(gan.average.parameters()).clone()
        gan.train_step(ring().batches(B, 0))
        now, g = next(gan.average.parameters()), next(gan.generator.parameters()).detach()
        torch.testing.assert_close(now, ema * before + (1 - ema) * g)


def test_a_checkpoint_of_another_loss_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gan.pt"
    save_checkpoint(path, points(LossConfig("log")).state())
    with pytest.raises(UserError, match=r"another loss: it has \{'kind': 'log'\}, this run"):
        train_gan(points(LossConfig("wasserstein")), ring().batches(B, 0), checkpoint=path)
    torch.manual_seed(0)
    wide = GAN(GANTrainConfig(LossConfig("log")), MLPGenerator(2, 9), MLPEnergy(8), 0)
    with pytest.raises(UserError, match="is of other networks than this run's"):
        train_gan(wide, ring().batches(B, 0), checkpoint=path)
    save_checkpoint(path, {"step": 3})
    with pytest.raises(UserError, match="is no checkpoint of a GAN"):
        train_gan(points(LossConfig("log")), ring().batches(B, 0), checkpoint=path)


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    with pytest.raises(UserError, match=r"energy_loss of the loss log is nan at step 1: lower"):
        train_gan(points(LossConfig("log"), log_every=1), lambda _: torch.full((B, 2), torch.nan))


def test_losses_that_do_not_fit_their_energy() -> None:
    with pytest.raises(UserError, match="norm is batch; it must be group, spectral or none"):
        new(loss=LossConfig("wasserstein-gp"))
    with pytest.raises(UserError, match="margin needs an energy with a floor"):
        new(loss=LossConfig("margin"))
    with pytest.raises(UserError, match="ebgan needs an auto-encoder"):
        new(loss=LossConfig("ebgan"))
    with pytest.raises(UserError, match=r"GANTrainConfig\.ema is 1"):
        GANTrainConfig(ema=1.0)
