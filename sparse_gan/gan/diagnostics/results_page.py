"""The page on the limits of GANs: verdicts over seeds, and a picture of each experiment."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from sparse_gan.gan.diagnostics import dirac, flatness
from sparse_gan.gan.diagnostics.collapse import FORMS
from sparse_gan.gan.diagnostics.toys import Toy, mixture
from sparse_gan.gan.diagnostics.verdicts import LimitsArgs, Results, Verdict, results, verdicts
from sparse_gan.gan.page import figures, words
from worldmodels.pages import text
from worldmodels.pages.charts import log_labels, looks, thinned
from worldmodels.pages.document import Document, Pair, Plot, Section, Table, Warnings, setup
from worldmodels.pages.document import Figures as Verdicts
from worldmodels.pages.svg import COLOUR, FULL, HALF, Chart, Key, chart, width_of
from worldmodels.runs import RunFolder, write_json

HEAD = ("claim", "figure", "plain: median (range)", "cured: median (range)", "seeds")
TOYS: tuple[Toy, Toy] = ("ring", "grid")
SAMPLES = 300
"""Samples that a chart shows of each form."""
GRADIENT = "Norm of G's gradient, all seeds"
VERDICTS = "The last column says on how many seeds the claim holds."
COLLAPSE = (
    "Samples of the first seed over the true modes. Plain: G learns ten times as fast as F. Cured: "
    "F learns as fast as G, and its slope at real and at fake samples is penalised; loss, networks "
    "and steps are the same. The equal form has equal rates and no penalty: where it covers "
    "the modes, the rates alone are the cure, and the failure says nothing about the loss."
)
VANISHING = "F trains while G stands still. Cure: the non-saturating loss."
ORBITS = (
    "Of the Dirac-GAN: the distance from the equilibrium, from the first seed's start. Cure: a "
    "zero-centred penalty, and for the saturating and the non-saturating loss also instance noise. "
    "Wasserstein losses are linear in F, so noise leaves them as they are, and a penalty that "
    "holds the slope at 1 keeps it from settling at 0. The non-saturating form alone does shrink, "
    "but not at a linear rate."
)
FLATNESS = (
    "F trains against samples from everywhere; then lines leave the data. Flat is a small part of "
    "what G is taught near by: under the saturating loss because G's loss is flat in F, under the "
    "regression loss because F is."
)


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
    return limits_page(args, found, judged).write(run.report)


def limits_page(args: LimitsArgs, found: Results, judged: Sequence[Verdict]) -> Document:
    """The verdicts, and what each rests on."""
    held = sum(verdict.passed for verdict in judged)
    failed = [verdict.claim for verdict in judged if not verdict.passed]
    table = Table(HEAD, [verdict.row() for verdict in judged])
    return Document(
        "Where GANs fail",
        "limits of GANs",
        [f"{held} of {len(judged)} claims hold on {_seeds(args.seeds)}."],
        [
            Section(
                "Mode collapse",
                [
                    *(Plot(collapse_chart(toy, found), f"On the {toy}") for toy in TOYS),
                    figures(_collapse(found), "Modes of each form"),
                ],
                COLLAPSE,
            ),
            Section(
                "Verdicts",
                [
                    Verdicts(table, "Verdicts over seeds", prose=True),
                    Warnings(failed, "Every claim holds.", "claim fails", "claims fail"),
                ],
                VERDICTS,
            ),
            Section("Vanishing gradient", [Plot(vanishing_chart(found), GRADIENT)], VANISHING),
            Section(
                "Orbits",
                [Plot(dirac_chart(found), "Radius over time"), figures(_orbits(found), "Orbits")],
                ORBITS,
            ),
            Section(
                "Off the manifold",
                [Pair(flatness_plots(found)), figures(_flatness(found), "Flatness of each loss")],
                FLATNESS,
            ),
            setup(RunFolder(args.out, create=False).read_config()),
        ],
        "worldmodels gan-limits",
    )


def _seeds(count: int) -> str:
    return "the one seed that was run" if count == 1 else f"every one of {count} seeds"


def _collapse(found: Results) -> dict[str, dict[str, float]]:
    return {
        f"{toy}, {form}": {
            f"{words(figure)}, median": _median([r[form][figure] for r in found[toy]])
            for figure in ("covered", "quality", "kl")
        }
        for toy in TOYS
        for form in FORMS
    }


def _median(values: Sequence[float]) -> float:
    """The median, as a count where it is whole."""
    middle = float(np.median(values))
    return int(middle) if middle.is_integer() else middle


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


def collapse_chart(toy: Toy, found: Results) -> Chart:
    """Samples of the first seed in every form, over the modes."""
    result = found[toy][0]
    centres = mixture(toy).centres.numpy()

    def draw(*row: Axes) -> None:
        narrow = width_of(row[0]) < 400
        for axes, form in zip(row, FORMS, strict=True):
            samples = np.array(result[f"{form}_samples"])[:SAMPLES]
            size = 24 if narrow else 90
            axes.scatter(centres[:, 0], centres[:, 1], s=size, color=COLOUR["grid"], linewidths=0)
            axes.plot(*samples.T, ".", color=COLOUR["dream"], markersize=2)
            axes.set(xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), aspect="equal", xticks=[], yticks=[])
            covered = f"{result[form]['covered']} of {result['modes']}"
            title = f"{form}\n{covered}" if narrow else f"{form}: {covered} modes"
            axes.set_title(title, fontsize=12, color=COLOUR["ink"])

    def square(width: int) -> list[int]:
        return [round(1.12 * width / len(FORMS))]

    said = ", ".join(f"{form} {result[form]['covered']}" for form in FORMS)
    alt = f"Samples on the {toy}: of {result['modes']} modes cover {said}."
    keys = (Key("dot", "grid", "true mode"), Key("dot", "dream", "sample"))
    return chart(f"collapse-{toy}", alt, FULL, square, draw, keys, columns=len(FORMS))


def vanishing_chart(found: Results) -> Chart:
    """Norm of G's gradient while F trains alone, a line a seed."""
    lines = {"saturating": "alarm", "nonsaturating": "real"}

    def draw(axes: Axes) -> None:
        for name, colour in lines.items():
            for result in found["vanishing"]:
                axes.plot(result["strengths"], result[name], marker=".", color=COLOUR[colour])
        axes.set(yscale="log", xlabel="steps of F", ylabel="norm of G's gradient")
        log_labels(axes.yaxis)

    ends = ", ".join(f"{name} {text.figure(found['vanishing'][0][name][-1])}" for name in lines)
    keys = [Key("line", colour, name.replace("non", "non-")) for name, colour in lines.items()]
    return chart("vanishing", f"Norm of G's gradient at the end: {ends}.", FULL, [280], draw, keys)


