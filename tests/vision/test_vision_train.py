"""Training of V: it learns, one seed gives one result, and a broken run resumes exactly."""

from __future__ import annotations

import dataclasses
import itertools
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from worldmodels._training import TrainingLoop
from worldmodels.protocols import UserError
from worldmodels.vision import pace, train
from worldmodels.vision.train import Clip, VisionTrainConfig, statistics, train_vision
from worldmodels.vision.vae import QUANTISATION, ConvVAE, VAEConfig

SMALL = VAEConfig(z_dim=4, width=4)
STANDARDIZED = dataclasses.replace(SMALL, standardized=True)
CFG = VisionTrainConfig(steps=8, finetune_steps=4, batch_size=6, checkpoint_every=3, log_every=2)
FRAMES = np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3)).astype(np.uint8)


def batches(start: int) -> Iterator[NDArray[np.uint8]]:
    """Batch k depends on k only."""
    while True:
        yield FRAMES[np.random.default_rng(start).integers(len(FRAMES), size=CFG.batch_size)]
        start += 1


class Killed(Exception):
    """Stands for a kill."""


def killed(**line: Any) -> None:
    """A log that ends the process's life at step 4, after the checkpoint of step 3."""
    if line["step"] == 4:
        raise Killed


def same(a: ConvVAE, b: ConvVAE) -> bool:
    return all(
        torch.equal(x, y)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("shape", [SMALL, STANDARDIZED])
def test_one_seed_one_result_and_exact_resume(tmp_path: Path, shape: VAEConfig) -> None:
    whole = train_vision(CFG, shape, batches, FRAMES, seed=3)
    again = train_vision(CFG, shape, batches, FRAMES, seed=3)
    other = train_vision(CFG, shape, batches, FRAMES, seed=4)
    assert same(whole, again)
    assert not same(whole, other)
    checkpoint = tmp_path / "vision.pt"
    with pytest.raises(Killed):
        train_vision(CFG, shape, batches, FRAMES, seed=3, checkpoint=checkpoint, log=killed)
    assert checkpoint.exists()
    resumed = train_vision(CFG, shape, batches, FRAMES, seed=3, checkpoint=checkpoint)
    assert same(whole, resumed)


def test_a_gradient_out_of_all_proportion_is_scaled_down() -> None:
    model = ConvVAE(STANDARDIZED)
    found: Any = types.SimpleNamespace(trainable=list(model.parameters()), resumed={}, device="cpu")
    loop: TrainingLoop[ConvVAE] = found  # all that a clip needs of one
    clip = Clip(loop, enabled=True)

    def after(norm: float) -> float:
        for weight in model.parameters():
            weight.grad = torch.zeros_like(weight)
        model.to_mu.bias.grad = torch.full_like(model.to_mu.bias, norm / 2)  # four numbers
        clip()
        assert model.to_mu.bias.grad is not None
        return float(model.to_mu.bias.grad.norm())

    assert after(8.0) == pytest.approx(8.0)  # nothing is usual yet
    assert after(4.0) == pytest.approx(4.0)
    usual = 8.0 * 0.5**0.05
    assert after(1e6) == pytest.approx(usual)
    assert float(clip.usual) == pytest.approx(usual * (1e6 / usual) ** 0.05)
    off = Clip(loop, enabled=False)
    off()
    assert off.state() == {}


def test_the_matrix_product_of_the_decoder_copies_no_weight() -> None:
    model = train_vision(CFG, SMALL, batches, FRAMES, seed=0)
    weight = next(model.check_decoder().parameters())
    assert weight.is_contiguous()  # channels last, flatten copies it


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("first", "then"), [("cuda", "cpu"), ("cpu", "cuda"), ("cuda", "cuda")])
def test_a_training_resumes_on_another_device(tmp_path: Path, first: str, then: str) -> None:
    cfg = dataclasses.replace(CFG, bfloat16=False)
    whole = train_vision(cfg, SMALL, batches, FRAMES, seed=3)
    checkpoint = tmp_path / "vision.pt"
    with pytest.raises(Killed):
        train_vision(
            cfg, SMALL, batches, FRAMES, seed=3, checkpoint=checkpoint, device=first, log=killed
        )
    resumed = train_vision(cfg, SMALL, batches, FRAMES, seed=3, checkpoint=checkpoint, device=then)
    assert next(resumed.parameters()).device.type == then
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.cpu().state_dict()[name], value, rtol=0.02, atol=2e-3)


