"""Compiled kernels against the plain torch formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodels.dream import kernels
from worldmodels.memory.mdn_rnn import lstm_cell
from worldmodels.memory.mixture import mixture_from_noise, mixture_mean, mixture_variance

R, N, H, Z, K = 12, 4, 24, 8, 5
OUT = 6  # outputs for the reward, and one for termination
FLOOR = 0.05
CEILING = 1.0
DTYPES = [torch.float32, torch.bfloat16]


def as_array(x: Tensor) -> NDArray[Any]:
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_lstm_update_equals_the_cell(dtype: torch.dtype, scale: float) -> None:
    gates, bias, c = (scale * randn(0, R, 4 * H)).to(dtype), randn(1, 4 * H), 2 * randn(2, R, H)
    expected = lstm_cell(gates.float() + bias, c)
    h = torch.empty(R, H)
    kernels.lstm_update(as_array(gates), bias.numpy(), c.numpy(), h.numpy())
    torch.testing.assert_close(c, expected.c, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(h, expected.h, atol=1e-6, rtol=1e-5)


def heads_of(parts: list[Tensor], ends: Tensor) -> Tensor:
    """Logits, means and log sigmas (M, R, Z, K) in the kernels' layout (M, R, 3KZ + OUT)."""
    return torch.cat([*(x.transpose(-1, -2).flatten(-2) for x in parts), ends], -1)


def blank(rows: int, outputs: int = 2) -> tuple[NDArray[np.float32], ...]:
    """Arrays to overwrite: z, reward and termination."""
    shapes: tuple[tuple[int, ...], ...] = (rows, Z), (rows, outputs - 1), (rows,)
    return tuple(np.empty(shape, np.float32) for shape in shapes)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tau", [0.0, 0.7, 1.3])
@pytest.mark.parametrize("members", [1, 3])
def test_samples_equal_the_torch_formula_for_the_same_noise(
    dtype: torch.dtype, tau: float, members: int
) -> None:
    parts = [randn(i, members, R, Z, K).to(dtype).float() for i in range(3)]
    ends = randn(4, members, R, OUT).to(dtype).float()
    bias = randn(5, members, 3 * K * Z + OUT)
    biased = heads_of(parts, ends) + bias[:, None]
    uniform, normal = (
        torch.rand(N, Z + 3, generator=torch.Generator().manual_seed(6)),
        randn(7, N, Z),
    )
    z, *out = blank(R, OUT)
    heads = as_array(heads_of(parts, ends).to(dtype))
    kernels.sample_latents(
        heads, bias.numpy(), K, tau, FLOOR, CEILING, uniform.numpy(), normal.numpy(), z, *out
    )
    u, n = uniform.repeat(R // N, 1), normal.repeat(R // N, 1)
    chosen = (u[:, Z + 2] * members).long()
    row = biased[chosen, torch.arange(R)]
    logit, mu, raw = row[:, :-OUT].view(R, 3, K, Z).transpose(-1, -2).unbind(1)
    log_sigma = torch.log(raw.exp().clamp_max(CEILING) + FLOOR)
    expected = mixture_from_noise(logit.log_softmax(-1), mu, log_sigma, u[:, :Z], n, tau)
    np.testing.assert_allclose(z, expected, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(np.column_stack(out), row[:, -OUT:], atol=1e-6)


def test_samples_have_the_mixtures_moments() -> None:
    count = 100_000
    log_pi, mu, raw = (randn(10 + i, 1, 1, Z, K) for i in range(3))
    heads = heads_of([log_pi, mu, raw], torch.zeros(1, 1, 2)).expand(1, count, -1).contiguous()
    rng = np.random.default_rng(0)
    uniform = rng.random((count, Z + 3), dtype=np.float32)
    normal = rng.standard_normal((count, Z), np.float32)
    z, *ends = blank(count)
    bias = np.zeros((1, heads.shape[2]), np.float32)
    kernels.sample_latents(heads.numpy(), bias, K, 1.0, FLOOR, CEILING, uniform, normal, z, *ends)
    log_pi = log_pi.log_softmax(-1)
    mean = mixture_mean(log_pi, mu)[0, 0].numpy()
    variance = mixture_variance(log_pi, mu, torch.log(raw.exp().clamp_max(CEILING) + FLOOR))[
        0, 0
    ].numpy()
    assert (np.abs(z.mean(0) - mean) < 5 * np.sqrt(variance / count)).all()
    np.testing.assert_allclose(z.var(0), variance, rtol=0.05)


def test_mixture_means_equal_the_torch_formula() -> None:
    log_pi, mu, raw = (randn(i, 2, R, Z, K) for i in range(3))
    heads = heads_of([log_pi, mu, raw], torch.zeros(2, R, 2))
    bias, out = randn(4, 2, heads.shape[2]), np.empty((2, R, Z), np.float32)
    kernels.mixture_means(heads.numpy(), bias.numpy(), K, out)
    biased = (heads + bias[:, None])[..., :-2].view(2, R, 3, K, Z).transpose(-1, -2)
    expected = mixture_mean(biased[:, :, 0].log_softmax(-1), biased[:, :, 1])
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_sampling_survives_extreme_outputs() -> None:
    log_pi, mu, raw = 1e4 * randn(0, 1, R, Z, K), randn(1, 1, R, Z, K), randn(2, 1, R, Z, K) - 1e3
    heads = heads_of([log_pi, mu, raw], torch.zeros(1, R, 2))
    uniform, normal = np.full((N, Z + 3), 0.5, np.float32), np.ones((N, Z), np.float32)
    z, *ends = blank(R)
    bias = np.zeros((1, heads.shape[2]), np.float32)
    kernels.sample_latents(heads.numpy(), bias, K, 1.0, FLOOR, CEILING, uniform, normal, z, *ends)
    best = mu.gather(-1, log_pi.argmax(-1, keepdim=True)).squeeze(-1)[0]
    np.testing.assert_allclose(z, best + FLOOR, atol=1e-6)
