"""The command: every method at its smallest, its page, and what it refuses."""

from __future__ import annotations

import runpy
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from sparse_gan.coding.experiments import train_sparse
from sparse_gan.coding.report import conclusion, said, tiles
from sparse_gan.coding.setup import Method, SparseArgs
from tests.pages.parser import standing_alone
from tests.sinks import stand_in
from worldmodels.protocols import UserError
from worldmodels.runs import RunFolder, read_json

pytest.importorskip("skimage")
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "train_sparse.py"


def small(method: Method, out: Path) -> SparseArgs:
    return SparseArgs(method, out=out, count=240, size=6, units=9, epochs=1)


@pytest.mark.parametrize("method", get_args(Method))
def test_each_method_makes_a_page(
    method: Method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sinks = stand_in(monkeypatch)
    page = train_sparse(replace(small(method, tmp_path), log=("tensorboard", "wandb")))
    assert sinks.filled()
    text = page.read_text(encoding="utf-8")
    assert "data:image/png;base64," in text
    curves = len(RunFolder(tmp_path).metrics("train")) > 1
    assert ('aria-label="Training over' in text) == curves
    standing_alone(text)
    figures = read_json(tmp_path / "figures.json")
    wanted = {"drsae": "test_error", "topographic": "map_orientation", "lista": "lista_gap"}
    assert wanted.get(method, "reconstruction_snr_db") in figures


def test_a_finished_run_is_only_drawn_again(tmp_path: Path) -> None:
    args = small("dictionary", tmp_path)
    before = train_sparse(args).read_text(encoding="utf-8")
    seconds = read_json(tmp_path / "figures.json")["seconds"]
    assert train_sparse(args).read_text(encoding="utf-8") == before
    assert read_json(tmp_path / "figures.json")["seconds"] == seconds


def test_a_damaged_result_is_made_again(tmp_path: Path) -> None:
    args = small("dictionary", tmp_path)
    train_sparse(args)
    file = tmp_path / "pictures.npz"
    with np.load(file) as stored:
        before = dict(stored)
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    train_sparse(args)
    with np.load(file) as stored:
        assert set(stored) == set(before)
        assert all(np.array_equal(stored[name], before[name]) for name in before)


def test_tiles_keep_a_squares_neighbours() -> None:
    filters = np.zeros((9, 2, 2), np.float32)
    filters[5] = -3.0
    sheet = tiles(filters)
    assert sheet.shape == (10, 10)
    assert sheet[4:6, 7:9].tolist() == [[0, 0], [0, 0]]
    assert sheet[1, 1] == 128 and sheet[0, 0] == 255  # no weight; the frame around a filter
    assert tiles(np.ones((1000, 3, 3), np.float32), limit=100).shape == (41, 41)


def test_what_does_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--source is mnist: name its folder with --data"):
        SparseArgs("psd", "mnist")
    for field, value in (("units", 0), ("epochs", 0), ("count", 1), ("lam", -1.0), ("size", 0)):
        with pytest.raises(UserError, match=f"^SparseArgs.{field} is {value}; it must be at least"):
            SparseArgs("psd", **{field: value})  # type: ignore[arg-type]  # mixed values
    with pytest.raises(UserError, match=r"^SparseArgs.units is 8; it must be at least 9"):
        SparseArgs("topographic", units=8)
    with pytest.raises(UserError, match="device is 'tpu'; it must be cpu or cuda"):
        SparseArgs("psd", device="tpu")
    with pytest.raises(UserError, match="drsae needs classes; natural has none"):
        train_sparse(SparseArgs("drsae", "natural", out=tmp_path))
    with pytest.raises(UserError, match="convolutional needs images"):
        train_sparse(SparseArgs("convolutional", "digits", out=tmp_path))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--source", "frames"], "--source is frames: name its folder with --data"),
        (["--epochs", "0"], "--epochs is 0; it must be at least 1, or None"),
    ],
)
def test_the_script_says_what_is_wrong_in_one_line(
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["train_sparse.py", "--method", "psd", *words])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert end.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_a_page_says_its_figures_in_words() -> None:
    race = {"lista_gap": 0.0594, "ista_gap_at_16": 0.41, "fista_gap_at_16": 0.233}
    assert conclusion("lista", race) == (
        "After 16 iterations, LISTA is 5.9% above the least energy, FISTA 23%."
    )
    code = {"reconstruction_snr_db": 16.31, "active_fraction": 0.0341, "seconds": 75.2}
    assert conclusion("psd", code) == (
        "Held-out data are reconstructed with a signal to noise of 16.3 dB, with 3.4% of the units "
        "active."
    )
    assert said("seconds", code) == "1 min 15 s"
    assert said("test_error", {"test_error": 0.082, "test_samples": 450}) == "8.2 ± 1.3%"
