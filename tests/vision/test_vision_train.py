"""Training of V: it learns, one seed gives one result, and a broken run resumes exactly."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from worldmodels.protocols import UserError
from worldmodels.vision.train import VisionTrainConfig, one_cycle, train_vision
from worldmodels.vision.vae import ConvVAE, VAEConfig

SMALL = VAEConfig(z_dim=4, width=4)
CFG = VisionTrainConfig(steps=8, finetune_steps=4, batch_size=6, checkpoint_every=3, log_every=2)
FRAMES = np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3)).astype(np.uint8)


def batches(start: int) -> Iterator[NDArray[np.uint8]]:
    """Batch k depends on k only."""
    while True:
        yield FRAMES[np.random.default_rng(start).integers(len(FRAMES), size=CFG.batch_size)]
        start += 1


class Killed(Exception):
    """Stands for a kill."""


def killed_at(step: int) -> Iterator[NDArray[np.uint8]]:
    for number, batch in enumerate(batches(0)):
        if number == step:
            raise Killed
        yield batch


def same(a: ConvVAE, b: ConvVAE) -> bool:
    return all(
        torch.equal(x, y)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_one_seed_one_result_and_exact_resume(tmp_path: Path) -> None:
    whole = train_vision(CFG, SMALL, batches, FRAMES, seed=3)
    again = train_vision(CFG, SMALL, batches, FRAMES, seed=3)
    other = train_vision(CFG, SMALL, batches, FRAMES, seed=4)
    assert same(whole, again)
    assert not same(whole, other)
    checkpoint = tmp_path / "vision.pt"
    with pytest.raises(Killed):
        train_vision(CFG, SMALL, lambda _: killed_at(5), FRAMES, seed=3, checkpoint=checkpoint)
    resumed = train_vision(CFG, SMALL, batches, FRAMES, seed=3, checkpoint=checkpoint)
    assert same(whole, resumed)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("first", "then"), [("cuda", "cpu"), ("cpu", "cuda"), ("cuda", "cuda")])
def test_a_training_goes_on_on_another_device(tmp_path: Path, first: str, then: str) -> None:
    cfg = dataclasses.replace(CFG, bfloat16=False)
    whole = train_vision(cfg, SMALL, batches, FRAMES, seed=3)
    checkpoint = tmp_path / "vision.pt"
    with pytest.raises(Killed):
        train_vision(
            cfg, SMALL, lambda _: killed_at(5), FRAMES, seed=3, checkpoint=checkpoint, device=first
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


def test_a_loss_that_is_not_finite_stops() -> None:
    cfg = VisionTrainConfig(steps=4, batch_size=6, log_every=1, learning_rate=0.9, bfloat16=False)
    broken = {name: value * float("nan") for name, value in ConvVAE(SMALL).state_dict().items()}
    with pytest.raises(UserError, match="V's loss is nan at step 0"):
        train_vision(cfg, SMALL, batches, FRAMES, seed=0, init=broken)


def test_schedule_rises_and_falls() -> None:
    rates = [one_cycle(step, 100, 1.0) for step in range(100)]
    assert max(rates) == pytest.approx(1.0)
    assert rates[0] < 0.3
    assert rates[-1] < 0.02


def test_bad_values_are_named() -> None:
    with pytest.raises(UserError, match=r"VisionTrainConfig\.learning_rate is 2"):
        VisionTrainConfig(learning_rate=2)
