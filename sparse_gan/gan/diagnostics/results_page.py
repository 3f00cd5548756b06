"""The page on the limits of GANs: verdicts over seeds, and a picture of each experiment."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sparse_gan.gan.diagnostics import dirac, flatness
from sparse_gan.gan.diagnostics.collapse import FORMS
from sparse_gan.gan.diagnostics.toys import Toy, mixture
from sparse_gan.gan.diagnostics.verdicts import LimitsArgs, Results, results, verdicts
from sparse_gan.gan.page import Section, figure_address, table, write_page
from worldmodels.runs import RunFolder, write_json

HEAD = ("claim", "figure", "plain: median (range)", "cured: median (range)", "seeds")
TOYS: tuple[Toy, Toy] = ("ring", "grid")


def run_limits(args: LimitsArgs) -> Path:
    """Run what is missing, judge, draw the page, and return its path.

    ``verdicts.json`` in the run folder has the same figures.
    """
    run = RunFolder(args.out)
    with run.lock():
        run.write_config(args)
        found = results(args)
    judged = verdicts(found)
    write_json(run.path / "verdicts.json", [dataclasses.asdict(v) for v in judged])
    for verdict in judged:
        print(f"{'holds' if verdict.passed else 'FAILS':6} {' | '.join(verdict.row())}")
    sections = [
        Section(
            "Verdicts",
            f"Over {args.seeds} seeds; the last column says on how many the claim holds.",
            HEAD,
            [v.row() for v in judged],
        ),
        Section(
            "Mode collapse",
            "Samples of the first seed over the true modes (grey). Plain: G learns ten times as "
            "fast as F. Cure: F learns as fast as G, and its slope at real and at fake samples is "
            "penalised; loss, networks and steps are the same. The equal form has equal rates "
            "and no penalty: what it covers, the rates alone have cured, and the failure is no "
            "verdict on the loss.",
            *table(_collapse(found)),
            pictures=[("From plain to cured", _collapse_figure(found))],
        ),
        Section(
            "Vanishing gradient",
            "F trains while G stands still. Cure: the non-saturating loss.",
            pictures=[("Norm of G's gradient, all seeds", _vanishing_figure(found))],
        ),
        Section(
            "Orbits of the Dirac-GAN",
            "The distance from the equilibrium, from the first seed's start. Cure: a zero-centred "
            "penalty, and for the saturating and the non-saturating loss also instance noise. "
            "Wasserstein losses are linear in F, so noise leaves them as they are, and a penalty "
            "that holds the slope at 1 keeps it from settling at 0. The non-saturating form alone "
            "does shrink, but not at a linear rate.",
            *table(_orbits(found)),
            pictures=[("Radius over time", _dirac_figure(found))],
        ),
        Section(
            "Energy off the manifold",
            "F trains against samples from everywhere; then lines leave the data. Flat is a small "
            "share of what G is taught near by: under the saturating loss because G's loss is flat "
            "in F, under the regression loss because F is.",
            *table(_flatness(found)),
            pictures=[("Energy, and G's lesson, by distance", _flatness_figure(found))],
        ),
    ]
    return write_page(run.report, "Where GANs fail", sections, run.read_config())


def _collapse(found: Results) -> dict[str, dict[str, float]]:
    return {
        f"{toy}, {form}": {
            f"{figure}, median": float(np.median([r[form][figure] for r in found[toy]]))
            for figure in ("covered", "quality", "kl")
        }
        for toy in TOYS
        for form in FORMS
    }


def _orbits(found: Results) -> dict[str, dict[str, float]]:
    names = found["dirac"][0]
    return {
        n: {"last over first radius, worst seed": max(r[n]["shrinkage"] for r in found["dirac"])}
        for n in names
    }


def _flatness(found: Results) -> dict[str, dict[str, float]]:
    def median(name: str) -> float:
        return float(np.median([r[name]["far_over_near"] for r in found["flatness"]]))

    return {name: {"far over near, median": median(name)} for name in flatness.LOSSES}


def _collapse_figure(found: Results) -> str:
    figure = Figure(figsize=(9, 6), dpi=100, layout="constrained")
    axes: Any = figure.subplots(2, len(FORMS))
    for row, toy in enumerate(TOYS):
        for column, form in enumerate(FORMS):
            place: Axes = axes[row][column]
            result = found[toy][0]
            centres = mixture(toy).centres.numpy()
            place.scatter(centres[:, 0], centres[:, 1], s=120, color="#ccc")
            samples = np.array(result[f"{form}_samples"])
            place.scatter(samples[:, 0], samples[:, 1], s=2, color="#4666a8")
            place.set(xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), aspect="equal")
            place.set_title(f"{form}: {result[form]['covered']} of {result['modes']} modes")
    return figure_address(figure)


def _vanishing_figure(found: Results) -> str:
    figure = Figure(figsize=(8, 4), dpi=100, layout="constrained")
    axes = figure.subplots()
    for name, colour in (("saturating", "#b5482e"), ("nonsaturating", "#4666a8")):
        for number, result in enumerate(found["vanishing"]):
            label = name.replace("non", "non-") if number == 0 else None
            axes.plot(result["strengths"], result[name], ".-", color=colour, label=label)
    axes.set(yscale="log", xlabel="steps of F", ylabel="norm of G's gradient")
    axes.legend(frameon=False)
    return figure_address(figure)


def _dirac_figure(found: Results) -> str:
    figure = Figure(figsize=(8, 4), dpi=100, layout="constrained")
    axes = figure.subplots()
    for name, result in found["dirac"][0].items():
        radius = np.hypot(*np.array(result["path"]).T)
        style = "--" if name in dirac.CURED else "-"
        steps = np.arange(len(radius)) * result["every"]
        axes.plot(steps, np.maximum(radius, 1e-6), style, label=name)
    axes.set(yscale="log", xlabel="steps", ylabel="distance from the equilibrium")
    axes.legend(frameon=False, fontsize=8, loc="center right")
    return figure_address(figure)


def _flatness_figure(found: Results) -> str:
    figure = Figure(figsize=(9, 4), dpi=100, layout="constrained")
    axes: Any = figure.subplots(1, 2)
    for name, result in found["flatness"][0].items():
        lesson = np.array(result["lesson"])
        height = np.array(result["energy"])
        height = (height - height[0]) / max(1e-9, float(np.ptp(height)))
        axes[0].plot(result["distance"], height, label=name)
        axes[1].plot(result["distance"], np.maximum(lesson / lesson.max(), 1e-6), label=name)
    axes[0].set(xlabel="distance from the data", ylabel="energy, scaled")
    axes[1].set(xlabel="distance from the data", ylabel="G's lesson over its largest", yscale="log")
    axes[1].legend(frameon=False, fontsize=8)
    return figure_address(figure)


__all__ = ["HEAD", "run_limits"]
