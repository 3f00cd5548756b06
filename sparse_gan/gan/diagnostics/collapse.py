"""Mode collapse: a GAN on separated Gaussians whose G outruns F, and the same with F kept up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sparse_gan.gan.diagnostics.toys import ModeFigures, Toy, mixture, mode_figures
from sparse_gan.gan.losses import LossConfig
from sparse_gan.gan.networks import MLPEnergy, MLPGenerator
from sparse_gan.gan.train import GAN, GANTrainConfig
from worldmodels.config import Config, Count, NotNegative, Rate, Size
from worldmodels.runs import derive_seed

Form = Literal["plain", "equal", "cured"]
FORMS: tuple[Form, ...] = ("plain", "equal", "cured")
"""F slower than G; as fast as G; as fast as G and with its slope penalised."""


@dataclass(frozen=True)
class CollapseConfig(Config):
    """Size of the experiment; all forms have the same networks, steps and batches."""

    toy: Toy = "ring"
    """ring of 8 or grid of 25"""
    steps: Count = 5000
    """of G"""
    batch: Size = 128
    """samples a step"""
    width: Size = 128
    """units of both hidden layers of both networks"""
    rate: Rate = 1e-3
    """Adam's, of G, and of F but in the plain form"""
    slow_rate: Rate = 1e-4
    """Adam's, of F in the plain form"""
    penalty: NotNegative = 0.1
    """weight of R1 and of R2 in the cured form"""
    samples: Count = 2500
    """drawn to be counted"""


def run(cfg: CollapseConfig, form: Form, seed: int) -> tuple[ModeFigures, Tensor]:
    """Train once and count modes.

    In the plain form, with the learning rates of Metz et al. 2017 (appendix A), G finds the lowest
    point of F sooner than F can rise there, and moves from mode to mode. In the cured form F learns
    as fast as G (Heusel et al. 2017) and its slope at real and at fake samples is penalised
    (Mescheder et al. 2018). The equal form has the rates of the cured one and no penalty, which
    tells the two remedies apart. Loss, networks, steps and batches are the same in all.

    Returns:
        The figures and the samples (B, 2).
    """
    truth = mixture(cfg.toy)
    torch.manual_seed(derive_seed(seed, "collapse") % 2**63)
    weight = cfg.penalty if form == "cured" else 0.0
    loss = LossConfig("log", zero_penalty=weight, zero_penalty_fake=weight)
    how = GANTrainConfig(
        loss,
        cfg.steps,
        generator_rate=cfg.rate,
        energy_rate=cfg.slow_rate if form == "plain" else cfg.rate,
        ema=0.0,
    )
    gan = GAN(how, MLPGenerator(2, cfg.width), MLPEnergy(cfg.width), seed)
    batches = truth.batches(cfg.batch, seed)
    for _ in range(cfg.steps):
        gan.train_step(batches)
    samples = gan.sample(cfg.samples, seed)
    return mode_figures(samples, truth), samples
