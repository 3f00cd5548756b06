"""Convolutional sparse coding: one dictionary for the whole image, and an encoder that learns it.

E(x, z) = 1/2 ||x - sum_k d_k * z_k||^2 + lam ||z||_1 (Zeiler et al. 2010; Kavukcuoglu et al. 2010);
the encoder is LISTA with convolutions (Sreter & Giryes, arXiv:1711.00328). Images are (B, C, H, W),
codes (B, K, H - S + 1, W - S + 1) for filters of S x S pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparse_gan.checks import InputError, check_finite, check_images, check_number
from sparse_gan.coding.ista import MARGIN, Lasso, SolverConfig, minimise, unfinished
from sparse_gan.coding.prox import soft_threshold
from sparse_gan.coding.training import Log, cosine, finite, generator_of, set_rate, shuffled
from sparse_gan.energy import LatentEnergyModel
from worldmodels._threads import with_fastest_threads
from worldmodels.config import Config, Count, NotNegative, PositiveFraction, Size

CHUNK_IMAGES = 64
"""Images coded at a time."""
DENSE_VALUES = 600
"""Pixels times channels up to which the step size comes from a dense matrix."""


def unit_filters(filters: Tensor) -> Tensor:
    """Scale filters (K, C, S, S) to length 1; a filter of zeros is an `InputError`."""
    norm = filters.flatten(1).norm(dim=1)
    if bool((norm == 0).any()):
        raise InputError(f"filter {int((norm == 0).nonzero()[0])} is all 0; it needs a length")
    unit: Tensor = filters / norm[:, None, None, None]
    return unit


def synthesise(z: Tensor, filters: Tensor) -> Tensor:
    """Images sum_k d_k * z_k of codes."""
    return functional.conv_transpose2d(z, filters)


def analyse(x: Tensor, filters: Tensor) -> Tensor:
    """The transpose of `synthesise`: correlations of images with every filter."""
    return functional.conv2d(x, filters)


@torch.no_grad()
def convolution_bound(filters: Tensor, image: tuple[int, int]) -> float:
    """Upper bound on the largest eigenvalue of code -> image -> code.

    For images of up to `DENSE_VALUES` it is the eigenvalue itself. For larger ones it is the
    largest over the frequencies of a torus of the image's size. Codes end a filter short of its
    edge, so nothing wraps around, and the convolution is the torus's on a part of the codes: the
    bound holds. It is 2% high for filters of 8 on images of 48 pixels. A thousandth is added for
    rounding.

    Args:
        filters: (K, C, S, S), not all 0.
        image: height and width.
    """
    d = filters.double()
    k, c = d.shape[:2]
    values = c * image[0] * image[1]
    if values <= DENSE_VALUES:
        units = torch.eye(values).to(d).reshape(values, c, *image)
        square = synthesise(analyse(units, d), d).reshape(values, values)
    else:
        symbol = torch.fft.fft2(d, image).permute(2, 3, 0, 1)  # (H, W, K, C)
        square = symbol @ symbol.mH if k <= c else symbol.mH @ symbol
    return float(torch.linalg.eigvalsh(square).max()) * MARGIN


@dataclass(frozen=True)
class ConvLasso:
    """The energy of every image, for `minimise`."""

    x: Tensor
    """(B, C, H, W)"""
    filters: Tensor
    """(K, C, S, S)"""
    lam: float
    """weight of the L1 norm"""
    known_lipschitz: float | None = None
    """largest eigenvalue of the convolution's square, if it was computed before"""

    def __post_init__(self) -> None:
        """Refuse what cannot be coded."""
        check_finite(self.filters, "filters")
        check_images(self.x, self.filters.shape[1], self.filters.shape[-1])
        check_number("lam", self.lam, 0)

    @cached_property
    def lipschitz(self) -> float:
        """A bound on the largest eigenvalue of code -> image -> code; see `convolution_bound`."""
        if self.known_lipschitz is not None:
            return self.known_lipschitz
        return convolution_bound(self.filters, (self.x.shape[2], self.x.shape[3]))

    def zeros(self) -> Tensor:
        """Codes of 0."""
        size = self.filters.shape[-1] - 1
        h, w = self.x.shape[2] - size, self.x.shape[3] - size
        return self.x.new_zeros(self.x.shape[0], self.filters.shape[0], h, w)

    def smooth(self, z: Tensor) -> Tensor:
        """Half the squared error (B,)."""
        return 0.5 * (self.x - synthesise(z, self.filters)).square().flatten(1).sum(1)

    def gradient(self, z: Tensor) -> Tensor:
        """Correlations of the error with every filter, of z's shape."""
        return analyse(synthesise(z, self.filters) - self.x, self.filters)

    def penalty(self, z: Tensor) -> Tensor:
        """Weighted L1 norm (B,)."""
        return self.lam * z.abs().flatten(1).sum(1)

    def prox(self, v: Tensor, step: Tensor | float) -> Tensor:
        """Soft threshold at lam * step."""
        return soft_threshold(v, self.lam * step)

    def gap(self, z: Tensor) -> Tensor:
        """Duality gap (B,) over ||x||^2."""
        residual = self.x - synthesise(z, self.filters)
        worst = analyse(residual, self.filters).abs().flatten(1).amax(1)
        flat = Lasso.__new__(Lasso)
        flat.__dict__.update(x=self.x.flatten(1), lam=self.lam)
        return flat.gap_of(z.flatten(1), residual.flatten(1), worst)

    def rows(self, index: Tensor) -> ConvLasso:
        """Return the problem of some of the images."""
        return replace(self, x=self.x[index], known_lipschitz=self.lipschitz)


