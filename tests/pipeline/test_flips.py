"""Runs that learn from horizontal flips too."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.pipeline.worker import tiny
from worldmodels.agent import Agent
from worldmodels.pipeline import run_pipeline
from worldmodels.protocols import UserError
from worldmodels.stages import LatentsFile
from worldmodels.stages.controller import recorded_starts
from worldmodels.stages.learning import half_flipped, held_out, originals
from worldmodels.tasks.car_racing import Flip


def test_a_run_with_flips_learns_from_both_images(unbroken: Path) -> None:
    latents = LatentsFile.load(unbroken / "iterations" / "01" / "latents-01.safetensors").latents
    assert latents.num_episodes == 2 * 2
    for first in (0, 2):
        seen, twin = (latents.select([first + k]) for k in (0, 1))
        assert seen.seeds == twin.seeds
        np.testing.assert_array_equal(seen.reward, twin.reward)
        np.testing.assert_array_equal(seen.action * [-1, 1, 1], twin.action)
        assert np.abs(seen.mu - twin.mu).max() > 1e-3
    held = held_out(60, horizontal_flip=True)
    assert np.flatnonzero(held).tolist() == [0, 1, 40, 41]  # both images or neither
    assert np.flatnonzero(held_out(60, horizontal_flip=False)).tolist() == [0, 20, 40]


def test_dreams_of_a_run_with_flips_begin_in_originals(unbroken: Path) -> None:
    file = LatentsFile.load(unbroken / "iterations" / "01" / "latents-01.safetensors")
    cfg = dataclasses.replace(tiny().starts, count=400)
    memory = Agent.from_pretrained(unbroken / "agent").memories[0]
    starts = recorded_starts(cfg, originals([file]), [memory], 0, posterior_noise=0.0)
    seen = file.latents.select([0, 2]).mu
    assert all((np.abs(seen - z).max(axis=1) < 1e-6).any() for z in starts.z)


def test_half_of_v_s_frames_are_flipped_and_a_resumed_run_sees_the_same() -> None:
    flip = Flip(1.0, "box")
    batches = [np.random.default_rng(k).integers(0, 255, (40, 64, 64, 3), np.uint8) for k in (0, 1)]
    all_of_them = list(half_flipped(iter(batches), flip, seed=3, start=0))
    resumed = list(half_flipped(iter(batches[1:]), flip, seed=3, start=1))
    np.testing.assert_array_equal(all_of_them[1], resumed[0])
    turned = [
        np.array_equal(a, flip.frames(b)) for a, b in zip(all_of_them[0], batches[0], strict=True)
    ]
    assert 10 < sum(turned) < 30


def test_only_a_known_symmetry_can_be_used(tmp_path: Path) -> None:
    from tests.experience import fakes

    cfg = dataclasses.replace(tiny(), env_id=fakes.BOX, made_for=None)
    with pytest.raises(UserError, match=r"test_env_id .* takes other actions than env_id"):
        run_pipeline(cfg, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    cfg = dataclasses.replace(cfg, test_env_id=None)
    with pytest.raises(UserError, match=f"horizontal_flip is on for {fakes.BOX}"):
        run_pipeline(cfg, tmp_path, seed=0, workers=1)
