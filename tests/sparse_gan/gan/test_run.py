"""Commands at their smallest: a GAN's page, its resume, GAN against VAE, and what they refuse."""

from __future__ import annotations

import runpy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sparse_gan.gan import comparison
from sparse_gan.gan.comparison import ComparisonArgs, VisionGenerator
from sparse_gan.gan.comparison_page import conclusions
from sparse_gan.gan.data import PictureSet
from sparse_gan.gan.networks import MLPGenerator
from sparse_gan.gan.page import PANELS, figures
from sparse_gan.gan.realism import realism
from sparse_gan.gan.run import GANArgs, networks, train
from sparse_gan.gan.train import GANStep
from tests.pages.parser import standing_alone
from tests.sinks import stand_in
from worldmodels.commands.parsing import read
from worldmodels.protocols import UserError
from worldmodels.runs import RunFolder, config_hash, read_json
from worldmodels.vision.vae import ConvVAE, VAEConfig

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "train_gan.py"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(130):
        picture = rng.integers(0, 256, (28, 28, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"{number:03}.png")
    return folder


def small(images: Path, out: Path, **changes: object) -> GANArgs:
    values = {"steps": 4, "batch_size": 8, "width": 2, "evaluate": 13, "size": 28}
    return GANArgs("images", "margin", (images,), out, **{**values, **changes})  # type: ignore[arg-type]  # mixed values


def test_a_run_makes_a_page_and_is_found_again(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sinks, args = stand_in(monkeypatch), small(images, tmp_path / "run")
    text = train(replace(args, log=("tensorboard", "wandb"))).read_text(encoding="utf-8")
    assert sinks.filled()
    assert "data:video/mp4;base64," in text
    assert text.count("data:image/png;base64,") == 3
    standing_alone(text)
    figures = read_json(args.run / "figures.json")
    assert "frechet_distance[random-conv-64-0]" in figures["samples"]
    assert {"anomaly/blur", "anomaly/own samples", "real"} <= set(figures)
    lines = len(RunFolder(args.run).metrics("train"))
    assert train(args).read_text(encoding="utf-8") == text
    assert len(RunFolder(args.run).metrics("train")) == lines
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (20, 28, 28, 3), dtype=np.uint8)
    scored = realism(args.run, frames, {"black": 0 * frames, "same": frames})
    assert scored["same"]["auroc"] == 0.5
    assert {"energy", "auroc", "auroc_deviation"} <= set(scored["black"])
    with pytest.raises(UserError, match="the frames of real are 64x64; the network takes 28x28"):
        realism(args.run, np.zeros((2, 64, 64, 3), np.uint8), {})
    with pytest.raises(UserError, match="trained with another loss"):
        train(small(images, args.run, margin=3.0))


@pytest.mark.parametrize(
    ("args", "field", "value"),
    [
        *((GANArgs, name, 0) for name in ("steps", "batch_size", "width", "count")),
        (GANArgs, "margin", 0.0),
        (GANArgs, "evaluate", 9),
        (GANArgs, "size", 30),
        (GANArgs, "generator_rate", 1.5),
        (GANArgs, "energy_rate", 0.0),
        (GANArgs, "zero_penalty", -1.0),
        (GANArgs, "instance_noise", float("nan")),
        (ComparisonArgs, "vae_steps", 0),
        (ComparisonArgs, "energy_width", 0),
        (ComparisonArgs, "evaluate", 1),
    ],
)
def test_a_setting_is_refused_by_its_option_s_name(args: Any, field: str, value: float) -> None:
    option = f"--{field.replace('_', '-')}"
    with pytest.raises(UserError, match=f"^{option} is {value}; it must be"):
        read(args, args=["--data", "x", option, str(value)])


def test_settings_that_do_not_go_together_name_their_options(images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--norm is batch, and the loss has a penalty"):
        GANArgs(loss="wasserstein-gp", norm="batch")
    with pytest.raises(UserError, match=r"^--batch-size is 500; there are 117 pictures to learn"):
        train(small(images, tmp_path / "run", batch_size=500))
    assert not (tmp_path / "run").exists()


def test_each_loss_has_its_papers_settings() -> None:
    wasserstein = GANArgs(loss="wasserstein").train_config()
    assert (wasserstein.optimiser, wasserstein.energy_steps) == ("rmsprop", 5)
    assert wasserstein.energy_rate == 5e-5
    assert GANArgs(loss="wasserstein-gp").train_config().beta1 == 0.0
    assert GANArgs(loss="log").train_config().generator_rate == 2e-4
    assert GANArgs(loss="log", energy_rate=1e-3).train_config().energy_rate == 1e-3
    _, energy = networks(GANArgs("digits", "wasserstein-gp", width=2), 1)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in energy.modules())


def test_the_script_says_what_is_wrong_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train_gan.py", "--source", "images", "--data", "absent"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert end.value.code == 2
    assert "there is no folder absent" in capsys.readouterr().err


def test_v_s_decoder_is_the_gans() -> None:
    torch.manual_seed(0)
    generator = VisionGenerator(VAEConfig())
    torch.manual_seed(0)
    vae = ConvVAE(VAEConfig())
    z = torch.randn(2, 32)
    with torch.no_grad():
        torch.testing.assert_close((generator(z) + 1) / 2, vae.decode(z))


def test_inversion_finds_what_g_can_make() -> None:
    torch.manual_seed(0)
    generator = MLPGenerator(2, 16).eval()
    with torch.no_grad():
        target = generator(torch.randn(3, 2))
    z = comparison.invert(generator, target, steps=200, starts=3, seed=0)
    with torch.no_grad():
        assert float((generator(z) - target).abs().max()) < 0.01


def test_operations_are_counted() -> None:
    a, b = torch.zeros(2, 3), torch.zeros(3, 5)
    assert comparison.operations(lambda: a @ b) == 2 * 2 * 3 * 5


def test_gan_against_vae_makes_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    monkeypatch.setattr(
        comparison, "load_pictures", lambda *_, **__: PictureSet(frames[:20], frames[20:])
    )
    args = ComparisonArgs(
        (tmp_path,),
        tmp_path / "run",
        2,
        4,
        evaluate=12,
        inverted=2,
        inversion_steps=2,
        inversion_starts=2,
        energy_width=4,
        log=("tensorboard", "wandb"),
    )
    sinks = stand_in(monkeypatch)
    text = comparison.compare(args).read_text(encoding="utf-8")
    assert sinks.filled() and text.count("data:image/png;base64,") == 5
    standing_alone(text)
    outputs = RunFolder(args.out).stage_outputs("compare")
    counted = outputs["operations"]
    vae = counted["vae steps"] * counted["operations of a vae step"]
    gan = counted["gan steps"] * counted["operations of a gan step"]
    assert abs(gan - vae) <= counted["operations of a gan step"]
    rows = outputs["figures"]
    assert {"GAN samples", "VAE samples", "GAN inversions", "training frames"} <= set(rows)


def test_the_conclusion_follows_the_figures() -> None:
    def row(distance: float, coverage: float) -> dict[str, float]:
        name = "[random-conv-64-0]"
        return {
            f"frechet_distance{name}": distance,
            f"kid{name}": distance,
            f"coverage{name}": coverage,
            "sharpness": 0.1,
        }

    figures = {
        "held-out frames": {"sharpness": 0.2},
        "GAN samples": row(1.0, 0.4),
        "VAE samples": row(2.0, 0.7),
        "VAE reconstructions": {"squared error a pixel": 0.002},
        "GAN inversions": {"squared error a pixel": 0.01, "passes a frame": 1200.0},
    }
    said = conclusions(figures)
    assert "the GAN has the better samples" in said[0]
    assert "the VAE has the better samples" in said[2]
    assert "1200 passes" in said[4] and "5.0 times" in said[4]
    assert "why the pipeline's V is one" in said[5]
    figures["GAN inversions"]["squared error a pixel"] = 0.001
    assert len(conclusions(figures)) == 5


def test_the_chart_draws_what_a_step_records(images: Path, tmp_path: Path) -> None:
    drawn = {line.key for panel in PANELS for line in panel.lines}
    assert drawn <= set(GANStep.__annotations__)
    args = small(images, tmp_path / "run")
    train(args)
    (*_, last) = RunFolder(args.run).metrics("train")
    assert set(last) - {"time", "stage"} == set(GANStep.__annotations__)
    inputs = read_json(args.run / "stages/train.json")["inputs"]
    assert inputs == config_hash(args)  # where the metrics go is no part of a run
    assert "log" not in read_json(args.run / "config.json")["config"]


def test_a_table_of_many_columns_has_errors_below_their_figures() -> None:
    row = {"kid[a]": 0.1234, "kid_deviation[a]": 0.01, "kid[b]": 2.0, "auroc": 0.5}
    narrow = figures({"samples": row}, "few").table
    assert narrow.head == ["", "samples"]
    assert narrow.rows[0] == ["KID\n(a)", "0.123 ± 0.010"]
    assert [name for name, _ in narrow.rows] == ["KID\n(a)", "KID\n(b)", "AUROC"]
    two = {f"set {k}": row | {f"more {n}": 1.0 for n in range(4)} for k in range(5)}
    wide = figures(two, "many").table
    assert wide.rows[0][:2] == ["KID\n(a)", "0.123\n± 0.010"]
    alone = figures({"samples": {"kid[a]": 1.5, "coverage[a]": 0.25}}, "one extractor").table
    assert [name for name, _ in alone.rows] == ["KID", "coverage"]
