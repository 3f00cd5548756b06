"""V: shapes, the paper's parameter count, the loss against torch.distributions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from worldmodels._from_json import from_json
from worldmodels.artifacts import filled
from worldmodels.protocols import UserError
from worldmodels.runs import to_jsonable
from worldmodels.vision.vae import (
    ConvVAE,
    FromPoint,
    VAEConfig,
    VAEOutput,
    to_float,
    to_uint8,
    vae_loss,
)

B, Z = 3, 32


def test_parameter_count_is_the_papers() -> None:
    model = ConvVAE(VAEConfig(z_dim=Z))
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_348_547


def test_shapes_and_ranges() -> None:
    torch.manual_seed(0)
    model = ConvVAE(VAEConfig(z_dim=5, width=4))
    x = torch.rand(B, 3, 64, 64)
    out = model(x, torch.randn(B, 5))
    assert out.reconstruction.shape == x.shape
    assert out.mu.shape == out.logvar.shape == (B, 5)
    assert 0 <= out.reconstruction.min().item() <= out.reconstruction.max().item() <= 1


def test_without_its_decoder_it_sees_the_same_and_shows_nothing() -> None:
    model = ConvVAE(VAEConfig(z_dim=5, width=4)).eval()
    eye, x = model.without_decoder(), torch.rand(2, 3, 64, 64)
    for mine, whole in zip(eye.encode(x), model.encode(x), strict=True):
        torch.testing.assert_close(mine, whole, rtol=0, atol=0)
    assert not eye.training
    assert eye.to_mu.weight.data_ptr() == model.to_mu.weight.data_ptr()
    with pytest.raises(UserError, match="without its decoder"):
        eye.decode(torch.zeros(1, 5))


@pytest.mark.parametrize("standardized", [False, True])
def test_joined_it_is_the_same_with_a_quarter_of_the_weights(standardized: bool) -> None:
    torch.manual_seed(0)
    model = ConvVAE(VAEConfig(standardized=standardized)).eval()
    small, x = model.joined(), torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(small(x), model(x), rtol=1e-4, atol=1e-5)
    assert small.is_joined and not model.is_joined and not small.training
    assert small.joined() is small
    count = sum(weight.numel() for weight in small.parameters())
    assert count == 1_143_427  # of 4,348,547
    assert small.to_mu.weight.data_ptr() == model.to_mu.weight.data_ptr()
    for whole in (small, model):
        eye = whole.without_decoder()
        assert eye.joined() is eye
        torch.testing.assert_close(eye.encode(x), model.encode(x), rtol=0, atol=0)


def test_no_noise_takes_the_mean() -> None:
    torch.manual_seed(0)
    model = ConvVAE(VAEConfig(z_dim=4, width=4))
    x = torch.rand(B, 3, 64, 64)
    out = model(x)
    torch.testing.assert_close(out.reconstruction, model.decode(out.mu))


def test_loss_is_squared_error_plus_kl() -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.rand(2, B, 3, 64, 64, generator=generator)
    mu, logvar = torch.randn(2, B, Z, generator=generator)
    loss, metrics = vae_loss(VAEOutput(y, mu, logvar), x, kl_tolerance=0.0)
    posterior, prior = Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0)
    kl = kl_divergence(posterior, prior).sum(1)
    squared = ((x - y) ** 2).reshape(B, -1).sum(1)
    torch.testing.assert_close(loss, (squared + kl).mean())
    torch.testing.assert_close(metrics["kl"], kl.mean())


def test_tolerance_holds_the_kl_at_its_floor() -> None:
    x = torch.zeros(B, 3, 64, 64)
    at_prior = VAEOutput(x, torch.zeros(B, Z), torch.zeros(B, Z))
    loss, metrics = vae_loss(at_prior, x, kl_tolerance=0.5)
    assert float(loss) == pytest.approx(0.5 * Z)
    assert float(metrics["kl"]) == 0


def standardized(width: int = 4) -> ConvVAE:
    """A V that is told of nearly white frames, with random weights."""
    torch.manual_seed(0)
    model = ConvVAE(VAEConfig(z_dim=5, width=width, standardized=True))
    model.mean.copy_(0.9 + 0.1 * torch.rand(3, 64, 64))
    model.std.fill_(0.04)
    return model.eval()


def test_a_standardised_v_sees_and_paints_around_the_mean() -> None:
    model = standardized()
    plain = ConvVAE(VAEConfig(z_dim=5, width=4))
    weights = {k: v for k, v in model.state_dict().items() if k not in ("mean", "std")}
    plain.load_state_dict(weights)
    x = (model.mean + 0.04 * torch.randn(B, 3, 64, 64)).clamp(0, 1)
    for mine, theirs in zip(model.encode(x), plain.encode((x - model.mean) / 0.04), strict=True):
        torch.testing.assert_close(mine, theirs)
    out = model(x)
    painted = model.mean + 0.04 * torch.logit(plain.decode(out.mu))
    torch.testing.assert_close(out.reconstruction, painted, rtol=0, atol=1e-5)
    assert model.decode(100 * out.mu).max() <= 1
    eye = model.without_decoder()
    torch.testing.assert_close(eye.encode(x)[0], out.mu, rtol=0, atol=0)


def test_a_standardised_v_begins_near_the_mean_and_lets_no_signal_fade() -> None:
    torch.manual_seed(0)
    model = ConvVAE(VAEConfig(z_dim=32, width=16, standardized=True))
    x, z = torch.randn(32, 3, 64, 64), torch.randn(32, 32)
    with torch.no_grad():
        mu, logvar = model.encode(x)
        assert 0.5 < float(mu.std()) < 2 and float(logvar.exp().mean()) < 0.3
        assert 0.03 < float(model.decode(z).std()) < 0.3


def test_bfloat16_keeps_the_mean_of_a_standardised_v() -> None:
    model = standardized(width=16)
    x = (model.mean + 0.04 * torch.randn(B, 3, 64, 64)).clamp(0, 1)
    exact = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(x)
    assert rough.reconstruction.dtype == torch.float32
    # bfloat16 alone rounds values near 1 to steps of 0.004
    torch.testing.assert_close(rough.reconstruction, exact.reconstruction, rtol=0, atol=1e-3)
    torch.testing.assert_close(rough.mu.float(), exact.mu, rtol=0.05, atol=0.02)


def test_likelihood_is_a_gaussian_at_its_own_best_variance() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(B, 3, 64, 64, generator=generator)
    y = x + 0.3 * torch.randn(B, 1, 64, 64, generator=generator).sign()  # every error weighs alike
    at_prior = VAEOutput(y, torch.zeros(B, Z), torch.zeros(B, Z))
    loss, metrics = vae_loss(at_prior, x, 0.5, likelihood=True)
    error = (x - y).square().mean()
    density = Normal(y, error.sqrt()).log_prob(x).flatten(1).sum(1).mean()
    constant = 0.5 * 3 * 64 * 64 * torch.log(torch.tensor(2 * torch.pi * torch.e))
    assert float(loss) == pytest.approx(float(-density - constant) + 0.5 * Z, rel=1e-4)
    assert float(metrics["reconstruction"]) == pytest.approx(float(error) * 3 * 64 * 64)


def test_likelihood_does_not_lose_a_ball_on_a_wall() -> None:
    """The errors of both are as large together; a Gaussian would heed both alike."""
    x = torch.zeros(1, 3, 64, 64)
    y = torch.full((1, 3, 64, 64), 0.01)
    y[..., 0, 0] = 0.01 * 4095**0.5
    y.requires_grad_()
    out = VAEOutput(y, torch.zeros(1, Z), torch.zeros(1, Z))
    loss, _ = vae_loss(out, x, likelihood=True)
    (slope,) = torch.autograd.grad(loss, y)
    pull = (slope * y.detach()).sum((0, 1))
    assert float(pull[0, 0] / pull.sum()) == pytest.approx(0.75, abs=0.02)


def test_files_of_former_versions_hold_the_papers_v() -> None:
    former = {"z_dim": 5, "width": 4}
    assert from_json(VAEConfig, former) == VAEConfig(5, 4)
    assert to_jsonable(VAEConfig(5, 4)) == former
    assert "mean" not in ConvVAE(VAEConfig(5, 4)).state_dict()
    cfg = from_json(VAEConfig, to_jsonable(standardized().cfg))
    loaded = filled(lambda: ConvVAE(cfg), standardized().state_dict(), Path("v"), "make it again")
    torch.testing.assert_close(loaded.mean, standardized().mean)


def test_frames_survive_the_round_trip() -> None:
    frames = torch.randint(0, 256, (B, 64, 64, 3), dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(frames)), frames)


def test_bad_size_is_named() -> None:
    with pytest.raises(UserError, match=r"z_dim is 0"):
        VAEConfig(z_dim=0)


def test_a_pixel_is_spread_as_by_a_transposed_convolution() -> None:
    B, channels, out, K = 3, 5, 4, 5
    torch.manual_seed(0)
    layer, x = FromPoint(channels, out, K, stride=2), torch.randn(B, channels, 1, 1)
    expected = torch.nn.functional.conv_transpose2d(x, layer.weight, layer.bias, stride=2)
    torch.testing.assert_close(layer(x), expected)
