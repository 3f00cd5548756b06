"""DrSAE, the discriminative recurrent sparse auto-encoder (Rolfe & LeCun, arXiv:1301.3775).

A recurrent encoder of rectified units, z_{t+1} = max(0, E x + S z_t - b) with z_0 = 0, a linear
decoder D and a linear classifier C of z_T / ||z_T||. Some units become parts, whose encoder looks
like their decoder; others become categories, which are driven by the recurrence alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparse_gan.checks import InputError, check_batch, check_dictionary, check_number
from sparse_gan.coding.dictionary import joint_energy
from sparse_gan.coding.ista import largest_eigenvalue
from sparse_gan.coding.prox import bound_columns, bound_rows, unit_columns
from sparse_gan.coding.training import Log, cosine, finite, generator_of, set_rate, shuffled
from sparse_gan.energy import LatentEnergyModel
from worldmodels._threads import on_one_core
from worldmodels.config import Config, Count, CountOrZero, Fraction, NotNegative, Positive, Size

UNLABELLED = -1
"""Label of a sample whose class is not known."""
PART_ANGLE, CATEGORY_ANGLE = 0.5, 0.7
"""Radians between E_i and D_i below which a unit is a part, and above which a category."""


@dataclass(frozen=True)
class DrSAEConfig(Config):
    """Shape and losses; the defaults are the paper's for MNIST."""

    units: Size = 400
    """N, the hidden units"""
    classes: Size = 10
    """rows of the classifier"""
    steps: Count = 11
    """T, the iterations of the encoder"""
    lam: NotNegative = 0.018
    """weight of the L1 norm of z_T"""
    class_weight: NotNegative = 0.2
    """weight of the logistic loss"""
    encoder_scale: Positive = 1.25
    """rows of E are no longer than this over T - 1, and start at this over T, or at 1 / L if that
    is less: L is the largest eigenvalue of D^T D, and ISTA diverges with steps above 2 / L"""
    classifier_bound: Positive = 5.0
    """rows of C are no longer than this"""
    sample_share: NotNegative = 0.25
    """length of the training sample in each first column of D, beside a random vector of 1"""
    bias: NotNegative = 1e-5
    """b at the start"""


class DrSAE(LatentEnergyModel):
    """The network; its energy is 1/2 ||x - D z_T||^2 + lam ||z_T||_1."""

    def __init__(self, samples: Tensor, cfg: DrSAEConfig, seed: int) -> None:
        """Start as the paper does, but for steps that are no longer than 1 / L.

        The paper's step of 1.25 / T suits its MNIST. With many units for few features L is larger:
        on 4 features, 100 units and T = 11 the step is 3.6 / L, and the codes explode.

        Args:
            samples: (B, M) training data, of which every column of D gets a little.
            cfg: shape and losses.
            seed: fixes the random part of D and C.
        """
        super().__init__()
        self.cfg = cfg
        check_batch(samples, name="samples")
        d = first_decoder(samples, cfg, generator_of(seed))
        rate = min(cfg.encoder_scale / cfg.steps, 1 / largest_eigenvalue(d))
        self.decoder = nn.Parameter(d)
        self.encoder = nn.Parameter(rate * d.T)
        self.lateral = nn.Parameter(torch.eye(cfg.units).to(d) - rate * d.T @ d)
        self.bias = nn.Parameter(torch.full_like(d[0], cfg.bias))
        # The paper leaves C's start open; at 0 all classes are equally likely.
        self.classifier = nn.Parameter(d.new_zeros(cfg.classes, cfg.units))

    @classmethod
    def from_dictionary(cls, dictionary: Tensor, lam: float, cfg: DrSAEConfig) -> DrSAE:
        """Network whose T iterations are T steps of non-negative ISTA, for a dictionary (M, N)."""
        d = check_dictionary(dictionary).detach().clone()
        check_number("lam", lam, 0)
        model = cls(d.T, cfg, seed=0)
        if d.shape[1] != cfg.units:
            raise InputError(f"the dictionary has {d.shape[1]} atoms and DrSAE {cfg.units} units")
        rate = 1 / largest_eigenvalue(d)
        with torch.no_grad():
            model.decoder.copy_(d)
            model.encoder.copy_(rate * d.T)
            model.lateral.copy_(torch.eye(cfg.units).to(d) - rate * d.T @ d)
            model.bias.fill_(lam * rate)
        return model

    def iterations(self, x: Tensor, steps: int | None = None) -> list[Tensor]:
        """z_1, ..., z_T, each (B, N), for x (B, M)."""
        check_batch(x, self.decoder.shape[0])
        drive = x @ self.encoder.T - self.bias
        codes = [functional.relu(drive)]
        for _ in range((self.cfg.steps if steps is None else steps) - 1):
            codes.append(functional.relu(torch.addmm(drive, codes[-1], self.lateral.T)))
        return codes

    def infer(self, x: Tensor) -> Tensor:
        """z_T (B, N)."""
        return self.iterations(x)[-1]

    def decode(self, z: Tensor) -> Tensor:
        """D z, (B, M)."""
        return z @ self.decoder.T

    def joint_energy(self, x: Tensor, z: Tensor) -> Tensor:
        """1/2 ||x - D z||^2 + lam ||z||_1, (B,)."""
        return joint_energy(x, z, self.decoder, self.cfg.lam)

    def energy(self, x: Tensor) -> Tensor:
        """E(x, z_T) (B,), which gradients pass through."""
        return self.joint_energy(x, self.infer(x))

    def logits(self, z: Tensor) -> Tensor:
        """C z / ||z||, (B, K); z of 0 gives 0."""
        square = z.square().sum(1, keepdim=True)
        length = torch.where(square > 0, square, torch.ones_like(square)).sqrt()
        return (z / length) @ self.classifier.T

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of x (B, M)."""
        return self.logits(self.infer(x))

    @torch.no_grad()
    def project(self) -> None:
        """Enforce the bounds on the lengths of D's columns and of E's and C's rows."""
        self.decoder.copy_(bound_columns(self.decoder, 1.0))
        bound = self.cfg.encoder_scale / max(1, self.cfg.steps - 1)
        self.encoder.copy_(bound_rows(self.encoder, bound))
        self.classifier.copy_(bound_rows(self.classifier, self.cfg.classifier_bound))

    @torch.no_grad()
    def angles(self) -> Tensor:
        """Angle (N,) in radians between each unit's row of E and its column of D."""
        cosine = functional.cosine_similarity(self.encoder, self.decoder.T, dim=1)
        return cosine.clamp(-1, 1).arccos()


