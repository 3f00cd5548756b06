from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from worldmodels._from_json import from_json
from worldmodels.envs.frames import FrameSpec, to_vision
from worldmodels.protocols import UserError
from worldmodels.runs import to_jsonable

B, S = 3, 64


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def area_matrix(source: int, target: int) -> NDArray[np.float64]:
    """Row j averages the source pixels that target pixel j covers."""
    edges = np.arange(target + 1) * source / target
    pixels = np.arange(source)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights: NDArray[np.float64] = np.maximum(overlap, 0) * target / source
    return weights


@given(st.integers(S, 230), st.integers(S, 230), st.sampled_from([1, 3]), st.integers(0, 99))
def test_shrinking_averages_areas(height: int, width: int, channels: int, seed: int) -> None:
    frame = noise(height, width, channels, seed=seed)
    rows = np.tensordot(area_matrix(height, S), frame, axes=(1, 0))
    mean = np.tensordot(rows, area_matrix(width, S), axes=(1, 1)).transpose(0, 2, 1)
    assert np.abs(to_vision(frame, FrameSpec()) - mean).max() <= 0.501


def test_whole_ratios_equal_pillows_box_filter() -> None:
    frame = noise(128, 192, 3)
    expected = np.array(Image.fromarray(frame).resize((S, S), Image.Resampling.BOX)).astype(int)
    assert np.abs(to_vision(frame, FrameSpec()) - expected).max() <= 1


@pytest.mark.parametrize(("height", "width"), [(30, 40), (63, 64), (1, 5)])
def test_growing_interpolates_as_pillow_does(height: int, width: int) -> None:
    frame = noise(height, width, 3)
    bilinear = Image.fromarray(frame).resize((S, S), Image.Resampling.BILINEAR)
    assert np.abs(to_vision(frame, FrameSpec()) - np.array(bilinear).astype(int)).max() <= 1


def test_one_axis_may_grow_while_the_other_shrinks() -> None:
    frame = np.repeat(noise(200, 1, 3), 10, axis=1)
    seen = to_vision(frame, FrameSpec())
    assert seen.shape == (S, S, 3)
    assert (seen == seen[:, :1]).all()


def test_frames_of_the_right_size_stay_as_they_are() -> None:
    frames = noise(B, S, S, 3)
    assert np.array_equal(to_vision(frames, FrameSpec()), frames)


def test_batch_equals_single_frames() -> None:
    frames, spec = noise(B, 96, 96, 3), FrameSpec(rows=84)
    assert np.array_equal(
        to_vision(frames, spec), np.stack([to_vision(frame, spec) for frame in frames])
    )


def test_rows_below_the_crop_do_not_matter() -> None:
    frame = noise(96, 96, 3)
    changed = frame.copy()
    changed[84:] = 0
    spec = FrameSpec(rows=84)
    assert np.array_equal(to_vision(frame, spec), to_vision(changed, spec))
    assert np.array_equal(to_vision(frame, spec), to_vision(frame[:84], FrameSpec()))


def test_a_crop_cuts_off_all_four_sides() -> None:
    frame = noise(90, 120, 3)
    cut = frame[10:70, 30:115]
    assert np.array_equal(
        to_vision(frame, FrameSpec(crop=(10, 20, 30, 5))), to_vision(cut, FrameSpec())
    )
    both = FrameSpec(rows=80, crop=(10, 20, 0, 0))  # the crop is of the rows that are kept
    assert np.array_equal(to_vision(frame, both), to_vision(frame[10:60], FrameSpec()))
    assert np.array_equal(
        to_vision(frame[..., 0], FrameSpec(crop=(10, 20, 30, 5))),
        to_vision(cut[..., 0], FrameSpec()),
    )


def test_a_crop_that_leaves_nothing_is_refused() -> None:
    for crop in ((50, 40, 0, 0), (0, 0, 120, 0)):
        with pytest.raises(UserError, match=r"crop .* is \(.*must leave something of .* 90x120"):
            to_vision(noise(90, 120, 3), FrameSpec(crop=crop))
    with pytest.raises(UserError, match=r"crop is .*at least 0"):
        FrameSpec(crop=(-1, 0, 0, 0))


def test_files_without_a_crop_are_read_and_written_as_before() -> None:
    assert to_jsonable(FrameSpec(rows=84)) == {"rows": 84, "size": 64}
    assert from_json(FrameSpec, {"rows": 84, "size": 64}) == FrameSpec(84)
    cut = FrameSpec(crop=(1, 2, 3, 4))
    assert from_json(FrameSpec, to_jsonable(cut)) == cut


def test_grey_frames_get_three_equal_channels() -> None:
    grey = noise(80, 100)
    single = to_vision(grey, FrameSpec())
    assert single.shape == (S, S, 3)
    assert np.array_equal(single, to_vision(np.repeat(grey[:, :, None], 3, axis=2), FrameSpec()))
    assert np.array_equal(single, to_vision(grey[:, :, None], FrameSpec()))
    assert np.array_equal(to_vision(grey[None, :, :, None], FrameSpec()), single[None])


def test_memory_order_does_not_matter() -> None:
    frame = noise(3, 120, 90).transpose(1, 2, 0)
    assert np.array_equal(
        to_vision(frame, FrameSpec()), to_vision(np.ascontiguousarray(frame), FrameSpec())
    )


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((96, 96, 3)), "float64; they must be uint8"),
        (np.zeros((96, 96, 4), np.uint8), r"shape \(1, 96, 96, 4\)"),
        (np.zeros((0, 96, 3), np.uint8), "shape"),
        (np.zeros(96, np.uint8), "shape"),
    ],
)
def test_other_arrays_are_refused(frame: NDArray[np.uint8], message: str) -> None:
    with pytest.raises(UserError, match=message):
        to_vision(frame, FrameSpec())


def test_sizes_are_checked() -> None:
    with pytest.raises(UserError, match="rows is 0"):
        FrameSpec(rows=0)
    with pytest.raises(UserError, match="size is -1"):
        FrameSpec(size=-1)
