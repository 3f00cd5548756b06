"""What an energy is good for once it is trained: maps, descent, and telling real from odd."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sparse_gan.energy import EnergyModel
from sparse_gan.gan.metrics import fraction_error
from worldmodels.protocols import UserError
from worldmodels.runs import derive_seed


@torch.no_grad()
def energy_map(model: EnergyModel, half: float, points: int = 100) -> NDArray[np.float32]:
    """Energies (points, points) of the square from -half to half; row 0 is the lowest y."""
    line = torch.linspace(-half, half, points)
    y, x = torch.meshgrid(line, line, indexing="ij")
    values: NDArray[np.float32] = (
        model.energy(torch.stack([x, y], -1).reshape(-1, 2)).reshape(points, points).numpy()
    )
    return values


@torch.no_grad()
def energies(model: EnergyModel, x: Tensor, chunk: int = 256) -> NDArray[np.float32]:
    """Energies (B,) of samples (B, ...), with the model in evaluation mode.

    Raises:
        UserError: one of them is not finite.
    """
    training = model.training
    model.eval()
    try:
        found: NDArray[np.float32] = torch.cat(
            [model.energy(part).float() for part in x.split(chunk)]
        ).numpy()
    finally:
        model.train(training)
    if not np.isfinite(found).all():
        raise UserError(f"the energy of sample {int(np.argmin(np.isfinite(found)))} is not finite")
    return found


def auroc(low: NDArray[np.floating], high: NDArray[np.floating]) -> float:
    """Chance that a sample of ``high`` has more energy than one of ``low``; ties count half.

    1 separates them perfectly, 0.5 is chance, below 0.5 is reversed.
    """
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([low, high]))
    wins = ranks[len(low) :].sum() - len(high) * (len(high) + 1) / 2
    return float(wins / (len(low) * len(high)))


def corruptions(x: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Pictures (B, C, H, W) in [-1, 1] made odd in ways that an anomaly score should notice.

    ``noise`` has a std of 0.2, ``blur`` averages over 5 pixels, ``shuffled`` permutes
    the 16 blocks of each picture, ``covered`` greys a random quarter, ``negative`` inverts.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "corruptions") % 2**63)
    noisy = (x + 0.2 * torch.randn(x.shape, generator=generator)).clamp(-1, 1)
    blurred = nn.functional.avg_pool2d(nn.functional.pad(x, (2, 2, 2, 2), "replicate"), 5, 1)
    count, channels, side, _ = x.shape
    block = side // 4
    blocks = x.reshape(count, channels, 4, block, 4, block).permute(0, 2, 4, 1, 3, 5)
    flat = blocks.reshape(count, 16, channels, block, block)
    order = torch.rand(count, 16, generator=generator).argsort(1)
    mixed = flat.gather(1, order[:, :, None, None, None].expand_as(flat))
    mixed = mixed.reshape(count, 4, 4, channels, block, block).permute(0, 3, 1, 4, 2, 5)
    covered = x.clone()
    corner = torch.randint(side // 2, (count, 2), generator=generator).tolist()
    for picture, (top, left) in zip(covered, corner, strict=True):
        picture[:, top : top + side // 2, left : left + side // 2] = 0
    return {
        "noise": noisy,
        "blur": blurred,
        "shuffled": mixed.reshape(x.shape),
        "covered": covered,
        "negative": -x,
    }


def anomaly_table(
    model: EnergyModel, real: Tensor, others: dict[str, Tensor]
) -> dict[str, dict[str, float]]:
    """Mean energy of each set, and how well the energy tells it from real samples.

    Args:
        model: the energy.
        real: (B, ...) held out from training.
        others: sets (B', ...) by name.

    Returns:
        For "real" and each other set ``energy`` and ``auroc`` (see `auroc`), each with its standard
        error under the same name and ``_deviation``; that of ``auroc`` is of a fraction of the
        smaller set.
    """
    low = energies(model, real)
    rows = {"real": {**_mean_energy(low), "auroc": 0.5}}
    for name, x in others.items():
        high = energies(model, x)
        chance = auroc(low, high)
        error = fraction_error(chance, min(len(low), len(high)))
        rows[name] = {**_mean_energy(high), "auroc": chance, "auroc_deviation": error}
    return rows


def _mean_energy(values: NDArray[np.float32]) -> dict[str, float]:
    error = float(values.std()) / len(values) ** 0.5
    return {"energy": float(values.mean()), "energy_deviation": error}