def first_decoder(samples: Tensor, cfg: DrSAEConfig, generator: torch.Generator) -> Tensor:
    """Columns of length 1 (M, N): a random direction plus a quarter of a training sample."""
    m = samples.shape[1]
    random = torch.randn(m, cfg.units, generator=generator, dtype=torch.float64).to(samples)
    index = torch.randint(len(samples), (cfg.units,), generator=generator).to(samples.device)
    picked = samples[index].T
    picked = picked / picked.norm(dim=0, keepdim=True).clamp_min(torch.finfo(samples.dtype).eps)
    return unit_columns(unit_columns(random) + cfg.sample_share * picked)


@dataclass(frozen=True)
class DrSAETrainConfig(Config):
    """How DrSAE is trained: first without labels, then everything at once."""

    unsupervised_epochs: CountOrZero = 30
    """passes over all data with the energy alone"""
    epochs: CountOrZero = 100
    """passes with the classification loss as well"""
    batch_size: Size = 10
    """samples a step"""
    learning_rate: Positive = 5e-3
    """of plain gradient descent, falling along a cosine; on the mean over the batch"""
    momentum: Fraction = 0.0
    """of the gradient descent; the paper has none"""
    project_every: Count = 5
    """steps between two projections"""


@on_one_core
def train_drsae(
    model: DrSAE,
    x: Tensor,
    labels: Tensor | None,
    cfg: DrSAETrainConfig,
    seed: int,
    log: Log | None = None,
) -> DrSAE:
    """Train in place and return the model.

    Args:
        model: a fresh DrSAE.
        x: (B, M) data, rows of length 1.
        labels: (B,) int64 classes, `UNLABELLED` where the class is not known; None: no second
            phase.
        cfg: the configuration.
        seed: fixes the order of the samples.
        log: receives ``phase, epoch, loss, energy, accuracy``.

    Raises:
        InputError: labels of another number, or outside the classifier's classes.
        UserError: a loss that is not finite.
    """
    if labels is not None:
        _check_labels(labels, len(x), model.cfg.classes)
    generator = generator_of(seed)
    phases = [("unsupervised", cfg.unsupervised_epochs, None), ("supervised", cfg.epochs, labels)]
    for phase, epochs, targets in phases[: 1 if labels is None else 2]:
        optimiser = torch.optim.SGD(model.parameters(), cfg.learning_rate, cfg.momentum)
        step, steps = 0, epochs * -(-len(x) // cfg.batch_size)
        for epoch in range(epochs):
            totals = {"loss": 0.0, "energy": 0.0, "accuracy": 0.0}
            for picked in shuffled(len(x), cfg.batch_size, generator):
                index = picked.to(x.device)
                set_rate(optimiser, cfg.learning_rate * cosine(step, steps))
                loss, metrics = drsae_loss(model, x[index], targets, index)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                step += 1
                if step % cfg.project_every == 0 or step == steps:
                    model.project()
                totals["loss"] += finite(loss, "DrSAE", step) * len(index) / len(x)
                for name, value in metrics.items():
                    totals[name] += float(value) * len(index) / len(x)
            if log is not None:
                log(phase=phase, epoch=epoch + 1, **totals)
    return model


def drsae_loss(
    model: DrSAE, x: Tensor, labels: Tensor | None, index: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean energy of x (B, M), plus the weighted logistic loss of those that have a label.

    Args:
        model: the network.
        x: (B, M) the batch.
        labels: (all samples,) classes or `UNLABELLED`; None leaves the second term out.
        index: (B,) positions of the batch among all samples.
    """
    z = model.infer(x)
    energy = model.joint_energy(x, z).mean()
    metrics = {"energy": energy.detach()}
    if labels is None:
        return energy, metrics
    target = labels[index]
    known = target != UNLABELLED
    logits = model.logits(z)[known]
    logistic = functional.cross_entropy(logits, target[known], reduction="sum") / len(x)
    right = (logits.argmax(1) == target[known]).sum() / known.sum().clamp_min(1)
    metrics["accuracy"] = right.detach()
    return energy + model.cfg.class_weight * logistic, metrics


def _check_labels(labels: Tensor, count: int, classes: int) -> None:
    if labels.shape != (count,):
        raise InputError(f"labels have shape {tuple(labels.shape)}; there are {count} samples")
    low, high = int(labels.min()), int(labels.max())
    if low < UNLABELLED or high >= classes:
        raise InputError(
            f"labels reach from {low} to {high}; allowed are 0 to {classes - 1}, and "
            f"{UNLABELLED} for unlabelled"
        )


__all__ = [
    "CATEGORY_ANGLE",
    "PART_ANGLE",
    "UNLABELLED",
    "DrSAE",
    "DrSAEConfig",
    "DrSAETrainConfig",
    "drsae_loss",
    "first_decoder",
    "train_drsae",
]