def dirac_chart(found: Results) -> Chart:
    """Distance from the equilibrium over time, of the first seed; what settles is dashed."""
    paths = found["dirac"][0]
    colours = {name: look.colour for name, look in looks(dirac.PLAIN | dirac.SLOW).items()}
    remedies = {"": ("-", "line"), dirac.PENALTY: ("--", "dashed"), dirac.NOISE: (":", "dotted")}
    marks = {}
    for name in paths:
        suffix = name[name.find(" + ") :] if " + " in name else ""
        marks[name] = (colours[name.removesuffix(suffix)], *remedies[suffix])

    def draw(axes: Axes) -> None:
        for name, (colour, dash, _) in marks.items():
            radius = np.hypot(*np.array(paths[name]["path"]).T)
            steps = np.arange(len(radius)) * paths[name]["every"]
            x, y = thinned(steps.astype(float), np.maximum(radius, 1e-6))
            axes.plot(x, y, dash, color=COLOUR[colour], linewidth=1.6)
        axes.set(yscale="log", xlabel="steps", ylabel="distance from equilibrium")
        log_labels(axes.yaxis)

    ends = ", ".join(f"{name} {text.figure(paths[name]['shrinkage'])}" for name in paths)
    keys = [Key(mark, colour, name) for name, (colour, _, mark) in marks.items()]
    return chart("dirac", f"Last over first radius: {ends}.", FULL, [320], draw, keys)


def flatness_plots(found: Results) -> list[Plot]:
    """Energy, and G's lesson over its largest, by the distance from the data (first seed)."""
    profiles = found["flatness"][0]
    styles = looks(profiles)

    def scaled(name: str, what: str) -> NDArray[np.float64]:
        values = np.array(profiles[name][what])
        if what == "lesson":
            return np.asarray(np.maximum(values / values.max(), 1e-6))
        return np.asarray((values - values[0]) / max(1e-9, float(np.ptp(values))))

    def drawn(what: str, label: str) -> Chart:
        def draw(axes: Axes) -> None:
            for name, look in styles.items():
                x, y = profiles[name]["distance"], scaled(name, what)
                axes.plot(x, y, color=COLOUR[look.colour], linestyle=look.dash)
            axes.set(xlabel="distance from the data", ylabel=label)
            if what == "lesson":
                axes.set_yscale("log")
                log_labels(axes.yaxis)

        ends = ", ".join(f"{name} {text.figure(float(scaled(name, what)[-1]))}" for name in styles)
        alt = f"{label}, farthest from the data: {ends}."
        return chart(f"flatness-{what}", alt, HALF, [290], draw, styles.values())

    titles = {"energy": ("Energy", "energy, scaled"), "lesson": ("G's lesson", "over its largest")}
    return [Plot(drawn(what, label), title) for what, (title, label) in titles.items()]
