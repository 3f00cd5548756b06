"""Verdicts over seeds: does the failure show, does its remedy fix it, and by which figure."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from sparse_gan.gan.diagnostics import collapse, dirac, flatness, vanishing
from sparse_gan.gan.diagnostics.collapse import CollapseConfig
from sparse_gan.gan.diagnostics.dirac import DiracConfig
from sparse_gan.gan.diagnostics.flatness import FlatnessConfig
from sparse_gan.gan.diagnostics.toys import Toy, mixture
from sparse_gan.gan.diagnostics.vanishing import VanishingConfig
from worldmodels.config import AtLeast, Config, Count, Limit
from worldmodels.pages.text import power
from worldmodels.runs import (
    FolderPath,
    RunFolder,
    config_hash,
    derive_seed,
    progress,
    read_json,
    write_json,
)

STARVED, SETTLED, ORBIT, FLAT = 0.1, 0.01, 0.9, 0.2
"""Below: a starved or a settled game, a flat energy; above `ORBIT`, one that keeps circling."""


@dataclass(frozen=True)
class LimitsArgs(Config):
    """Size of the experiments."""

    seeds: Count = 5
    """number of seeds of each experiment: 1, 2, ..."""
    out: FolderPath = Path("runs/gan-limits")
    """run folder; finished experiments in it are read, not repeated"""
    collapse_steps: Annotated[int, AtLeast(10), Limit(10**9)] = 5000
    """training steps of a GAN on the ring or the grid"""
    width: Annotated[int, AtLeast(10), Limit(65_536)] = 128
    """units of the networks' hidden layers"""
    strength: Annotated[int, AtLeast(10), Limit(10**9)] = 800
    """steps of F at the end of the vanishing gradient"""
    dirac_steps: Annotated[int, AtLeast(10), Limit(10**9)] = 1000
    """steps of the Dirac-GAN"""
    flat_steps: Annotated[int, AtLeast(10), Limit(10**9)] = 2000
    """training steps of F alone"""


@dataclass(frozen=True)
class Verdict:
    """One claim, the figure it rests on in both forms, and on how many seeds it holds."""

    claim: str
    """what should be so"""
    figure: str
    """what is measured"""
    plain: list[float]
    """a seed each, in the failing form"""
    cured: list[float]
    """a seed each, in the cured form"""
    holds: list[bool]
    """a seed each"""

    @property
    def passed(self) -> bool:
        """Whether it holds on every seed."""
        return all(self.holds)

    def row(self) -> list[str]:
        """The line of a table."""
        both = (self.plain, self.cured)
        middle = [_short(statistics.median(values)) for values in both]
        span = [f"{_short(min(values))} to {_short(max(values))}" for values in both]
        count = f"{sum(self.holds)} of {len(self.holds)}"
        cells = [f"{m} ({s})" for m, s in zip(middle, span, strict=True)]
        return [self.claim, self.figure, *cells, count]


def _short(value: float) -> str:
    return power(float(f"{value:.3g}"))


def collapse_result(args: LimitsArgs, toy: Toy, seed: int) -> dict[str, Any]:
    """All forms of one toy: figures and samples."""
    cfg = CollapseConfig(toy, args.collapse_steps, width=args.width)
    result: dict[str, Any] = {"modes": len(mixture(toy).centres)}
    for form in collapse.FORMS:
        figures, samples = collapse.run(cfg, form, seed)
        result[form] = dataclasses.asdict(figures)
        result[f"{form}_samples"] = np.round(samples[:1000].numpy().astype(float), 3).tolist()
    return result


