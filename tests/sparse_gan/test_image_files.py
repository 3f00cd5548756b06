"""Image files of every kind: the pixels that a viewer would show, or one line with the name."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sparse_gan.image_files import MOST_PIXELS, find_images, read_image
from worldmodels.protocols import UserError

H, W = 3, 5
RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (H, W, 3), np.uint8)
GREY = RGB[..., 0]


def saved(path: Path, pixels: NDArray[np.generic], mode: str | None = None) -> Path:
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)
    return path


def test_sixteen_bits_keep_their_upper_eight(tmp_path: Path) -> None:
    wide = (GREY.astype(np.uint16) << 8) + 200
    for name in ("wide.png", "wide.tif"):
        read = read_image(saved(tmp_path / name, wide))
        np.testing.assert_array_equal(read, GREY[..., None].repeat(3, 2))
    rows = b"".join(b"\0" + row.tobytes() for row in (RGB.astype(">u2") * 256 + 77).astype(">u2"))
    np.testing.assert_array_equal(read_image(png(tmp_path / "rgb.png", W, H, 16, 2, rows)), RGB)


def png(path: Path, width: int, height: int, depth: int, colours: int, rows: bytes) -> Path:
    """A PNG written by hand: of 16-bit RGB, which Pillow does not write, or of any stated size."""
    head = struct.pack(">2I5B", width, height, depth, colours, 0, 0, 0)
    parts = (b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.swapaxes(0, 1),
        6: np.rot90(RGB, -1),
        7: RGB[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(RGB),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), upright)


def test_colours_below_full_transparency_are_not_seen(tmp_path: Path) -> None:
    alpha = np.zeros((H, W), np.uint8)
    alpha[0], alpha[1, 0] = 255, 51
    shown = read_image(saved(tmp_path / "a.png", np.dstack([RGB, alpha])))
    np.testing.assert_array_equal(shown[0], RGB[0])
    np.testing.assert_array_equal(shown[2], 255)
    np.testing.assert_allclose(shown[1, 0], 255 + 0.2 * (RGB[1, 0] - 255.0), atol=1)
    grey = read_image(saved(tmp_path / "la.png", np.dstack([GREY, alpha])))
    np.testing.assert_array_equal(grey[0, :, 1], GREY[0])
    np.testing.assert_array_equal(grey[2], 255)


def test_a_transparent_colour_is_not_seen(tmp_path: Path) -> None:
    palette = Image.fromarray(np.array([[0, 1, 0]], np.uint8), "P")
    palette.putpalette([9, 8, 7, 30, 20, 10])
    palette.save(tmp_path / "p.png", transparency=0)
    palette.save(tmp_path / "p.gif", transparency=0)
    expected = [[[255] * 3, [30, 20, 10], [255] * 3]]
    assert read_image(tmp_path / "p.png").tolist() == expected
    assert read_image(tmp_path / "p.gif").tolist() == expected
    wide = Image.fromarray(np.array([[513, 514]], np.uint16))
    wide.save(tmp_path / "wide.png", transparency=513)
    assert read_image(tmp_path / "wide.png").tolist() == [[[255] * 3, [2] * 3]]


def test_other_colour_spaces(tmp_path: Path) -> None:
    flat = np.full((8, 8, 3), (200, 30, 90), np.uint8)
    saved(tmp_path / "cmyk.jpg", flat, "CMYK")
    np.testing.assert_allclose(read_image(tmp_path / "cmyk.jpg"), flat, atol=6)
    saved(tmp_path / "bits.png", GREY > 99)
    np.testing.assert_array_equal(read_image(tmp_path / "bits.png")[..., 1], 255 * (GREY > 99))


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((4, 4), shade, np.uint8)) for shade in (50, 200)]
    for name in ("a.gif", "a.png", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert (read_image(tmp_path / name) == 50).all()


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_a_range_that_is_unknown_is_refused(tmp_path: Path, kind: type[np.generic]) -> None:
    path = saved(tmp_path / "depth.tif", GREY.astype(kind))
    with pytest.raises(UserError, match=r"depth\.tif has .*, whose range is unknown; save it with"):
        read_image(path)


def test_a_decompression_bomb_is_refused_and_a_large_photograph_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    bomb = png(tmp_path / "bomb.png", 30_000, 30_000, 1, 0, b"")
    for limit in (Image.MAX_IMAGE_PIXELS, None):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(UserError, match=rf"bomb\.png has .* at most {MOST_PIXELS:,}"):
            read_image(bomb)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", H * W - 1)  # where Pillow warns
    assert read_image(saved(tmp_path / "large.png", RGB)).shape == RGB.shape
    assert not recwarn.list


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "gif", "webp", "tif"])
def test_damaged_files_are_named(tmp_path: Path, ending: str) -> None:
    big = RNG.integers(0, 256, (40, 40, 3), np.uint8)
    whole = saved(tmp_path / f"whole.{ending}", big).read_bytes()
    torn = tmp_path / f"torn.{ending}"
    for length in (0, 3, 20, len(whole) // 2):
        torn.write_bytes(whole[:length])
        with pytest.raises(UserError, match=rf"torn\.{ending} is"):
            read_image(torn)


def test_folders_are_searched_but_not_what_is_hidden(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/1.jpg", "a/éß漢.webp", "a/.cache/x.png", "a/._1.jpg", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    os.symlink(tmp_path, tmp_path / "b" / "loop")
    os.symlink(tmp_path / "b" / "1.jpg", tmp_path / "twice.jpg")
    found = [str(path.relative_to(tmp_path)) for path in find_images([tmp_path])]
    assert found == ["a/éß漢.webp", "b/1.jpg", "b/2.PNG"]
    assert find_images([tmp_path, tmp_path / "a"]) == find_images([tmp_path])
    os.symlink(tmp_path / "nowhere", tmp_path / "broken.gif")
    with pytest.raises(UserError, match=r"broken\.gif is not a file that can be read"):
        find_images([tmp_path])
    os.remove(tmp_path / "broken.gif")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UserError, match=r"pipe\.png is not a file"):
        find_images([tmp_path])
