"""The page on GAN against VAE: pictures side by side, the table, and what the figures say."""

from __future__ import annotations

from pathlib import Path

import torch

from sparse_gan.gan import comparison
from sparse_gan.gan.comparison import ComparisonArgs, Figures, Pair
from sparse_gan.gan.data import to_bytes, to_signed
from sparse_gan.gan.page import Section, picture_address, table, write_page
from sparse_gan.gan.pictures import Pictures, sheet
from sparse_gan.gan.tools import auroc, energies
from worldmodels.runs import RunFolder

SHOWN = 32
"""Samples of each on the page."""


def build_page(args: ComparisonArgs, run: RunFolder, pair: Pair) -> Path:
    """Draw the page and return its path."""
    outputs = run.stage_outputs("compare")
    figures: Figures = outputs["figures"]
    sections = [
        Section("What the figures say", " ".join(conclusions(figures))),
        Section(
            "Figures",
            "Distances are to frames of held-out episodes; training frames are the mark. In "
            "brackets the extractor: random-conv favours neither, v-encoder is the compared VAE's "
            "own encoder and favours it. Sharpness is the mean step between neighbouring pixels.",
            *table(figures),
        ),
        Section("Equal compute", "", *table({"count": outputs["operations"]})),
        Section("Samples", "", pictures=_samples(args, pair)),
        Section(
            "Reconstruction and inversion",
            "Held-out frames; what V's encoder and decoder make of them in one pass; what a search "
            "for the GAN's noise finds.",
            pictures=[("Real, VAE, GAN, each in a row", picture_address(_repainted(args, pair)))],
        ),
        Section(
            "Interpolation",
            "The upper row walks between V's codes of two real frames, the lower between two "
            "draws of the GAN's noise.",
            pictures=[("VAE above, GAN below", picture_address(_walk(pair)))],
        ),
        Section("Is a frame like a real one?", _oddity(pair)),
    ]
    return write_page(run.report, "GAN against VAE on the same frames", sections, run.read_config())


def conclusions(figures: Figures) -> list[str]:
    """Sentences that follow from the figures, whichever way they fell."""
    gan, vae = figures["GAN samples"], figures["VAE samples"]
    sentences = []
    for start in ("frechet_distance[random", "kid[random", "coverage[random"):
        name = next(key for key in gan if key.startswith(start))
        better = (gan[name] > vae[name]) == start.startswith("coverage")
        winner = "GAN" if better else "VAE"
        sentences.append(
            f"By {name} the {winner} has the better samples: GAN {gan[name]:.3g}, "
            f"VAE {vae[name]:.3g}."
        )
    real = figures["held-out frames"]["sharpness"]
    sharp = {name: figures[f"{name} samples"]["sharpness"] / real for name in ("GAN", "VAE")}
    sentences.append(
        f"The GAN's samples have {sharp['GAN']:.0%} of a real frame's sharpness, the VAE's "
        f"{sharp['VAE']:.0%}."
    )
    kept, found = figures["VAE reconstructions"], figures["GAN inversions"]
    ratio = found["squared error a pixel"] / kept["squared error a pixel"]
    sentences.append(
        f"The VAE repaints a given frame in one pass with a squared error of "
        f"{kept['squared error a pixel']:.2g} a pixel; the GAN needs {found['passes a frame']:.0f} "
        f"passes for {found['squared error a pixel']:.2g}, {ratio:.1f} times as much."
    )
    if ratio > 1:
        sentences.append(
            "A world model must say where a given frame lies, at every step and at once: that is "
            "the VAE's figure, and why the pipeline's V is one."
        )
    return sentences


@torch.no_grad()
def _samples(args: ComparisonArgs, pair: Pair) -> list[tuple[str, str]]:
    sets = {
        "Held-out frames": to_signed(pair.test[:SHOWN]),
        "GAN, from noise": pair.gan.sample(SHOWN, args.seed),
        "VAE, from its prior": comparison.vae_samples(pair.vae, SHOWN, args.seed),
    }
    return [(name, picture_address(sheet(to_bytes(x), 8))) for name, x in sets.items()]


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
    share = torch.linspace(0, 1, steps)[:, None]
    mu = pair.vae.encode((to_signed(pair.test[[0, len(pair.test) // 2]]) + 1) / 2)[0]
    ours = 2 * pair.vae.decode((1 - share) * mu[:1] + share * mu[1:]) - 1
    noise = pair.gan.average.noise(2, torch.Generator().manual_seed(1))
    angle = share * torch.pi / 2  # along an arc, so that the length stays that of noise
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
