"""How near generated samples are to real ones, on features that are named with every figure.

None of these is "FID": that name belongs to one Inception network, which would have to be
downloaded. Figures of different extractors cannot be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from torch import Tensor, nn

from worldmodels._threads import one_blas_thread
from worldmodels.protocols import UserError
from worldmodels.runs import derive_seed

Features = NDArray[np.float64]
"""(B, N), one row a sample."""
FEWEST_FOR_DEVIATION = 20
"""Samples on each side below which a kernel distance has no standard deviation."""


@dataclass(frozen=True)
class Extractor:
    """A fixed map from pictures to features, with the name that its figures carry."""

    name: str
    """such as ``random-conv-0``"""
    module: Callable[[Tensor], Tensor]
    """from pictures (B, C, H, W) in [-1, 1] to features (B, N)"""

    @torch.inference_mode()
    def __call__(self, x: Tensor, chunk: int = 256) -> Features:
        """Features (B, N) of pictures (B, C, H, W) in [-1, 1].

        Raises:
            UserError: a feature that is not finite.
        """
        found = torch.cat([self.module(part).float() for part in x.split(chunk)]).double().numpy()
        if not np.isfinite(found).all():
            raise UserError(f"{self.name} gives features that are not finite; look at the samples")
        return np.asarray(found)


class RandomConv(nn.Module):
    """A convolutional network with fixed random weights: three scales, means over quarters.

    Random convolutions tell pictures apart by layout, colour and texture without having learned
    anything, so they favour neither of two models. A fixed random projection, the same for the
    same seed and channels, brings the features to ``dims``.
    """

    def __init__(self, channels: int = 3, dims: int = 64, seed: int = 0) -> None:
        """Draw the weights.

        Args:
            channels: of the pictures.
            dims: N, number of features.
            seed: fixes the weights.
        """
        super().__init__()
        generator = torch.Generator().manual_seed(derive_seed(seed, "random-conv") % 2**63)
        widths = (channels, 32, 64, 128)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 4, 2, 1) for before, after in pairwise(widths)
        )
        for layer in self.convolutions:
            assert isinstance(layer, nn.Conv2d) and layer.bias is not None
            fan = layer.in_channels * 16
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator)
            layer.weight.data *= (2 / fan) ** 0.5
            layer.bias.data = 0.1 * torch.randn(layer.bias.shape, generator=generator)
        total = 4 * sum(widths[1:])
        projection = torch.randn(total, dims, generator=generator)
        self.register_buffer("projection", torch.linalg.qr(projection).Q)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (B, C, H, W) in [-1, 1] to features (B, dims)."""
        found = []
        for layer in self.convolutions:
            x = nn.functional.relu(layer(x))
            found.append(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))
        assert isinstance(self.projection, Tensor)
        return torch.cat(found, 1) @ self.projection


def random_extractor(channels: int = 3, dims: int = 64, seed: int = 0) -> Extractor:
    """The extractor that needs no data and no download; see `RandomConv`."""
    return Extractor(f"random-conv-{dims}-{seed}", RandomConv(channels, dims, seed).eval())


def frechet_distance(a: Features, b: Features) -> float:
    """Squared Frechet distance of the Gaussians fitted to two sets of features; 0 is the same.

    ``||m1 - m2||^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`` (Heusel et al. 2017, equation 6). With fewer
    samples than features the covariances are singular, which is no error here: the trace is taken
    over eigenvalues, those below 0 by rounding counted as 0.

    Args:
        a: (B, N).
        b: (B', N).

    Raises:
        UserError: fewer than 2 samples, or different features.
    """
    _check(a, b)
    means = a.mean(0) - b.mean(0)
    with one_blas_thread():
        first, second = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
        values, vectors = np.linalg.eigh(first)
        root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
        product = np.linalg.eigvalsh(root @ second @ root)
    cross = np.sqrt(np.maximum(product, 0)).sum()
    return float(means @ means + np.trace(first) + np.trace(second) - 2 * cross)


def kernel_distance(
    a: Features, b: Features, size: int = 500, subsets: int = 20, seed: int = 0
) -> tuple[float, float | None]:
    """KID: unbiased squared MMD with the kernel (x.y / N + 1)^3 (Binkowski et al. 2018).

    Args:
        a: (B, N).
        b: (B', N).
        size: samples in a subset; all, if there are fewer.
        subsets: number of random subsets.
        seed: fixes them.

    Returns:
        Mean over the subsets, which may fall below 0, being unbiased; and the standard deviation of
        the figure that one subset gives. With fewer than 4 * size samples, whose subsets would be
        nearly the same, it is estimated within one subset (see `mmd_deviation`), and with fewer
        than `FEWEST_FOR_DEVIATION` it is None.
    """
    _check(a, b)
    fewest = min(len(a), len(b))
    size = min(size, fewest)
    rng = np.random.default_rng(derive_seed(seed, "kid"))
    found, deviation = [], None
    for number in range(subsets):
        x = a[rng.choice(len(a), size, replace=False)]
        y = b[rng.choice(len(b), size, replace=False)]
        found.append(_squared_mmd(x, y))
        if number == 0 and FEWEST_FOR_DEVIATION <= fewest < 4 * size:
            deviation = mmd_deviation(x, y)
    if fewest >= max(4 * size, FEWEST_FOR_DEVIATION) and subsets > 1:
        deviation = float(np.std(found))
    return float(np.mean(found)), deviation


