"""`worldmodels gan`, `gan-vae`, `gan-limits`, `gan-score` and `sparse`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sparse_gan.coding.experiments import train_sparse
from sparse_gan.coding.setup import SparseArgs
from sparse_gan.gan.comparison import ComparisonArgs, compare
from sparse_gan.gan.data import load_pictures
from sparse_gan.gan.diagnostics.results_page import run_limits
from sparse_gan.gan.diagnostics.verdicts import LimitsArgs
from sparse_gan.gan.dreams import dreamt, reconstructed
from sparse_gan.gan.realism import realism
from sparse_gan.gan.run import GANArgs, train
from worldmodels.commands.parsing import AgentName, Command
from worldmodels.config import Count
from worldmodels.pages.text import figure
from worldmodels.protocols import DEFAULT_AGENT


@dataclass(frozen=True)
class GAN(GANArgs, Command):
    """Train a GAN as an energy-based model, and write a page about it.

        worldmodels gan --data runs/demo
        worldmodels gan --source digits --loss margin
        worldmodels gan --source images --data pictures --resize --loss ebgan

    The same command resumes an interrupted training. Digits and faces need the extra `sparse`.
    """

    common: ClassVar[str] = (
        "source data loss out size resize steps batch-size count width seed device"
    )

    def execute(self) -> None:
        """Train, and say where the page is."""
        print(f"report: {train(self)}")


@dataclass(frozen=True)
class GANAndVAE(ComparisonArgs, Command):
    """Compare a GAN with V on the same frames, with the same decoder and equal compute; a page.

        worldmodels gan-vae --data runs/demo

    The same command resumes an interrupted comparison.
    """

    def execute(self) -> None:
        """Compare, and say where the page is."""
        print(f"report: {compare(self)}")


@dataclass(frozen=True)
class GANLimits(LimitsArgs, Command):
    """Show where GANs fail, what cures them, and by which figure, over several seeds; a page.

    Mode collapse on a ring of 8 and a grid of 25 Gaussians, the vanishing gradient, orbits of the
    Dirac-GAN, an energy that is flat off the manifold. The same command resumes where it stopped.
    """

    def execute(self) -> None:
        """Run the experiments, and say where the page is."""
        print(f"report: {run_limits(self)}")


@dataclass(frozen=True)
class GANScore(Command):
    """Ask a GAN's energy whether a dream's frames are like real ones.

        worldmodels gan --data runs/demo --out runs/gan
        worldmodels gan-score --gan runs/gan --agent runs/demo --data runs/demo

    Scores real frames of held-out episodes, V's reconstructions of them, and frames of dreams in
    which the agent acts; an auroc of 0.5 is as real as reality. V's blur is in both of the latter,
    so what the dream adds is the difference between those two.
    """

    gan: Path
    """run folder of `worldmodels gan`"""
    data: tuple[Path, ...]
    """real frames: run folders, or folders of `worldmodels collect`"""
    agent: AgentName = DEFAULT_AGENT
    """agent that dreams: its folder, its run's folder, or the name of a bundled one"""
    frames: Count = 1000
    """number of frames of each kind, at most"""

    def execute(self) -> None:
        """Compare real, reconstructed and dreamt frames."""
        from worldmodels.agent import Agent

        driver = Agent.from_pretrained(self.agent)
        pictures = load_pictures("frames", 64, folders=self.data, count=5 * self.frames)
        real = pictures.test[: self.frames]
        others = {
            "reconstructed": reconstructed(driver, real),
            "dreamt": dreamt(driver, self.frames),
        }
        for name, row in realism(self.gan, real, others).items():
            print(f"{name:14} " + "  ".join(f"{key} {figure(value)}" for key, value in row.items()))


@dataclass(frozen=True)
class Sparse(SparseArgs, Command):
    """Train a sparse code or a sparse auto-encoder, and write a page about it.

        worldmodels sparse --method drsae --source digits
        worldmodels sparse --method topographic
        worldmodels sparse --method lista --data runs/demo

    Digits and natural images need the extra `sparse`.
    """

    common: ClassVar[str] = "method source data out units size count epochs seed device"

    def execute(self) -> None:
        """Train, and say where the page is."""
        print(f"report: {train_sparse(self)}")
