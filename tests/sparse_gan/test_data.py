"""Data: reproducible, stratified, and files that are checked before they are unpacked."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from sparse_gan import data, files, preprocessing
from worldmodels.protocols import UserError


def idx(array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def test_synthetic_codes_are_what_they_say() -> None:
    source = data.SyntheticCodes(20, 40, density=0.1, seed=3)
    x, z = source.batch(500, 0)
    np.testing.assert_allclose(source.dictionary.norm(dim=0), 1, rtol=1e-5)
    np.testing.assert_allclose(x, z @ source.dictionary.T, rtol=1e-5)
    assert abs(float((z != 0).float().mean()) - 0.1) < 0.01
    again = data.SyntheticCodes(20, 40, density=0.1, seed=3).batch(500, 0)
    assert bool((again[1] == z).all())
    assert not bool((source.batch(500, 1)[1] == z).all())
    assert not bool((source.batch(500, 0, "test")[1] == z).all())
    noisy, _ = data.SyntheticCodes(20, 40, snr_db=20, seed=3).batch(500, 0)
    assert 90 < float(x.square().sum() / (noisy - x).square().sum()) < 110


def test_the_split_keeps_the_shares_and_leaves_nothing_out() -> None:
    labels = np.repeat(np.arange(3), (40, 20, 12)).astype(np.int64)
    train, test = data.stratified(labels, 0.25, seed=0)
    assert sorted([*train, *test]) == list(range(72))
    assert np.bincount(labels[test]).tolist() == [10, 5, 3]
    assert not np.array_equal(test, data.stratified(labels, 0.25, seed=1)[1])
    with pytest.raises(UserError, match="test_share is 1"):
        data.stratified(labels, 1, seed=0)


def test_digits() -> None:
    pytest.importorskip("sklearn")
    digits = data.digits(0)
    assert len(digits.train) + len(digits.test) == 1797
    np.testing.assert_allclose(np.linalg.norm(digits.train, axis=1), 1, rtol=1e-5)


def test_natural_images_and_patches() -> None:
    pytest.importorskip("skimage")
    (camera,) = data.natural_images(["camera"])
    assert camera.shape == (512, 512)
    assert 0 <= camera.min() < camera.max() <= 1
    patches = data.patches([camera], 50, 12, seed=0)
    assert patches.shape == (50, 12, 12)
    np.testing.assert_array_equal(patches, data.patches([camera], 50, 12, seed=0))
    with pytest.raises(UserError, match="no picture cat"):
        data.natural_images(["cat"])
    with pytest.raises(UserError, match=r"shape \(5, 9\) is smaller than a patch of 6"):
        data.patches([np.zeros((5, 9), np.float32)], 1, 6, 0)


def test_grey_values_are_weighted_and_other_pictures_are_refused() -> None:
    colours = np.eye(3, dtype=np.uint8)[None] * 255
    np.testing.assert_allclose(data.grey(colours), [data.GREY], rtol=1e-6)
    np.testing.assert_allclose(data.grey(np.full((2, 5), 51, np.uint8)), 0.2)
    for wrong in (np.zeros((4, 4), np.uint16), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4))):
        with pytest.raises(UserError, match=rf"pictures are {wrong.dtype} of shape \(4, 4"):
            data.grey(wrong)  # type: ignore[arg-type]  # wrong on purpose


def test_contrast_and_whitening() -> None:
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((4000, 6)) @ rng.standard_normal((6, 6))
    x = preprocessing.normalise_contrast(0.5 + 0.1 * mixed, floor=1e-6)
    np.testing.assert_allclose(x.mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, rtol=1e-3)
    raw = (mixed - mixed.mean(0)).astype(np.float32)
    whitening = preprocessing.Whitening.fit(raw)
    np.testing.assert_allclose(np.cov(whitening(raw).T, bias=True), np.eye(6), atol=1e-2)
    np.testing.assert_allclose(whitening(raw) @ whitening.inverse, raw, atol=1e-3)
    fewer = preprocessing.Whitening.fit(raw, keep=0.9)
    kept = fewer(raw) @ fewer.inverse
    assert fewer.matrix.shape[1] < 6
    assert 0.9 <= (kept**2).sum() / (raw**2).sum() < 1


def test_crops_move_and_turn() -> None:
    big = np.arange(100, dtype=np.float32).reshape(1, 10, 10)
    still = preprocessing.crop(big, 4)
    np.testing.assert_array_equal(still, big[:, 3:7, 3:7])
    np.testing.assert_array_equal(preprocessing.crop(big, 4, shift=2), big[:, 5:9, 5:9])
    turned = preprocessing.crop(big, 4, degrees=90)
    np.testing.assert_allclose(turned[0], np.rot90(still[0]), atol=1e-3)
    with pytest.raises(UserError, match="no room"):
        preprocessing.crop(big, 4, shift=4)


def test_high_pass_has_unit_deviation() -> None:
    x = preprocessing.high_pass(np.random.default_rng(0).random((2, 20, 20), np.float32))
    assert float(x.std()) == pytest.approx(1, rel=1e-5)


def test_mnist_from_a_folder(tmp_path: Path) -> None:
    pictures = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    labels = np.array([7, 1], np.uint8)
    for stem in ("train", "t10k"):
        (tmp_path / f"{stem}-images-idx3-ubyte").write_bytes(idx(pictures))
        (tmp_path / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    found = files.mnist(tmp_path)
    assert found.shape == (3, 4)
    np.testing.assert_allclose(found.train, preprocessing.unit_rows(pictures))
    assert found.test_labels.tolist() == [7, 1]
    (tmp_path / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(UserError, match="has none of t10k-images-idx3-ubyte"):
        files.mnist(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04", "is not an IDX file: it begins with 50 4b 03 04"),
        (b"", "begins with nothing"),
        (idx(np.zeros((2, 2), np.uint8))[:-1], "should hold 4 bytes after its header and holds 3"),
        (idx(np.zeros((2, 2), np.uint8)) + b"x", "holds more"),
        (b"\0\0\x08\x03\0\0", "ends within its header"),
        (struct.pack(">HBB2I", 0, 8, 2, 2**31, 2**31), "bytes are allowed|are allowed"),
    ],
)
def test_damaged_idx(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        files.read_idx(path)
    (tmp_path / "x.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match="not a whole gzip file"):
        files.read_idx(tmp_path / "x.gz")


def test_cifars_binary_files(tmp_path: Path) -> None:
    record = np.arange(files.CIFAR_RECORD, dtype=np.uint64).astype(np.uint8)
    record[0] = 5
    (tmp_path / "data_batch_1.bin").write_bytes(np.stack([record] * 3).tobytes())
    pictures, labels = files.cifar10(tmp_path)
    assert pictures.shape == (3, 32, 32, 3)
    assert pictures[0, 0, :2, 1].tolist() == record[[1025, 1026]].tolist()
    assert labels.tolist() == [5, 5, 5]
    (tmp_path / "data_batch_2.bin").write_bytes(b"short")
    with pytest.raises(UserError, match="has 5 bytes; expected a multiple of 3073"):
        files.cifar10(tmp_path)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("exploded"),)  # type: ignore[return-value]  # never unpickled


def test_cifars_pickles_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"has no data_batch_1.bin of CIFAR-10's binary version$"):
        files.cifar10(tmp_path)
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match="its Python version is a pickle, which could run any code"):
        files.cifar10(tmp_path)
    assert not (tmp_path / "exploded").exists()