def vanishing_result(args: LimitsArgs, seed: int) -> dict[str, Any]:
    """Norms of G's gradient as F grows sure."""
    last = args.strength
    strengths = (0, *(last // 2**n for n in reversed(range(6))))
    cfg = VanishingConfig(tuple(dict.fromkeys(strengths)), width=args.width)
    return dataclasses.asdict(vanishing.run(cfg, seed))


def dirac_result(args: LimitsArgs, seed: int) -> dict[str, Any]:
    """Radius over time of every form, from a random start of radius 1 (some points only)."""
    rng = np.random.default_rng(derive_seed(seed, "dirac"))
    angle = rng.uniform(0, 2 * np.pi)
    start = (float(np.cos(angle)), float(np.sin(angle)))
    result: dict[str, Any] = {}
    for name, loss in (dirac.PLAIN | dirac.SLOW | dirac.TREATED).items():
        path = dirac.run(DiracConfig(args.dirac_steps), loss, start)
        every = max(1, len(path) // 500)
        result[name] = {
            "shrinkage": dirac.shrinkage(path),
            "path": np.round(path[::every].numpy(), 7).tolist(),
            "every": every,
        }
    return result


def flatness_result(args: LimitsArgs, seed: int) -> dict[str, Any]:
    """Energy and G's lesson along lines that leave the data, for every loss."""
    cfg = FlatnessConfig(args.flat_steps, width=args.width)
    result: dict[str, Any] = {}
    for name, loss in flatness.LOSSES.items():
        profile = flatness.profile(flatness.train(cfg, loss, seed), loss, cfg, seed)
        result[name] = {**dataclasses.asdict(profile), "far_over_near": profile.far_over_near}
    return result


EXPERIMENTS: dict[str, Callable[[LimitsArgs, int], dict[str, Any]]] = {
    "ring": lambda args, seed: collapse_result(args, "ring", seed),
    "grid": lambda args, seed: collapse_result(args, "grid", seed),
    "vanishing": vanishing_result,
    "dirac": dirac_result,
    "flatness": flatness_result,
}
"""By name: what one seed of an experiment finds."""
Results = dict[str, list[dict[str, Any]]]
"""By experiment: what each seed found."""


def results(args: LimitsArgs) -> Results:
    """Run every experiment on every seed, or read what a run has already found."""
    run = RunFolder(args.out)
    work = [(name, seed) for name in EXPERIMENTS for seed in range(1, args.seeds + 1)]
    found: Results = {name: [] for name in EXPERIMENTS}
    forms = [collapse.FORMS, dirac.PLAIN, dirac.SLOW, dirac.TREATED, flatness.LOSSES]
    size = config_hash([dataclasses.replace(args, seeds=1, out=Path()), *forms])
    for name, seed in progress(work, "limits", unit="experiment"):
        path = run.path / "results" / f"{name}-{seed}.json"
        if not path.exists() or read_json(path)["size"] != size:
            write_json(path, {"size": size, "result": EXPERIMENTS[name](args, seed)})
        found[name].append(read_json(path)["result"])
    return found


def verdicts(found: Results) -> list[Verdict]:
    """Judge what was found, seed by seed."""
    judged = []
    for toy in ("ring", "grid"):
        plain, cured = ([r[form] for r in found[toy]] for form in ("plain", "cured"))
        judged += _collapse_verdicts(toy, plain, cured)
    judged.append(_vanishing_verdict(found["vanishing"]))
    judged += _dirac_verdicts(found["dirac"])
    for name in ("saturating", "regression"):
        flat = [r[name]["far_over_near"] for r in found["flatness"]]
        cured = [r["wasserstein-gp"]["far_over_near"] for r in found["flatness"]]
        holds = [a < FLAT < b for a, b in zip(flat, cured, strict=True)]
        claim = f"far from the data the {name} loss teaches G little; a slope held at 1 does"
        figure = "G's gradient far over near, against wasserstein-gp"
        judged.append(Verdict(claim, figure, flat, cured, holds))
    return judged


def _collapse_verdicts(
    toy: str, plain: list[dict[str, float]], cured: list[dict[str, float]]
) -> list[Verdict]:
    judged = []
    for figure, sign in (("covered", 1), ("quality", 1), ("kl", -1)):
        a, b = [r[figure] for r in plain], [r[figure] for r in cured]
        holds = [sign * x < sign * y for x, y in zip(a, b, strict=True)]
        words = {
            "covered": "the plain GAN covers fewer modes",
            "quality": "fewer of its samples lie at a mode",
            "kl": "its modes are shared out less evenly",
        }
        units = {
            "covered": "modes covered",
            "quality": "fraction of good samples",
            "kl": "KL, nats",
        }
        judged.append(Verdict(f"{toy}: {words[figure]}", units[figure], a, b, holds))
    return judged


def _vanishing_verdict(found: list[dict[str, Any]]) -> Verdict:
    starved, fed = (
        [r[name][-1] / max(r[name][0], 1e-30) for r in found]
        for name in ("saturating", "nonsaturating")
    )
    return Verdict(
        "the saturating loss starves G once F is sure, the non-saturating one does not",
        "last over first norm of G's gradient",
        starved,
        fed,
        [a < STARVED and b > 1 for a, b in zip(starved, fed, strict=True)],
    )


DIRAC_CLAIMS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    (
        "Dirac orbits of saturating do not shrink; with a zero-centred penalty or noise they do",
        ("saturating",),
        ("saturating" + dirac.PENALTY, "saturating" + dirac.NOISE),
    ),
    (
        "Dirac orbits of wasserstein do not shrink; with a zero-centred penalty they do",
        ("wasserstein",),
        ("wasserstein" + dirac.PENALTY,),
    ),
    (
        "Dirac orbits of wasserstein do not shrink with instance noise either",
        ("wasserstein" + dirac.NOISE,),
        ("wasserstein" + dirac.PENALTY,),
    ),
    (
        "Dirac orbits of wasserstein-gp do not shrink; with a zero-centred penalty in place of "
        "its own they do",
        ("wasserstein-gp",),
        ("wasserstein" + dirac.PENALTY,),
    ),
    (
        "Dirac orbits of wasserstein-gp do not shrink with a zero-centred penalty or noise added",
        ("wasserstein-gp" + dirac.PENALTY, "wasserstein-gp" + dirac.NOISE),
        ("wasserstein" + dirac.PENALTY,),
    ),
)
"""What is claimed, the forms that should circle, and the forms that should settle."""


def _dirac_verdicts(found: list[dict[str, Any]]) -> list[Verdict]:
    judged = []
    for claim, circling, settling in DIRAC_CLAIMS:
        plain = [min(r[name]["shrinkage"] for name in circling) for r in found]
        cured = [max(r[name]["shrinkage"] for name in settling) for r in found]
        holds = [a > ORBIT and b < SETTLED for a, b in zip(plain, cured, strict=True)]
        figure = f"last over first radius, against {' and '.join(settling)}"
        judged.append(Verdict(claim, figure, plain, cured, holds))
    return judged
