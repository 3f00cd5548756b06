"""V: the convolutional variational auto-encoder of the World Models paper (appendix A.1)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from worldmodels.config import Channels, Config, Size
from worldmodels.protocols import UserError

FRAME_SIZE = 64
"""Height and width of the frames that V sees, in pixels."""
QUANTISATION = (1 / 255) ** 2 / 12
"""Variance that rounding to whole numbers of 255 gives a value in [0, 1]."""


@dataclass(frozen=True)
class VAEConfig(Config):
    """Shape of V."""

    z_dim: Size = 32
    """size of the latent z"""
    width: Channels = 32
    """channels of the first convolution; 32 is the paper's, the others are multiples of it"""
    standardized: bool = field(default=False, metadata={"omit_default": True})
    """see and paint frames relative to the mean frame, in units of their deviation from it, with a
    likelihood whose variance fits itself; the paper's V (False) is blind to small changes"""


class VAEOutput(NamedTuple):
    """V's output for a batch of frames."""

    reconstruction: Tensor
    """(B, 3, 64, 64) in [0, 1]; standardised, it may leave that range"""
    mu: Tensor
    """(B, Z) posterior mean"""
    logvar: Tensor
    """(B, Z) log of the posterior variance"""


class FromPoint(nn.ConvTranspose2d):
    """Transposed convolution of a single pixel, as a matrix product: several times as fast."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Spread (B, I, 1, 1) to (B, O, K, K)."""
        assert self.bias is not None and x.shape[2:] == (1, 1)
        out: Tensor = x.flatten(1) @ self.weight.flatten(1)
        spread: Tensor = out.unflatten(1, self.weight.shape[1:]) + self.bias[:, None, None]
        return spread


class Spread(nn.Module):
    """Latents (B, Z) to (B, C, K, K) by one matrix: the decoder's first two layers, joined."""

    def __init__(self, z_dim: int, channels: int, size: int) -> None:
        """Allocate the weight (Z, C, K, K) and the bias (C, K, K)."""
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(z_dim, channels, size, size))
        self.bias = nn.Parameter(torch.zeros(channels, size, size))

    @classmethod
    def of(cls, linear: nn.Linear, spread: FromPoint) -> Spread:
        """The product of two layers, computed in float64."""
        assert spread.bias is not None
        joined = cls(linear.in_features, *spread.weight.shape[1:3])
        weight = spread.weight.detach().double().flatten(1)
        shape = joined.bias.shape
        with torch.no_grad():
            joined.weight.copy_((linear.weight.double().T @ weight).unflatten(1, shape))
            bias = (linear.bias.double() @ weight).unflatten(0, shape)
            joined.bias.copy_(bias + spread.bias.double()[:, None, None])
        return joined

    def forward(self, z: Tensor) -> Tensor:
        """Spread z (B, Z) to (B, C, K, K)."""
        out = torch.addmm(self.bias.flatten(), z, self.weight.flatten(1))
        spread: Tensor = out.unflatten(1, self.bias.shape)
        return spread


def _draw(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, std: float, bias: float = 0.0) -> None:
    """Normal weights of this deviation, and one bias for all."""
    assert layer.bias is not None
    nn.init.normal_(layer.weight, std=std)
    nn.init.constant_(layer.bias, bias)


