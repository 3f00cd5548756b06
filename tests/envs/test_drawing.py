from __future__ import annotations

import numpy as np
import pygame
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from worldmodels.envs.car_racing.ground import CANVAS_H, CANVAS_W, ROWS, SIZE, add_edge
from worldmodels.envs.car_racing.scene import fill_polygon, quantize

FINE = 10  # samples per pixel and axis of the reference


def coverage(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cover a polygon given in observation pixels, clockwise on the screen."""
    planes = np.zeros((ROWS + 2, 2, SIZE), np.float32)
    x = corners[:, 0] * CANVAS_W / SIZE - 0.5
    y = CANVAS_H - 0.5 - corners[:, 1] * CANVAS_H / SIZE
    for i in range(len(corners)):
        j = (i + 1) % len(corners)
        add_edge(planes, 0, 1, x[i], y[i], x[j], y[j], 1.0)
    assert np.array_equal(planes[:, 0], planes[:, 1])
    sums: NDArray[np.float64] = np.cumsum(planes[:ROWS, 0].astype(float), axis=0)
    return sums


def sampled(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same by counting samples inside a convex polygon."""
    xs = (np.arange(SIZE * FINE) + 0.5) / FINE
    ys = (np.arange(ROWS * FINE) + 0.5) / FINE
    inside = np.ones((len(ys), len(xs)), bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        inside &= (bx - ax) * (ys[:, None] - ay) - (by - ay) * (xs[None] - ax) >= 0
    mean: NDArray[np.float64] = inside.reshape(ROWS, FINE, SIZE, FINE).mean(axis=(1, 3))
    return mean


def polygon(middle: tuple[float, float], radius: float, angles: list[float]) -> NDArray[np.float64]:
    """A convex polygon, its corners clockwise on a screen whose y goes down."""
    turn = np.sort(np.array(angles))
    corners: NDArray[np.float64] = np.stack([np.cos(turn), np.sin(turn)], axis=1) * radius + middle
    return corners


@settings(max_examples=40)
@given(
    st.tuples(st.floats(-20, 116), st.floats(-20, 104)),
    st.floats(0.3, 150),
    st.lists(st.floats(0, 6.28), min_size=3, max_size=7),
)
def test_coverage_is_the_covered_area(
    middle: tuple[float, float], radius: float, angles: list[float]
) -> None:
    corners = polygon(middle, radius, angles)
    assume(min(np.diff(np.sort(angles))) > 1e-3)  # with fewer corners the samples see a half-plane
    error = np.abs(coverage(corners) - sampled(corners))
    assert error.max() < 2.5 / FINE
    assert error.mean() < 2e-3


def test_neighbours_fill_a_pixel_together() -> None:
    left = np.array([[10.0, 10], [20.3, 10], [33.7, 50], [10, 50]])
    right = np.array([[20.3, 10.0], [60, 10], [60, 50], [33.7, 50]])
    both = coverage(left) + coverage(right)
    assert np.allclose(both[10:50, 10:60], 1, atol=1e-5)
    assert np.allclose(both.sum(), 40 * 50, atol=1e-2)


def test_edges_outside_the_view_still_close_the_polygon() -> None:
    everywhere = np.array([[-500.0, -400], [700, -300], [600, 500], [-300, 600]])
    assert np.allclose(coverage(everywhere), 1, atol=1e-4)


@given(
    st.tuples(st.integers(20, 80), st.integers(20, 80)),
    st.floats(0.5, 60),
    st.lists(st.floats(0, 6.28), min_size=4, max_size=8),
)
def test_filled_polygons_are_those_of_pygame(
    middle: tuple[int, int], radius: float, angles: list[float]
) -> None:
    corners = polygon(middle, radius, angles).astype(np.int64)
    size = 100
    surface = pygame.Surface((size, size), depth=32)
    pygame.draw.polygon(surface, (255, 255, 255), corners.tolist())
    expected = pygame.surfarray.array3d(surface)[:, :, 0].T > 0
    window, spans = np.zeros((size, size), np.uint8), np.zeros((size, 2), np.int32)
    xs, ys = np.ascontiguousarray(corners.T)
    fill_polygon(window, spans, 0, 0, xs, ys, len(corners), 3)
    if ys.min() == ys.max():  # a line, which no part of the car is
        assert not window.any()
        return
    # corners cut to whole pixels may dent a polygon; pygame then leaves gaps that are filled here
    differs = (window > 0) != expected
    assert differs.sum() <= 2 + 0.02 * expected.sum()
    assert set(np.unique(window)) <= {0, 3}


def test_window_cuts_a_polygon_off() -> None:
    window, spans = np.zeros((10, 10), np.uint8), np.zeros((10, 2), np.int32)
    xs, ys = np.array([95, 120, 120, 95]), np.array([195, 195, 220, 220])
    fill_polygon(window, spans, 100, 200, xs, ys, 4, 1)
    assert window.all()
    window[:] = 0
    fill_polygon(window, spans, 200, 200, xs, ys, 4, 1)
    assert not window.any()


@pytest.mark.parametrize("color", [0, 1, 2, 3, 51, 102, 104, 107, 204, 230, 254, 255])
def test_even_areas_come_out_as_pygame_scales_them(color: int) -> None:
    surface = pygame.Surface((CANVAS_W, CANVAS_H), depth=32)
    surface.fill((color, color, color))
    scaled = pygame.surfarray.array3d(pygame.transform.smoothscale(surface, (SIZE, SIZE)))
    assert (scaled == int(quantize(np.float32(color)))).all()


def test_mixed_areas_have_no_bias_against_pygame() -> None:
    rng = np.random.default_rng(0)
    blocks = rng.integers(90, 230, (CANVAS_W // 8, CANVAS_H // 8, 1)).repeat(3, axis=2)
    canvas = blocks.repeat(8, axis=0).repeat(8, axis=1).astype(np.uint8)
    surface = pygame.Surface((CANVAS_W, CANVAS_H), depth=32)
    pygame.surfarray.blit_array(surface, canvas)
    scaled = pygame.surfarray.array3d(pygame.transform.smoothscale(surface, (SIZE, SIZE)))
    fine = canvas[:, :, 0].repeat(12, axis=0).repeat(3, axis=1).astype(np.float32)
    mean = fine.reshape(SIZE, CANVAS_W * 12 // SIZE, SIZE, CANVAS_H * 3 // SIZE).mean(axis=(1, 3))
    ours = np.array([[int(quantize(value)) for value in row] for row in mean])
    error = ours - scaled[:, :, 0].astype(int)
    assert abs(error.mean()) < 0.1
    assert np.abs(error).max() <= 1
