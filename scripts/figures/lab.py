"""Small experiments of `sparse_gan`, run while the figure is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from scripts.figures.style import BLUE, GREEN, INK, MUTED, ORANGE, chart, save
from sparse_gan import data
from sparse_gan.coding.dictionary import DictionaryConfig, learn_dictionary
from sparse_gan.coding.ista import FISTA, ISTA, Lasso, SolverConfig, minimise
from sparse_gan.gan.diagnostics import dirac
from worldmodels.video.drawing import write_picture


def draw_atoms(path: Path) -> None:
    """Atoms of a dictionary learned on natural 12x12 patches."""
    x = torch.from_numpy(data.patches(data.natural_images(), 20_000, 12, seed=0)).flatten(1)
    x = x - x.mean(1, keepdim=True)
    x = x / x.std()
    coder = learn_dictionary(x, DictionaryConfig(atoms=96, lam=1.0, epochs=3), seed=0)
    atoms = coder.dictionary.detach().T.reshape(-1, 12, 12).numpy()
    largest = np.abs(atoms).max((1, 2), keepdims=True)
    grey = np.clip(128 + 120 * atoms / largest, 0, 255).astype(np.uint8)
    tiles = np.full((6, 16, 14, 14), 255, np.uint8)
    tiles[:, :, 1:-1, 1:-1] = grey.reshape(6, 16, 12, 12)
    sheet = tiles.transpose(0, 2, 1, 3).reshape(6 * 14, 16 * 14)
    large = sheet.repeat(4, 0).repeat(4, 1)
    write_picture(path, np.stack([large] * 3, -1))


def draw_ista(path: Path) -> None:
    """How fast ISTA, FISTA and FISTA with restarts come down to the least energy."""
    generator = torch.Generator().manual_seed(0)
    d = torch.randn(64, 128, generator=generator, dtype=torch.float64)
    d = d / d.norm(dim=0)
    x = torch.randn(100, 64, generator=generator, dtype=torch.float64)
    steps = 150
    best = minimise(Lasso(x, d, 0.1), SolverConfig(steps=5000), record=True).history[-1]
    figure, axes = chart(8.2, 3.2)
    kinds = (
        ("ISTA", ISTA, MUTED),
        ("FISTA", FISTA, ORANGE),
        ("FISTA with restarts", SolverConfig(), BLUE),
    )
    for label, cfg, colour in kinds:
        cfg = SolverConfig(steps=steps, momentum=cfg.momentum, restart=cfg.restart)
        history = np.array(minimise(Lasso(x, d, 0.1), cfg, record=True).history)
        axes.semilogy(np.maximum(history - best, 1e-9), color=colour, label=label, linewidth=1.8)
    axes.set(
        xlabel="iterations", ylabel="energy above the least", xlim=(0, steps), ylim=(1e-6, None)
    )
    axes.legend(frameon=False)
    save(figure, path)


def draw_dirac(path: Path) -> None:
    """The Dirac-GAN: the minimax game circles, and a zero-centred penalty makes it settle."""
    cfg, start = dirac.DiracConfig(steps=400), (1.0, 1.0)
    forms = (
        ("minimax", dirac.PLAIN["saturating"], ORANGE),
        ("non-saturating", dirac.SLOW["log"], BLUE),
        ("minimax with a zero-centred penalty", dirac.TREATED[f"saturating{dirac.PENALTY}"], GREEN),
    )
    figure, axes = chart(8.2, 3.8)
    for label, loss, colour in forms:
        theta, psi = dirac.run(cfg, loss, start).T.numpy()
        axes.plot(theta, psi, color=colour, linewidth=1.4, label=label)
    axes.plot([0], [0], "+", color=INK, markersize=12, label="the only equilibrium")
    axes.plot(*start, "o", color=INK, markersize=5)
    axes.set(xlabel="what G makes", ylabel="slope of the energy F", aspect="equal")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.02, 0.5))
    save(figure, path)