class ConvVAE(nn.Module):
    """The paper's ConvVAE; 4,348,547 parameters at ``z_dim=32`` and ``width=32``.

    Four stride-2 convolutions (kernel 4) take 64x64x3 to 2x2x256; four stride-2 transposed
    convolutions (kernels 5, 5, 6, 6) bring a latent of 1x1x1024 back to 64x64x3.

    Standardised, it sees ``(x - mean) / std`` and paints ``mean + std * output``, which has a slope
    everywhere, where a sigmoid has none near white and black.
    """

    mean: Tensor
    """(3, 64, 64) mean frame of the training, in [0, 1]; only standardised"""
    std: Tensor
    """() one standard deviation around it for all pixels; only standardised"""

    def __init__(self, cfg: VAEConfig, decoder: bool = True, joined: bool = False) -> None:
        """Build V with torch's default initialisation, or `_initialise`'s (global generator).

        Without the decoder, five sixths of the parameters, it still has all that a policy needs.
        Joined, it has what `joined` gives: a quarter of the parameters.
        """
        super().__init__()
        self.cfg = cfg
        w, features = cfg.width, 32 * cfg.width
        if cfg.standardized:
            self.register_buffer("mean", torch.zeros(3, FRAME_SIZE, FRAME_SIZE))
            self.register_buffer("std", torch.ones(()))
        self.encoder = nn.Sequential()
        for channels, out in pairwise((3, w, 2 * w, 4 * w, 8 * w)):
            self.encoder.extend((nn.Conv2d(channels, out, 4, stride=2), nn.ReLU(inplace=True)))
        self.to_mu = nn.Linear(features, cfg.z_dim)
        self.to_logvar = nn.Linear(features, cfg.z_dim)
        self.decoder: nn.Sequential | None = None
        if not decoder:
            return
        self.from_z = nn.Identity() if joined else nn.Linear(cfg.z_dim, features)
        self.decoder = nn.Sequential(
            Spread(cfg.z_dim, 4 * w, 5) if joined else FromPoint(features, 4 * w, 5, stride=2),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(4 * w, 2 * w, 5, stride=2),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(2 * w, w, 6, stride=2),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(w, 3, 6, stride=2),
        )
        if cfg.standardized and not joined:
            self._initialise(self.decoder)

    def _initialise(self, decoder: nn.Sequential) -> None:
        """Draw weights that keep the scale of what passes through the ReLUs (He et al. 2015).

        With torch's own it fades from layer to layer, and small things take several times as long.
        V begins near the mean frame, with noise in z that is small beside z.
        """
        for layer in (*self.encoder, *decoder):
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                # inputs of a channel, along one side, that reach an output
                reach: float = layer.kernel_size[0]
                if isinstance(layer, nn.ConvTranspose2d):
                    reach = 1 if isinstance(layer, FromPoint) else reach / layer.stride[0]
                std = math.sqrt(2 / (layer.in_channels * reach**2))
                _draw(layer, 0.1 * std if layer is decoder[-1] else std)
        _draw(self.to_mu, 1 / math.sqrt(self.to_mu.in_features))
        _draw(self.to_logvar, 0.1 / math.sqrt(self.to_logvar.in_features), bias=-2.0)
        assert isinstance(self.from_z, nn.Linear)
        _draw(self.from_z, 1 / math.sqrt(self.cfg.z_dim))

    def without_decoder(self) -> ConvVAE:
        """The same V with shared weights, without the decoder."""
        return self._sharing(self.state_dict(), decoder=False)

    def joined(self) -> ConvVAE:
        """The same V with a quarter of the weights; the others are shared.

        Between the decoder's first two layers is no nonlinearity: z to 1024 numbers to 5x5x128 is
        one matrix of 32 x 3200. It is equal up to rounding, and not meant to be trained.
        """
        if self.decoder is None or self.is_joined:
            return self
        assert isinstance(self.from_z, nn.Linear)
        first = self.decoder[0]
        assert isinstance(first, FromPoint)
        spread = Spread.of(self.from_z, first)
        mine = self.state_dict() | spread.state_dict(prefix="decoder.0.")
        return self._sharing(mine, joined=True)

    def _sharing(self, weights: Mapping[str, Tensor], **shape: bool) -> ConvVAE:
        """A V of another shape with those of the weights that it has."""
        with torch.device("meta"):
            other = ConvVAE(self.cfg, **shape)
        other.load_state_dict({name: weights[name] for name in other.state_dict()}, assign=True)
        return other.train(self.training)

    @property
    def is_joined(self) -> bool:
        """Whether it is of `joined`."""
        return self.decoder is not None and isinstance(self.decoder[0], Spread)

    def check_decoder(self) -> nn.Sequential:
        """The decoder; raises a UserError if V has none."""
        if self.decoder is None:
            raise UserError(
                "this V was stored without its decoder: it can act but not show what it dreams; "
                "take the agent that it came from"
            )
        return self.decoder

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (B, 3, 64, 64) in [0, 1] to the posterior's (mu, logvar), each (B, Z)."""
        assert x.shape[1:] == (3, FRAME_SIZE, FRAME_SIZE), (
            f"V sees (B, 3, 64, 64), got {tuple(x.shape)}"
        )
        if self.cfg.standardized:
            x = (x - self.mean) / self.std
        features = self.encoder(x).flatten(1)
        return self.to_mu(features), self.to_logvar(features)

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, Z) to frames (B, 3, 64, 64) in [0, 1]; a UserError without a decoder."""
        return self._paint(z).clamp(0, 1) if self.cfg.standardized else self._paint(z)

    def _paint(self, z: Tensor) -> Tensor:
        """Latents (B, Z) to frames (B, 3, 64, 64); standardised, float32 and not yet clamped."""
        decoder, spread = self.check_decoder(), self.from_z(z)
        out: Tensor = decoder(spread if self.is_joined else spread[:, :, None, None])
        if self.cfg.standardized:
            return self.mean + self.std * out.float()  # bfloat16 has no room for mean and change
        return torch.sigmoid(out)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> VAEOutput:
        """Encode x (B, 3, 64, 64) in [0, 1], sample z and decode.

        ``z = mu + exp(logvar / 2) * noise`` with standard normal noise (B, Z); None takes the mean.
        """
        mu, logvar = self.encode(x)
        z = mu if noise is None else mu + torch.exp(0.5 * logvar) * noise
        return VAEOutput(self._paint(z), mu, logvar)


def vae_sums(out: VAEOutput, x: Tensor, kl_tolerance: float = 0.5) -> Tensor:
    """What `loss_of_sums` needs of some frames x (B, 3, 64, 64) in [0, 1], added up: (4,) float32.

    The squared errors of all values and their squares; the KL divergences, and these with the
    tolerance of ``kl_tolerance`` nats per latent dimension.
    """
    squares = (out.reconstruction.float() - x.float()).square()
    mu, logvar = out.mu.float(), out.logvar.float()
    kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(1)
    tolerated = kl.clamp_min(kl_tolerance * mu.shape[1])
    return torch.stack((squares.sum(), squares.square().sum(), kl.sum(), tolerated.sum()))


def loss_of_sums(
    sums: Tensor, frames: int, likelihood: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """Squared error summed over a frame's pixels, plus the KL divergence with a tolerance.

    ``sum (x - x')^2 + max(KL, kl_tolerance * Z)`` per frame, averaged over the batch: the loss of
    the paper's own code (free bits over the whole latent, not per dimension). The sums (4,) are
    those of `vae_sums` over all frames of the batch.

    With ``likelihood`` the first term is a negative log-likelihood at the batch's best scale,
    ``D / p * log(mean |error|^p)`` for D values a frame, so that small changes weigh as much as
    large ones (Rybkin et al. 2021, arXiv:2006.13202). It is the mean of a Gaussian's (p = 2) and
    one of p = 4: a ball of two pixels is not lost among thousands that are nearly right.
    """
    reconstruction, fourth, kl, tolerated = (sums / frames).unbind()
    fit, values = reconstruction, 3 * FRAME_SIZE**2
    if likelihood:
        gaussian = torch.log(reconstruction / values + QUANTISATION) / 2
        steep = torch.log(fourth / values + QUANTISATION**2) / 4
        fit = values * (gaussian + steep) / 2
    loss = fit + tolerated
    metrics = {"loss": loss, "reconstruction": reconstruction, "kl": kl}
    return loss, {name: value.detach() for name, value in metrics.items()}


def vae_loss(
    out: VAEOutput, x: Tensor, kl_tolerance: float = 0.5, likelihood: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """`loss_of_sums` of a batch x (B, 3, 64, 64) in [0, 1]."""
    return loss_of_sums(vae_sums(out, x, kl_tolerance), len(x), likelihood)


def to_float(frames: Tensor) -> Tensor:
    """uint8 frames (B, 64, 64, 3) to float32 (B, 3, 64, 64) in [0, 1], channels-last in memory."""
    return frames.permute(0, 3, 1, 2).float().div_(255.0)


def to_uint8(frames: Tensor) -> Tensor:
    """Frames (B, 3, 64, 64) in [0, 1] to uint8 (B, 64, 64, 3)."""
    return (frames.permute(0, 2, 3, 1).float().clamp(0, 1) * 255).round().to(torch.uint8)
