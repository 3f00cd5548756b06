"""The one interface of both halves: an energy that is low for what is real, and inference under it.

Sparse coding and generative adversarial networks differ in how they keep the energy from being low
everywhere. A *regularised* model limits how much of the space its latent can explain, so pushing
down on data is enough; a *contrastive* one is pushed up wherever else it is shown.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldmodels.protocols import UserError


class EnergyModel(nn.Module, ABC):
    """F(x): low for what is real or compatible, high for everything else."""

    @abstractmethod
    def energy(self, x: Tensor) -> Tensor:
        """Energy (B,) of a batch (B, ...), any number per sample; lower is more compatible."""

    @abstractmethod
    def infer(self, x: Tensor) -> Tensor:
        """What the model finds by minimising its energy, given a batch (B, ...).

        A model with a latent returns the z of least energy for each x; one without returns the
        samples that gradient descent on the energy reaches from x (`descend`).
        """


class LatentEnergyModel(EnergyModel):
    """F(x) = min_z E(x, z), with a z whose capacity is limited, by sparsity for one."""

    @abstractmethod
    def joint_energy(self, x: Tensor, z: Tensor) -> Tensor:
        """E(x, z) (B,) for observations (B, ...) and latents (B, ...)."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """What latents (B, ...) stand for, in the space of x."""

    def energy(self, x: Tensor) -> Tensor:
        """F(x) (B,) at the inferred z.

        At a minimum dE/dz vanishes, so the gradients with respect to x and to the parameters are
        those of E at a fixed z: nothing is backpropagated through the inference.
        """
        with torch.no_grad():
            z = self.infer(x)
        return self.joint_energy(x, z)


def regularised_loss(model: EnergyModel, x: Tensor) -> Tensor:
    """Mean energy of data (B, ...): all that a model with a limited latent needs."""
    return model.energy(x).mean()


def contrastive_loss(low: Tensor, high: Tensor, margin: float | None = None) -> Tensor:
    """Push the energy down on data and up on contrastive samples.

    With a margin m, ``F(y) + max(0, m - F(y'))`` (Zhao et al. 2017, equation 1); without,
    ``softplus(F(y)) + softplus(-F(y'))``, which is binary cross-entropy for the logit -F.

    Args:
        low: (B,) energies of data.
        high: (B',) energies of contrastive samples.
        margin: energy above which a contrastive sample is left alone.

    Raises:
        UserError: a margin that is not above 0.
    """
    if margin is None:
        return functional.softplus(low).mean() + functional.softplus(-high).mean()
    if not margin > 0:
        raise UserError(f"margin is {margin}; it must be above 0")
    return low.mean() + functional.relu(margin - high).mean()


def descend(model: EnergyModel, x: Tensor, steps: int, rate: float) -> Tensor:
    """Walk downhill in the space of samples, ``x <- x - rate * dF/dx``, and return where it ends.

    Args:
        model: its parameters are left as they are.
        x: (B, ...) where to start.
        steps: number of gradient steps.
        rate: step size, in units of x squared per unit of energy.
    """
    x = x.detach()
    for _ in range(steps):
        with torch.enable_grad():
            x.requires_grad_(True)
            (slope,) = torch.autograd.grad(model.energy(x).sum(), x)
        x = (x - rate * slope).detach()
    return x
