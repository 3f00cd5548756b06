"""Pictures in and out: folders, batches by number, sheets, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sparse_gan.gan.data import (
    PictureBatches,
    load_pictures,
    read_folders,
    to_bytes,
    to_signed,
)
from sparse_gan.gan.pictures import Gallery, sheet
from worldmodels.protocols import UserError

S = 28


def save(path: Path, width: int = S, height: int = S, shade: int = 7) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), shade, np.uint8)).save(path)


def test_every_byte_comes_back() -> None:
    pictures = np.arange(2 * 16 * 8 * 3, dtype=np.uint8).reshape(2, 16, 8, 3)
    assert np.array_equal(to_bytes(to_signed(pictures)), pictures)
    grey = pictures[..., :1]
    assert np.array_equal(to_bytes(to_signed(grey)), grey.repeat(3, 3))
    assert to_signed(pictures).is_contiguous(memory_format=torch.channels_last)


def test_batches_are_known_by_their_number() -> None:
    pictures = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    source, other = PictureBatches(pictures, 3, seed=0), PictureBatches(pictures, 3, seed=0)
    first = [source(n) for n in range(7)]
    assert torch.equal(other(5), first[5])
    epoch = torch.cat(first[:3])[:, 0, 0, 0]
    assert len(set(epoch.tolist())) == 9
    assert not torch.equal(torch.cat(first[3:6])[:, 0, 0, 0], epoch)


def test_a_folder_of_images(tmp_path: Path) -> None:
    for number in range(12):
        save(tmp_path / "deep" / f"{number:02}.png", shade=number)
    (tmp_path / "notes.txt").write_text("no image")
    found = read_folders([tmp_path], S)
    assert found.shape == (12, S, S, 3)
    assert found[:, 0, 0, 0].tolist() == list(range(12))
    parts = load_pictures("images", S, folders=[tmp_path])
    assert (len(parts.train), len(parts.test)) == (10, 2)
    again = load_pictures("images", S, folders=[tmp_path, tmp_path / "deep"])
    np.testing.assert_array_equal(again.train, parts.train)
    save(tmp_path / "wide.png", 40, 30)
    with pytest.raises(UserError, match=r"wide\.png is 40x30; the network takes 28x28"):
        read_folders([tmp_path], S)
    assert read_folders([tmp_path], S, resize=True).shape == (13, S, S, 3)


def test_folders_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no images; allowed endings"):
        read_folders([tmp_path], S)
    with pytest.raises(UserError, match="there is no folder"):
        read_folders([tmp_path / "absent"], S)
    (tmp_path / "torn.png").write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match=r"torn\.png is not a readable image"):
        read_folders([tmp_path], S)
    with pytest.raises(UserError, match="--source is frames: name a run's folder with --data"):
        load_pictures("frames", 64)


@pytest.mark.parametrize("count", [1, 3])
def test_too_few_pictures_to_hold_some_out(tmp_path: Path, count: int) -> None:
    for number in range(count):
        save(tmp_path / f"{number}.png")
    with pytest.raises(UserError, match=rf"{tmp_path}: {count} pictures are too few; at least 4"):
        load_pictures("images", S, folders=[tmp_path])


def test_pixels_that_cannot_be_learnt_from() -> None:
    pictures = np.zeros((4, 8, 8, 1), np.float32)
    pictures[2, 1, 0, 0] = np.nan
    with pytest.raises(UserError, match=r"pictures have nan at \(2, 1, 0, 0\)"):
        PictureBatches(pictures, 2, 0)
    with pytest.raises(UserError, match="pictures reach 3"):
        PictureBatches(np.full((4, 8, 8, 1), 3.0), 2, 0)
    with pytest.raises(UserError, match=r"pictures are \(4, 8, 8\); expected"):
        PictureBatches(np.zeros((4, 8, 8), np.uint8), 2, 0)
    with pytest.raises(UserError, match="pictures are int64"):
        PictureBatches(np.zeros((4, 8, 8, 1), np.int64), 2, 0)
    with pytest.raises(UserError, match="batch_size is 5; it must be between 1 and"):
        PictureBatches(np.zeros((4, 8, 8, 1), np.uint8), 5, 0)


def test_sheets_of_one_noise_make_a_growing_grid(tmp_path: Path) -> None:
    pictures = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    large = sheet(pictures, columns=2)
    assert large.shape == (12, 8, 3)
    assert large[::4, ::4, 0].tolist() == [[0, 1], [2, 3], [4, 0]]
    gallery = Gallery(tmp_path, 4, columns=2)
    for step in (20, 0, 10):
        gallery.add(step, pictures + step)
    assert list(gallery.steps()) == [0, 10, 20]
    growing = gallery.growing(rows=2)
    assert growing.shape[2] == 3
    assert growing.shape[0] > 2 * 64
