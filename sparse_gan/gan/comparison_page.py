"""The page on GAN against VAE: pictures side by side, the table, and what the figures say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from sparse_gan.gan import comparison
from sparse_gan.gan.comparison import ComparisonArgs, Figures, Pair
from sparse_gan.gan.data import to_bytes, to_signed
from sparse_gan.gan.page import PANELS, distance_chart, figures, sheets, words
from sparse_gan.gan.pictures import Pictures, sheet
from sparse_gan.gan.tools import auroc, energies
from worldmodels.pages import text
from worldmodels.pages.charts import training_chart
from worldmodels.pages.document import Document, Plot, Points, Section, Table, setup
from worldmodels.pages.document import Figures as FiguresBlock
from worldmodels.pages.figures import VISION
from worldmodels.runs import RunFolder

SHOWN = 32
"""Samples of each on the page."""
FIGURES = (
    "Distances are to frames of held-out episodes, with training frames as reference. In brackets "
    "the extractor: random-conv favours neither; v-encoder, the encoder of the compared VAE, "
    "favours it. Sharpness is the mean difference of neighbouring pixels."
)
REPAINTED = "Held-out frames, V's reconstructions, and the GAN's, by a search for the noise."
WALK = (
    "Upper row: interpolation between V's codes of two real frames. Lower row: between two draws "
    "of the GAN's noise."
)


def build_page(args: ComparisonArgs, run: RunFolder, pair: Pair) -> Path:
    """Draw the page and return its path."""
    outputs = run.stage_outputs("compare")
    found: Figures = outputs["figures"]
    said = conclusions(found)
    repainted = ("Reconstruction and inversion", REPAINTED, _repainted(args, pair))
    walk = ("Interpolation", WALK, _walk(pair))
    page = Document(
        "GAN against VAE on the same frames",
        "GAN against VAE",
        said[:1],
        [
            Section(
                "Result",
                [Plot(distance_chart(found), "Distance to held-out frames"), Points(said)],
            ),
            Section("Samples", [sheets(_samples(args, pair), layout="beside")]),
            Section("Figures", [figures(found, "Figures of each set")], FIGURES),
            Section("One frame", [sheets([repainted, walk])], _oddity(pair)),
            Section("Training", _learning(run)),
            Section("Compute", [_operations(outputs["operations"])], "Both were given the same."),
            setup(run.read_config()),
        ],
        "worldmodels gan-vae",
    )
    return page.write(run.report)


def _learning(run: RunFolder) -> list[Plot]:
    found = {
        "VAE": training_chart("training-vae", run.metrics("vae"), "step", VISION),
        "GAN": training_chart("training-gan", run.metrics("gan"), "step", PANELS),
    }
    return [Plot(drawn, name) for name, drawn in found.items() if drawn is not None]


def _operations(counted: Mapping[str, float]) -> FiguresBlock:
    rows = [[name, text.count(value)] for name, value in counted.items()]
    return FiguresBlock(Table(["", "count"], rows), "Steps and operations of both")


def conclusions(found: Figures) -> list[str]:
    """Conclusions from the figures."""
    gan, vae = found["GAN samples"], found["VAE samples"]
    sentences = []
    for start in ("frechet_distance[random", "kid[random", "coverage[random"):
        name = next(key for key in gan if key.startswith(start))
        better = (gan[name] > vae[name]) == start.startswith("coverage")
        winner = "GAN" if better else "VAE"
        verdict = f"the {winner} has the better samples"
        if gan[name] == vae[name]:
            verdict = "the samples of both are as good"
        sentences.append(
            f"By {words(name)} {verdict}: GAN {text.figure(gan[name])}, "
            f"VAE {text.figure(vae[name])}."
        )
    real = found["held-out frames"]["sharpness"]
    sharp = {name: found[f"{name} samples"]["sharpness"] / real for name in ("GAN", "VAE")}
    sentences.append(
        f"The GAN's samples have {sharp['GAN']:.0%} of a real frame's sharpness, the VAE's "
        f"{sharp['VAE']:.0%}."
    )
    kept, searched = found["VAE reconstructions"], found["GAN inversions"]
    ratio = searched["squared error a pixel"] / kept["squared error a pixel"]
    sentences.append(
        f"The VAE repaints a given frame in one pass with a squared error of "
        f"{kept['squared error a pixel']:.2g} a pixel; the GAN needs "
        f"{searched['passes a frame']:.0f} passes for "
        f"{searched['squared error a pixel']:.2g}, {ratio:.1f} times as much."
    )
    if ratio > 1:
        sentences.append(
            "A world model must say where a given frame lies, at every step and at once: that is "
            "the VAE's figure, and why the pipeline's V is one."
        )
    return sentences


@torch.no_grad()
def _samples(args: ComparisonArgs, pair: Pair) -> list[tuple[str, str, Pictures]]:
    sets = {
        "Held-out frames": to_signed(pair.test[:SHOWN]),
        "GAN, from noise": pair.gan.sample(SHOWN, args.seed),
        "VAE, from its prior": comparison.vae_samples(pair.vae, SHOWN, args.seed),
    }
    return [(name, "", sheet(to_bytes(x), 8)) for name, x in sets.items()]


def _repainted(args: ComparisonArgs, pair: Pair) -> Pictures:
    few = pair.test[:8]
    target = to_signed(few)
    g = pair.gan.average
    z = comparison.invert(g, target, args.inversion_steps, args.inversion_starts, args.seed)
    with torch.no_grad():
        rows = torch.cat([target, comparison.reconstruct(pair.vae, few), g(z)])
    return sheet(to_bytes(rows), 8)


@torch.no_grad()
def _walk(pair: Pair, steps: int = 10) -> Pictures:
    t = torch.linspace(0, 1, steps)[:, None]
    mu = pair.vae.encode((to_signed(pair.test[[0, len(pair.test) // 2]]) + 1) / 2)[0]
    ours = 2 * pair.vae.decode((1 - t) * mu[:1] + t * mu[1:]) - 1
    noise = pair.gan.average.noise(2, torch.Generator().manual_seed(1))
    angle = t * torch.pi / 2  # along an arc, so that the length stays that of noise
    theirs = pair.gan.average(angle.cos() * noise[:1] + angle.sin() * noise[1:])
    return sheet(to_bytes(torch.cat([ours, theirs])), steps)


def _oddity(pair: Pair) -> str:
    count = min(500, len(pair.test))
    real = energies(pair.gan.energy, to_signed(pair.test[:count]))
    blurred = energies(pair.gan.energy, comparison.reconstruct(pair.vae, pair.test[:count]))
    return (
        "The GAN's energy is a second opinion on V: it puts V's reconstruction above a real frame "
        f"with a chance of {auroc(real, blurred):.2f} (0.5 would be no difference)."
    )
