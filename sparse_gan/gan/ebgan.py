"""EBGAN (Zhao et al. 2017): the energy of a picture is how badly an auto-encoder repaints it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparse_gan.energy import EnergyModel, descend
from sparse_gan.gan.networks import SIZES, DCGANConfig, DCGANGenerator, check_pictures, trunk


class AutoencoderEnergy(EnergyModel):
    """``F(y) = ||Dec(Enc(y)) - y||``, 0 or more by itself.

    The encoder is DCGAN's discriminator without its last layer, the decoder DCGAN's generator.
    """

    def __init__(self, cfg: DCGANConfig, code: int = 64) -> None:
        """Build it; weights come from the global torch generator.

        Args:
            cfg: shapes; ``cfg.nonnegative`` changes nothing.
            code: N, size of the code between encoder and decoder.
        """
        super().__init__()
        self.cfg = cfg
        first, stages = SIZES[cfg.size]
        width = cfg.energy_width * 2 ** (stages - 1)
        self.encoder = nn.Sequential(trunk(cfg), nn.Conv2d(width, code, first), nn.Flatten())
        mirrored = DCGANConfig(cfg.size, cfg.channels, code, cfg.energy_width, cfg.energy_width)
        self.decoder = DCGANGenerator(mirrored)

    def features(self, x: Tensor) -> Tensor:
        """Code (B, N) of pictures (B, C, H, W): what the pulling-away term keeps apart."""
        check_pictures(x, self.cfg)
        code: Tensor = self.encoder(x)
        return code

    def energy(self, x: Tensor) -> Tensor:
        """Length (B,) of what repainting (B, C, H, W) in [-1, 1] leaves over."""
        return self.energy_and_features(x)[0]

    def energy_and_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Energy (B,) and code (B, N), the encoder running once."""
        code = self.features(x)
        left = (self.decoder(code).float() - x.float()).flatten(1)
        return (left.square().sum(1) + 1e-12).sqrt(), code

    @torch.no_grad()
    def repaint(self, x: Tensor) -> Tensor:
        """Pictures (B, C, H, W) through encoder and decoder."""
        pictures: Tensor = self.decoder(self.features(x))
        return pictures

    def infer(self, x: Tensor, steps: int = 50, rate: float = 0.1) -> Tensor:
        """Pictures that descent on the energy reaches from x (B, C, H, W)."""
        return descend(self, x, steps, rate)