def mmd_deviation(x: Features, y: Features) -> float:
    """Standard deviation of the unbiased squared MMD of samples like x (n, N) and y (n, N).

    It is that of a U-statistic of degree 2 with the kernel
    ``h_ij = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i)``: the variance is
    ``(4 (n - 2) zeta_1 + 2 zeta_2) / (n (n - 1))`` (Serfling 1980, section 5.2.1), with
    ``zeta_2 = Var h`` and ``zeta_1 = Var E[h | one sample]``, estimated without bias and cut at 0.
    """
    n = len(x)
    cross = _kernel(x, y)
    h = _kernel(x, x) + _kernel(y, y) - cross - cross.T
    np.fill_diagonal(h, 0)
    rows, pairs = h.sum(1), n * (n - 1)
    mean, square = h.sum() / pairs, (h**2).sum() / pairs
    shared = (rows @ rows - (h**2).sum()) / (pairs * (n - 2))
    first, second = max(0.0, shared - mean**2), max(0.0, square - mean**2)
    return float(np.sqrt((4 * (n - 2) * first + 2 * second) / pairs))


def manifold_figures(real: Features, fake: Features, k: int = 5) -> dict[str, float]:
    """Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020).

    A sample lies in the manifold of a set if it is within the k-th neighbour's distance of one of
    the set's members. Precision and density ask whether fakes look real (density counts how many
    real neighbourhoods hold a fake, so an outlier among the real ones matters less, and may pass
    1); recall and coverage ask whether all that is real is there.

    Args:
        real: (B, N).
        fake: (B', N).
        k: neighbours; both sets need more than that.

    Returns:
        ``precision, recall, density, coverage``.
    """
    _check(real, fake)
    if not 1 <= k < min(len(real), len(fake)):
        raise UserError(
            f"k is {k}; it must be at least 1 and below the number of samples "
            f"({min(len(real), len(fake))})"
        )
    radius_real, radius_fake = _radius(real, k), _radius(fake, k)
    distance = cdist(real, fake)
    inside = distance <= radius_real[:, None]
    return {
        "precision": float(inside.any(0).mean()),
        "recall": float((distance <= radius_fake[None]).any(1).mean()),
        "density": float(inside.sum(0).mean() / k),
        "coverage": float((distance.min(1) <= radius_real).mean()),
    }


def compare(real: Tensor, fake: Tensor, extractor: Extractor, k: int = 5) -> dict[str, float]:
    """All figures of pictures against pictures, each named with the extractor.

    ``_deviation`` is the standard error: ``kid_deviation`` is left out where there are too few
    pictures for one (`kernel_distance`), those of fractions are of `fraction_error`.

    Args:
        real: (B, C, H, W) in [-1, 1], held out from training.
        fake: (B', C, H, W) in [-1, 1].
        extractor: whose features.
        k: neighbours of the manifold's figures.
    """
    a, b = extractor(real), extractor(fake)
    mean, deviation = kernel_distance(a, b)
    figures = {"frechet_distance": frechet_distance(a, b), "kid": mean}
    if deviation is not None:
        figures["kid_deviation"] = deviation
    figures |= manifold_figures(a, b, k)
    for name, count in (("precision", len(b)), ("recall", len(a)), ("coverage", len(a))):
        figures[f"{name}_deviation"] = fraction_error(figures[name], count)
    return {f"{name}[{extractor.name}]": value for name, value in figures.items()}


def fraction_error(fraction: float, count: int) -> float:
    """Standard error of a fraction of so many, not 0 at 0 and 1 (Agresti and Coull, 1998)."""
    p = (fraction * count + 2) / (count + 4)
    return float((p * (1 - p) / (count + 4)) ** 0.5)


def _check(a: Features, b: Features) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise UserError(f"features are {a.shape} and {b.shape}; expected (B, N) and (B', N)")
    if min(len(a), len(b)) < 2:
        raise UserError(f"there are {len(a)} and {len(b)} samples; at least 2 of each are needed")


def _radius(x: Features, k: int) -> Features:
    """Distance (B,) to the k-th neighbour within a set."""
    return np.asarray(np.partition(cdist(x, x), k, axis=1)[:, k])


def _kernel(u: Features, v: Features) -> Features:
    return np.asarray((u @ v.T / u.shape[1] + 1) ** 3)


def _squared_mmd(x: Features, y: Features) -> float:
    n, within = len(x), 0.0
    for u in (x, y):
        k = _kernel(u, u)
        within += (k.sum() - np.trace(k)) / (n * (n - 1))
    return float(within - 2 * _kernel(x, y).mean())