@dataclass(frozen=True)
class ConvConfig(Config):
    """Shape, energy and training."""

    filters: Size = 32
    """K"""
    size: Size = 8
    """S, their side in pixels"""
    lam: NotNegative = 0.1
    """weight of the L1 norm"""
    layers: Count = 3
    """steps of the encoder"""
    coding_steps: Count = 30
    """iterations of FISTA for each batch"""
    epochs: Count = 5
    """passes over the data"""
    batch_size: Size = 16
    """images a step"""
    learning_rate: PositiveFraction = 2e-3
    """Adam's, for filters and encoder, falling along a cosine"""


class ConvSparseCoding(LatentEnergyModel):
    """Filters, FISTA over them, and an unrolled encoder that is ISTA before it is trained."""

    def __init__(self, filters: Tensor, cfg: ConvConfig, image: tuple[int, int]) -> None:
        """Start from filters (K, C, S, S); ``image`` is the height and width for the step size."""
        super().__init__()
        self.cfg = cfg
        d = unit_filters(check_finite(filters.detach(), "filters"))
        self.filters = nn.Parameter(d)
        rate = 1 / ConvLasso(d.new_zeros(1, d.shape[1], *image), d, cfg.lam).lipschitz
        self.encoder = nn.ModuleList(_ConvLayer(d, rate, cfg.lam) for _ in range(cfg.layers))

    def encode(self, x: Tensor) -> Tensor:
        """Codes of images after the encoder's layers."""
        z = ConvLasso(x, self.filters, self.cfg.lam).zeros()
        for layer in self.encoder:
            z = layer(x, z)
        return z

    @torch.no_grad()
    def infer(self, x: Tensor, solver: SolverConfig | None = None) -> Tensor:
        """Codes of least energy, by FISTA."""
        solver = solver or SolverConfig(300, tolerance=1e-4)
        filters, bound, parts = self.filters.detach(), None, []
        for images in x.split(CHUNK_IMAGES):
            problem = ConvLasso(images, filters, self.cfg.lam, bound)
            bound = problem.lipschitz
            parts.append(minimise(problem, solver))
        unfinished(parts, solver)
        return torch.cat([part.z for part in parts])

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, C, H, W) of codes."""
        return synthesise(z, self.filters)

    def joint_energy(self, x: Tensor, z: Tensor) -> Tensor:
        """E(x, z) (B,)."""
        problem = ConvLasso(x, self.filters, self.cfg.lam)
        return problem.smooth(z) + problem.penalty(z)

    def forward(self, x: Tensor) -> Tensor:
        """Return the encoder's codes; see `encode`."""
        return self.encode(x)


class _ConvLayer(nn.Module):
    """z <- shrink(z + rate * encoder^T (x - decoder z), theta), all learned."""

    def __init__(self, filters: Tensor, rate: float, lam: float) -> None:
        super().__init__()
        self.decoder = nn.Parameter(filters.clone())
        self.encoder = nn.Parameter(rate * filters)
        self.theta = nn.Parameter(filters.new_full((len(filters), 1, 1), rate * lam))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        error = x - synthesise(z, self.decoder)
        return soft_threshold(z + analyse(error, self.encoder), self.theta.clamp_min(0))


def train_convolutional(
    x: Tensor, cfg: ConvConfig, seed: int, log: Log | None = None
) -> ConvSparseCoding:
    """Learn filters from images (B, C, H, W) by alternation, and the encoder from FISTA's codes.

    Args:
        x: images.
        cfg: the configuration.
        seed: fixes the first filters and the order of the images.
        log: receives ``epoch, energy, active, encoder_error``, the last as a fraction of ||z||^2.

    Raises:
        InputError: images that are empty, not finite or smaller than a filter.
        UserError: a loss that is not finite.
    """
    check_images(x, x.shape[1] if x.ndim == 4 else 1, cfg.size)
    generator = generator_of(seed)
    shape = (cfg.filters, x.shape[1], cfg.size, cfg.size)
    first = torch.randn(shape, generator=generator, dtype=torch.float64).to(x)
    model = ConvSparseCoding(first, cfg, (x.shape[2], x.shape[3]))
    optimiser = torch.optim.Adam(model.parameters(), lr=cfg.learning_rate)
    solver = SolverConfig(cfg.coding_steps)
    step, steps = 0, cfg.epochs * -(-len(x) // cfg.batch_size)
    for epoch in range(cfg.epochs):
        totals = {"energy": 0.0, "active": 0.0, "encoder_error": 0.0}
        for picked in with_fastest_threads(shuffled(len(x), cfg.batch_size, generator)):
            images = x[picked.to(x.device)]
            z = model.infer(images, solver)
            set_rate(optimiser, cfg.learning_rate * cosine(step, steps))
            energy = model.joint_energy(images, z).mean()
            error = (model.encode(images) - z).square().sum() / z.square().sum().clamp_min(1e-12)
            optimiser.zero_grad(set_to_none=True)
            (energy + error).backward()
            optimiser.step()
            step += 1
            with torch.no_grad():
                model.filters.copy_(unit_filters(model.filters))
            fraction = len(images) / len(x)
            totals["energy"] += finite(energy, "the filters", step) * fraction
            totals["active"] += float((z != 0).float().mean()) * fraction
            totals["encoder_error"] += finite(error, "the encoder", step) * fraction
        if log is not None:
            log(epoch=epoch + 1, **totals)
    return model
