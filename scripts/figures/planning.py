"""Figures of planning: the unrolled machine, and the energy that a latent leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from scripts.figures.style import Point, save
from worldmodels.memory.interface import MemoryOutput
from worldmodels.planning.latent import infer_mixture_latent

_INK, _MUTED, _FORWARD, _BACK, _LATENT = "#1a1f26", "#8a919c", "#0b6b95", "#b25307", "#6a3cc4"


def draw_unrolled(path: Path, steps: int = 3) -> None:
    """The machine over time: forward it predicts rewards, backward flows the actions' gradient."""
    figure = Figure(figsize=(9.5, 4.2))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-1.4, 3 * steps + 1.4), ylim=(-1.9, 2.5))
    axes.axis("off")
    _box(axes, -0.6, 0, "V\nperceives")
    _arrow(axes, (-1.35, 0), (-1.05, 0), _INK)
    for t in range(steps):
        x = 3 * t + 1.5
        _box(axes, x, 0, "M\npredicts")
        _box(axes, x + 1.5, 1.6, "reward\nhead")
        _box(axes, x, -1.5, f"actor: $a_{t}$", _FORWARD)
        axes.text(x, 1.75, f"$z_{t}$", color=_LATENT, ha="center", va="center", size=14)
        _arrow(axes, (x, 1.5), (x, 0.42), _LATENT)
        _arrow(axes, (x - 0.15, -1.15), (x - 0.15, -0.42), _FORWARD)
        _arrow(axes, (x + 0.15, -0.42), (x + 0.15, -1.15), _BACK, "--")
        _arrow(axes, (x - (2.5 if t else 1.65), 0.12), (x - 0.45, 0.12), _FORWARD)
        _arrow(axes, (x + 0.45, 0.2), (x + 1.3, 1.2), _FORWARD)
        _arrow(axes, (x + 1.7, 1.2), (x + 0.5, -0.1), _BACK, "--")
        if t:
            _arrow(axes, (x - 0.45, -0.15), (x - 2.55, -0.15), _BACK, "--")
        axes.text(x - 1.05, 0.25, f"$s_{t}$", color=_INK, ha="center", size=12)
    end = 3 * steps
    _arrow(axes, (end - 1.0, 0.12), (end + 0.15, 0.12), _FORWARD)
    _arrow(axes, (end + 0.15, -0.15), (end - 1.0, -0.15), _BACK, "--")
    _box(axes, end + 0.6, 0, "critic\n$v(s_T)$")
    for y, text, colour in ((-1.2, "forward", _FORWARD), (-1.5, "gradient", _BACK)):
        axes.text(end + 0.6, y, text, color=colour, ha="center", size=11)
    save(figure, path)


def draw_energy(path: Path) -> None:
    """Energy over what may be observed, for a mixture of two modes, by the price of its latent."""
    y = torch.linspace(-3, 3, 601)
    numbers = torch.tensor([[0.65, 0.35], [-1.2, 1.1], [0.35, 0.25]])
    pi, mu, sigma = numbers[:, None, None].expand(3, len(y), 1, 2)
    output = MemoryOutput(pi.log(), mu, sigma.log(), y, y)
    figure = Figure(figsize=(9.5, 3.4))
    axes = figure.add_axes((0.07, 0.17, 0.9, 0.75))
    kinds = ((1.0, "with a priced latent", _FORWARD), (0.0, "with a free latent", _BACK))
    for prior, label, colour in kinds:
        found = infer_mixture_latent(output, y[:, None], 0.35, prior)
        axes.plot(y, found.energy, color=colour, label=label, linewidth=2)
    axes.plot(y, found.energy_without, color=_MUTED, label="without a latent", linewidth=2)
    axes.set(xlabel="observation y", ylabel="energy, nats", ylim=(-0.5, 12), xlim=(-3, 3))
    axes.set_xticks(np.arange(-3, 4))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def _box(axes: Any, x: float, y: float, text: str, colour: str = _INK) -> None:
    corner, style = (x - 0.42, y - 0.32), "round,pad=0.06"
    axes.add_patch(FancyBboxPatch(corner, 0.84, 0.64, style, fc="white", ec=colour, lw=1.5))
    axes.text(x, y, text, ha="center", va="center", color=colour, size=10)


def _arrow(axes: Any, start: Point, end: Point, colour: str, style: str = "-") -> None:
    look: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 11, "color": colour, "lw": 1.4}
    axes.add_patch(FancyArrowPatch(start, end, linestyle=style, **look))
