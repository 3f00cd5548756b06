"""The experiments' own statistics, on what is known and at a small size over seeds."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sparse_gan.gan.diagnostics import collapse, dirac, flatness, vanishing
from sparse_gan.gan.diagnostics.results_page import run_limits
from sparse_gan.gan.diagnostics.toys import generator_of, grid, mode_figures, ring
from sparse_gan.gan.diagnostics.verdicts import (
    LimitsArgs,
    Verdict,
    _dirac_verdicts,
    dirac_result,
)
from sparse_gan.gan.losses import LossConfig
from sparse_gan.gan.networks import MLPEnergy
from tests.pages.parser import standing_alone
from worldmodels.protocols import UserError
from worldmodels.runs import read_json

SEEDS = range(5)


def test_a_mixture_covers_itself() -> None:
    for truth, modes in ((ring(), 8), (grid(), 25)):
        figures = mode_figures(truth.draw(5000, generator_of(0)), truth)
        assert figures.covered == modes
        assert figures.quality == pytest.approx(1 - math.exp(-4.5), abs=0.01)
        assert figures.kl < 0.01


def test_collapse_is_counted() -> None:
    truth = ring()
    one = mode_figures(truth.centres[:1].repeat(100, 1), truth)
    assert (one.covered, one.quality) == (1, 1.0)
    assert one.kl == pytest.approx(math.log(8))
    two = mode_figures(truth.centres[[0, 0, 0, 4]].repeat(25, 1), truth)
    assert two.covered == 2
    assert two.kl == pytest.approx(0.75 * math.log(6) + 0.25 * math.log(2))
    lost = mode_figures(torch.zeros(100, 2), truth)
    assert (lost.covered, lost.quality, lost.kl) == (0, 0.0, math.log(8))


def test_a_stray_sample_covers_nothing() -> None:
    truth = ring()
    samples = torch.cat([truth.centres[:1].repeat(999, 1), truth.centres[1:2]])
    assert mode_figures(samples, truth).covered == 1


def test_where_g_outruns_f_fewer_modes_are_covered() -> None:
    cfg = collapse.CollapseConfig("ring", steps=200, width=32, batch=64, samples=500)
    # at this size no form is finished: what counts is how its samples are shared out
    spread: dict[collapse.Form, list[float]] = {form: [] for form in collapse.FORMS}
    for seed in range(2):
        for form, counts in spread.items():
            _, samples = collapse.run(cfg, form, seed)
            which = torch.cdist(samples, ring().centres).argmin(1)
            counts.append(float((torch.bincount(which, minlength=8) > 10).sum()))
    assert np.mean(spread["cured"]) > np.mean(spread["plain"])


@pytest.mark.parametrize("seed", SEEDS)
def test_dirac_orbits_shrink_with_a_penalty_and_not_without(seed: int) -> None:
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi)
    start = (float(np.cos(angle)), float(np.sin(angle)))
    cfg = dirac.DiracConfig(steps=150)
    plain = dirac.run(cfg, LossConfig("saturating"), start)
    cured = dirac.run(cfg, LossConfig("saturating", zero_penalty=1.0), start)
    assert dirac.shrinkage(plain) > 0.9
    assert dirac.shrinkage(cured) < 0.2


def test_a_wasserstein_step_of_dirac_is_the_known_rotation() -> None:
    rate, theta, psi = 0.1, 0.3, -0.8
    path = dirac.run(dirac.DiracConfig(3, rate), LossConfig("wasserstein", clip=10), (theta, psi))
    for row in path[1:].tolist():
        psi += rate * theta  # F = psi x falls at 0 and rises at theta: psi grows with theta
        theta -= rate * psi
        assert row == pytest.approx([theta, psi])


@pytest.fixture(scope="module")
def orbits() -> dict[str, Any]:
    return dirac_result(LimitsArgs(dirac_steps=500), 1)


@pytest.mark.parametrize("name", [*dirac.PLAIN, *dirac.SLOW, *dirac.TREATED])
def test_each_remedy_of_dirac_is_judged_on_the_loss_it_is_named_with(
    name: str, orbits: dict[str, Any]
) -> None:
    loss = (dirac.PLAIN | dirac.SLOW | dirac.TREATED)[name]
    assert loss.kind == name.split(" ")[0]
    assert (loss.zero_penalty > 0, loss.instance_noise > 0) == ("penalty" in name, "noise" in name)
    last = orbits[name]["shrinkage"]
    if name in dirac.CURED:
        assert last < 0.01
    else:
        assert last > 0.3 if name == "log" else last > 0.9


def test_the_claims_about_dirac_hold(orbits: dict[str, Any]) -> None:
    judged = _dirac_verdicts([orbits])
    assert len(judged) == 5
    assert all(verdict.passed for verdict in judged)


def test_noise_cannot_change_a_loss_that_is_linear() -> None:
    for kind in ("wasserstein", "wasserstein-gp"):
        plain = LossConfig(kind, clip=10.0, gradient_penalty=1.0)
        noisy = dataclasses.replace(plain, instance_noise=1.0)
        paths = [dirac.run(dirac.DiracConfig(50), loss, (0.6, 0.8)) for loss in (plain, noisy)]
        torch.testing.assert_close(paths[0], paths[1], rtol=1e-9, atol=1e-12)


def test_a_penalised_wasserstein_dirac_shrinks_at_the_rate_of_its_matrix() -> None:
    rate, steps = 0.1, 400
    loss = LossConfig("wasserstein", clip=10.0, zero_penalty=1.0)
    path = dirac.run(dirac.DiracConfig(steps, rate), loss, (0.6, 0.8))
    critic = np.array([[1, 0], [rate, 1 - rate]])  # of (theta, psi): psi steps first
    step = np.array([[1, -rate], [0, 1]]) @ critic
    expected = np.linalg.matrix_power(step, steps) @ (0.6, 0.8)
    np.testing.assert_allclose(path[-1], expected, rtol=1e-6)
    assert max(abs(np.linalg.eigvals(step))) < 1


@pytest.mark.parametrize("seed", SEEDS)
def test_the_saturating_loss_starves_g(seed: int) -> None:
    cfg = vanishing.VanishingConfig((0, 200), batch=64, width=64)
    curve = vanishing.run(cfg, seed)
    saturating, nonsaturating = curve.starved
    assert curve.certainty[-1] > 0.9
    assert saturating < 0.2 * nonsaturating
    assert nonsaturating > 1


def test_the_profile_of_a_known_energy() -> None:
    cfg = flatness.FlatnessConfig(rays=8, points=31)
    energy = MLPEnergy(4)
    energy.energy = lambda x: x.norm(dim=1)  # type: ignore[method-assign]  # a cone around 0
    cone = flatness.profile(energy, LossConfig("wasserstein"), cfg, 0)
    assert cone.far_over_near == pytest.approx(1.0, rel=1e-4)
    assert cone.energy[0] == pytest.approx(2.0, rel=1e-4)
    steep = flatness.profile(energy, LossConfig("saturating"), cfg, 0)
    far = np.array([d > 1.5 for d in steep.distance])
    assert np.all(np.array(steep.lesson)[far] < 0.05)  # sigmoid(-F), F being at least 3 there


def test_verdicts_count_seeds() -> None:
    verdict = Verdict("claim", "figure", [1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [True, True, False])
    assert not verdict.passed
    assert verdict.row() == ["claim", "figure", "2 (1 to 3)", "5 (4 to 6)", "2 of 3"]


def test_the_page_and_a_second_look_at_it(tmp_path: Path) -> None:
    args = LimitsArgs(1, tmp_path, 10, 10, 32, 12, 10)
    text = run_limits(args).read_text(encoding="utf-8")
    assert text.count('role="img"') == 6  # two toys, gradient, orbits, energy and lesson
    standing_alone(text)
    assert text.index("claims hold on") < text.index('id="mode-collapse"')
    judged = read_json(tmp_path / "verdicts.json")
    assert len(judged) == 3 + 3 + 1 + 5 + 2
    kept = tmp_path / "results" / "ring-1.json"
    before = kept.stat().st_mtime_ns
    run_limits(args)
    assert kept.stat().st_mtime_ns == before
    run_limits(dataclasses.replace(args, collapse_steps=11))
    assert kept.stat().st_mtime_ns > before
    with pytest.raises(UserError, match=r"LimitsArgs\.width is 3; it must be at least 10"):
        LimitsArgs(width=3)