def test_loss_falls_and_is_logged() -> None:
    lines: list[dict[str, float]] = []
    cfg = VisionTrainConfig(
        steps=60, batch_size=8, log_every=10, bfloat16=False, learning_rate=3e-3
    )
    grey = np.full((8, 64, 64, 3), 200, np.uint8)

    def constant(start: int) -> Iterator[NDArray[np.uint8]]:
        while True:
            yield grey

    train_vision(cfg, SMALL, constant, grey, seed=0, log=lambda **line: lines.append(line))
    assert lines[-1]["step"] == 60
    assert lines[-1]["reconstruction"] < 0.5 * lines[0]["reconstruction"]
    assert {"val_loss", "images_per_second", "kl"} <= set(lines[-1])


def test_finetuning_starts_from_the_weights() -> None:
    first = train_vision(CFG, SMALL, batches, FRAMES, seed=3)
    frozen = VisionTrainConfig(steps=8, finetune_steps=0, batch_size=6)
    kept = train_vision(frozen, SMALL, batches, FRAMES, seed=9, init=first.state_dict())
    assert same(first, kept)


def test_finetuning_keeps_the_statistics_of_its_beginning() -> None:
    first = train_vision(CFG, STANDARDIZED, batches, FRAMES, seed=3)
    pixels = np.concatenate(list(itertools.islice(batches(0), 342))) / 255
    mean = pixels.mean(0).transpose(2, 0, 1)
    np.testing.assert_allclose(first.mean, mean, atol=1e-6)
    assert float(first.std) == pytest.approx((pixels - pixels.mean(0)).std(), rel=1e-5)

    def darker(start: int) -> Iterator[NDArray[np.uint8]]:
        return (batch // 2 for batch in batches(start))

    tuned = train_vision(CFG, STANDARDIZED, darker, FRAMES, seed=3, init=first.state_dict())
    assert torch.equal(tuned.mean, first.mean) and torch.equal(tuned.std, first.std)
    assert not same(tuned, first)


def test_statistics_do_not_depend_on_the_order() -> None:
    parts = list(np.split(FRAMES, 4))
    for found in (statistics(parts[::-1]), statistics([FRAMES])):
        assert torch.equal(found[0], statistics(parts)[0]) and found[1] == statistics(parts)[1]


def poles(count: int, seed: int) -> NDArray[np.uint8]:
    """White frames (N, 64, 64, 3) with a thin dark pole that walks, as a cart's does."""
    walk = 30 + np.random.default_rng(seed).integers(-2, 3, count).cumsum()
    frames = np.full((count, 64, 64, 3), 255, np.uint8)
    for frame, at in zip(frames, walk % 60, strict=True):
        frame[20:44, at : at + 2] = 60
    return frames


def learn_poles(shape: VAEConfig) -> dict[str, float]:
    """The last validation of a short training."""
    frames, holdout, lines = poles(256, 0), poles(65, 1), [dict[str, float]()]
    cfg = VisionTrainConfig(steps=160, batch_size=16, learning_rate=3e-3, bfloat16=False)

    def batches(start: int) -> Iterator[NDArray[np.uint8]]:
        while True:
            yield frames[np.random.default_rng(start).integers(len(frames), size=16)]
            start += 1

    def log(**line: Any) -> None:
        lines.append(line)

    train_vision(cfg, shape, batches, holdout[:-1], holdout[1:], seed=0, log=log)
    return lines[-1]


def test_a_thin_pole_on_white_is_learnt_only_standardised(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sigmoid paints white frames with logits that have no slope left."""
    shape = VAEConfig(z_dim=4, width=8, standardized=True)
    found = learn_poles(shape)
    assert found["val_explained"] > 0.4 and found["val_explained_moving"] > 0.4
    dead = dataclasses.replace(shape, standardized=False)
    found = learn_poles(dead)
    assert found["val_explained"] < train.EXPLAINED
    assert "warning: V explains" in capsys.readouterr().err
    monkeypatch.setattr(train, "ENOUGH_STEPS", 100)
    with pytest.raises(UserError, match=r"V explains -?\d+% .*160 steps.*vision\.standardized to"):
        learn_poles(dead)


@pytest.mark.parametrize("shape", [SMALL, STANDARDIZED])
def test_frames_that_never_change_are_named(
    shape: VAEConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    black = np.zeros((6, 64, 64, 3), np.uint8)

    def constant(start: int) -> Iterator[NDArray[np.uint8]]:
        while True:
            yield black

    lines: list[dict[str, float]] = []
    options: Any = {"seed": 0, "log": lambda **line: lines.append(line)}
    model = train_vision(CFG, shape, constant, black, black, **options)
    assert "warning: the frames never change" in capsys.readouterr().err
    assert "val_loss" in lines[-1] and "val_explained" not in lines[-1]
    if shape.standardized:
        assert float(model.std) == pytest.approx(QUANTISATION**0.5)
    monkeypatch.setattr(train, "ENOUGH_STEPS", 8)
    with pytest.raises(UserError, match="the frames never change"):
        train_vision(CFG, shape, constant, black, black, **options)


def test_a_loss_that_is_not_finite_stops() -> None:
    cfg = VisionTrainConfig(steps=4, batch_size=6, log_every=1, learning_rate=0.9, bfloat16=False)
    broken = {name: value * float("nan") for name, value in ConvVAE(SMALL).state_dict().items()}
    with pytest.raises(UserError, match="V's loss is nan at step 0"):
        train_vision(cfg, SMALL, batches, FRAMES, seed=0, init=broken)


@pytest.mark.parametrize(("fall", "last", "gain", "size"), [(0.9, 36, 0.9, 4), (-9.0, 60, -0.9, 8)])
def test_an_adaptive_training_ends_when_what_moves_is_no_longer_learnt(
    fall: float,
    last: int,
    gain: float,
    size: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It draws in at step 24, two fifths of the most, or at 40; z may be doubled."""
    monkeypatch.setattr(train, "TRIAL_STEPS", 4)
    monkeypatch.setattr(train, "GAIN", gain)
    monkeypatch.setattr(pace, "FALL", fall)
    monkeypatch.setattr(pace, "WITHIN", 8)
    cfg = dataclasses.replace(CFG, steps=60, log_every=1, adaptive=True)
    lines: list[dict[str, float]] = []

    def learn(**options: Any) -> ConvVAE:
        return train_vision(cfg, STANDARDIZED, batches, FRAMES[1:], FRAMES[:-1], seed=3, **options)

    whole = learn(log=lambda **line: lines.append(line))
    assert lines[-1]["step"] == last and "val_explained_moving" in lines[-1]
    told = capsys.readouterr().out
    assert f"falls from here to step {last} (at most 60)" in told
    assert whole.cfg.z_dim == size and f"V: z has {size} numbers" in told

    def kill(**line: Any) -> None:
        if line["step"] == 16:
            raise Killed

    checkpoint = tmp_path / "vision.safetensors"
    with pytest.raises(Killed):
        learn(checkpoint=checkpoint, log=kill)
    monkeypatch.setattr(train, "TRIAL_STEPS", 0)  # after a kill there is no other trial
    assert same(whole, learn(checkpoint=checkpoint))


def test_an_adaptive_rate_stays_at_its_peak_until_it_draws_in() -> None:
    cfg = dataclasses.replace(CFG, steps=300, learning_rate=1e-3, adaptive=True)
    loop = TrainingLoop("V", "posterior", lambda: ConvVAE(STANDARDIZED), cfg, {"seed": 0})
    rate = pace.Pace(loop, cfg.learning_rate, True).rate
    assert rate(0) < 1e-4 and rate(15) == rate(200) == pytest.approx(1e-3)
    assert rate(250) == pytest.approx(0.505e-3) and rate(299) < 2e-5
    loop.resumed = {"turn": 100, "errors": []}
    rate = pace.Pace(loop, cfg.learning_rate, True).rate
    assert loop.steps == 150 and rate(100) == pytest.approx(1e-3) and rate(149) < 2e-5


def test_schedule_rises_and_falls() -> None:
    rates = [pace.one_cycle(step, 100, 1.0) for step in range(100)]
    assert max(rates) == pytest.approx(1.0)
    assert rates[0] < 0.3
    assert rates[-1] < 0.02


def test_bad_values_are_named() -> None:
    with pytest.raises(UserError, match=r"VisionTrainConfig\.learning_rate is 2"):
        VisionTrainConfig(learning_rate=2)
