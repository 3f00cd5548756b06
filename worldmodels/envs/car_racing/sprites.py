"""What lies over the road in a CarRacing frame: the car and the dashboard."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from gymnasium.envs.box2d.car_dynamics import SIZE as UNIT
from gymnasium.envs.box2d.car_dynamics import WHEEL_R, WHEEL_W
from numpy.typing import NDArray

from worldmodels.envs.car_racing.rasterizer import (
    CANVAS_H,
    CANVAS_W,
    PER_X,
    PER_Y,
    ROWS,
    SIZE,
    fill_polygon,
    quantize,
)
from worldmodels.envs.kernels import kernel

CAR_WINDOW = 160
"""Canvas pixels in each direction in which the car is drawn; it needs 40 x 82."""
CAR_ROWS = int(CAR_WINDOW * PER_Y) + 3
CAR_COLS = int(CAR_WINDOW * PER_X) + 3
DARK, STRIPE, HULL = 1, 2, 3
"""Palette of the car: the wheels, their white stripes, the hull."""
STRIPE_GREY = 77
HULL_RED = 204
HULL_AT, WHEEL_AT, WHEEL_STRIDE = 1, 8, 5
"""Where the hull's and the first wheel's x, y, angle stand in a pose, and from wheel to wheel."""


@kernel
def cover_car(
    camera: Any, pose: Any, shapes: Any, shape_sizes: Any, window: Any, cover: Any
) -> tuple[int, int, int, int]:
    """Draw wheels with their white stripes, then the hull, at the canvas's own resolution.

    Args:
        camera: zoom, cos and sin of the view's turn, canvas X and Y of the world's origin.
        pose: as all others, see `scene.draw_frame`.
        shapes: polygons of the car.
        shape_sizes: their numbers of vertices.
        window: scratch.
        cover: (CAR_ROWS, CAR_COLS, 4) float32, written: how much of each pixel has which colour.

    Returns:
        The observation's pixels that `cover` is for: top and left, one past bottom and right.
    """
    zoom, cos, sin, shift_x, shift_y = camera
    left = int((cos * pose[1] - sin * pose[2]) * zoom + shift_x) - CAR_WINDOW // 2
    bottom = int((sin * pose[1] + cos * pose[2]) * zoom + shift_y) - CAR_WINDOW // 2
    xs, ys = np.empty(8, np.int64), np.empty(8, np.int64)
    spans = np.empty((CAR_WINDOW, 2), np.int32)
    stripe = np.empty((4, 2))
    low_x, high_x, low_y, high_y = CANVAS_W, 0, CANVAS_H, 0
    for k in range(12):  # each wheel and its stripe, then the four parts of the hull
        shape = 0 if k < 8 else k - 7
        at = WHEEL_AT + WHEEL_STRIDE * (k // 2) if k < 8 else HULL_AT
        vertices, n, index = shapes[shape], shape_sizes[shape], DARK if k < 8 else HULL
        if k < 8 and k % 2 == 1:
            if not _find_stripe(pose[at + 3], stripe):
                continue
            vertices, n, index = stripe, 4, STRIPE
        _project_body(camera, pose[at], pose[at + 1], pose[at + 2], vertices, n, xs, ys)
        low_x, high_x = min(low_x, xs[:n].min()), max(high_x, xs[:n].max())
        low_y, high_y = min(low_y, ys[:n].min()), max(high_y, ys[:n].max())
        fill_polygon(window, spans, left, bottom, xs, ys, n, index)
    low_x, high_x = max(low_x, left, 0), min(high_x, left + CAR_WINDOW - 1, CANVAS_W - 1)
    low_y, high_y = max(low_y, bottom, 0), min(high_y, bottom + CAR_WINDOW - 1, CANVAS_H - 1)
    if low_x > high_x or low_y > high_y:
        return 0, 0, 0, 0
    return _average(window, left, bottom, low_x, high_x, low_y, high_y, cover)


@kernel
def _project_body(
    camera: Any, x: float, y: float, angle: float, vertices: Any, n: int, xs: Any, ys: Any
) -> None:
    """Put a body's polygon on the canvas, in whole pixels."""
    zoom, turn_cos, turn_sin, shift_x, shift_y = camera
    cos, sin = math.cos(angle), math.sin(angle)
    for i in range(n):
        px = cos * vertices[i, 0] - sin * vertices[i, 1] + x
        py = sin * vertices[i, 0] + cos * vertices[i, 1] + y
        xs[i] = int((turn_cos * px - turn_sin * py) * zoom + shift_x)
        ys[i] = int((turn_sin * px + turn_cos * py) * zoom + shift_y)


@kernel
def _find_stripe(phase: float, points: Any) -> bool:
    """Put the visible part of a wheel's white stripe into points; False if it is underneath."""
    s1, s2 = math.sin(phase), math.sin(phase + 1.2)
    c1, c2 = math.cos(phase), math.cos(phase + 1.2)
    if s1 > 0 and s2 > 0:
        return False
    if s1 > 0:
        c1 = np.sign(c1)
    if s2 > 0:
        c2 = np.sign(c2)
    points[0] = (-WHEEL_W * UNIT, WHEEL_R * c1 * UNIT)
    points[1] = (WHEEL_W * UNIT, WHEEL_R * c1 * UNIT)
    points[2] = (WHEEL_W * UNIT, WHEEL_R * c2 * UNIT)
    points[3] = (-WHEEL_W * UNIT, WHEEL_R * c2 * UNIT)
    return True


@kernel
def _average(
    window: Any,
    left: int,
    bottom: int,
    low_x: int,
    high_x: int,
    low_y: int,
    high_y: int,
    cover: Any,
) -> tuple[int, int, int, int]:
    """Average the car's palette window over the observation's pixels, and empty it.

    The window starts at canvas pixel (left, bottom); the car covers low_x to high_x and low_y to
    high_y.
    """
    first_col, last_col = int(low_x * PER_X), int((high_x + 1) * PER_X)
    first_row, last_row = int((CANVAS_H - 1 - high_y) * PER_Y), int((CANVAS_H - low_y) * PER_Y)
    cover[: last_row - first_row + 2] = 0
    for y in range(low_y, high_y + 1):
        line = window[y - bottom]
        top = (CANVAS_H - 1 - y) * PER_Y
        row = int(top)
        upper = min(row + 1.0 - top, PER_Y)
        below = cover[row - first_row :]
        x, stop = low_x - left, high_x - left + 1
        while x < stop:
            index = line[x]
            start = x
            while x < stop and line[x] == index:
                x += 1
            if index != 0:
                begin, end = (start + left) * PER_X - first_col, (x + left) * PER_X - first_col
                _add_run(below, upper, begin, end, index)
        line[low_x - left : stop] = 0
    return first_row, first_col, last_row + 1, min(last_col + 1, SIZE)


@kernel
def paint_car(cover: Any, left: int, right: int, line: Any) -> None:
    """Paint one row of what `cover_car` covers over a line (3, SIZE) of the observation."""
    for col in range(left, right):
        parts = cover[col - left]
        free = max(1.0 - parts[DARK] - parts[STRIPE] - parts[HULL], 0.0)
        grey = STRIPE_GREY * parts[STRIPE]
        line[0, col] = line[0, col] * free + grey + HULL_RED * parts[HULL]
        line[1, col] = line[1, col] * free + grey
        line[2, col] = line[2, col] * free + grey


@kernel
def _add_run(cover: Any, upper: float, start: float, stop: float, index: int) -> None:
    """Add a run of a canvas row, `upper` of whose height lies in cover[0], the rest in [1]."""
    lower = PER_Y - upper
    col = int(start)
    while col < stop - 1e-9:
        width = min(stop, col + 1.0) - max(start, float(col))
        cover[0, col, index] += width * upper
        if lower > 1e-9:
            cover[1, col, index] += width * lower
        col += 1


@kernel
def draw_dashboard(pose: Any, text: Any, out: Any) -> None:
    """Paint the black panel, the score and the bars: speed, four wheels, steering, gyroscope."""
    out[ROWS:] = 0
    for row in range(text.shape[0]):
        for col in range(text.shape[1]):
            out[ROWS + row, col] = text[row, col]
    speed = math.sqrt(pose[4] * pose[4] + pose[5] * pose[5])
    _draw_upright(out, 5, speed, 0.02, 255, 255, 255)
    for k in range(4):
        omega = pose[WHEEL_AT + WHEEL_STRIDE * k + 4]
        _draw_upright(out, 7 + k, omega, 0.01, 0 if k < 2 else 51, 0, 255)
    _draw_level(out, 20, pose[7], -10.0, 0, 255)
    _draw_level(out, 30, pose[6], -0.8, 255, 0)


@kernel
def _draw_upright(
    out: Any, place: int, value: float, gain: float, red: int, green: int, blue: int
) -> None:
    """Paint a bar that grows upward from the panel's floor."""
    if abs(value) > 1e-4:
        top = int(CANVAS_H - (20 + 20 * gain * value))
        low, high = min(top, CANVAS_H - 20), max(top, CANVAS_H - 20)
        _draw_bar(out, place * 25, (place + 1) * 25 + 1, low, high + 1, red, green, blue)


@kernel
def _draw_level(out: Any, place: int, value: float, gain: float, red: int, green: int) -> None:
    """Paint a bar that grows to the right or left of its place."""
    if abs(value) > 1e-4:
        end = int((place + gain * value) * 25)
        low, high = min(end, place * 25), max(end, place * 25)
        _draw_bar(out, low, high + 1, CANVAS_H - 80, CANVAS_H - 40 + 1, red, green, 0)


@kernel
def _draw_bar(
    out: Any, x0: int, x1: int, y0: int, y1: int, red: int, green: int, blue: int
) -> None:
    """Paint one rectangle of canvas pixels [x0, x1) x [y0, y1), y downward.

    On the black panel neighbouring bars share pixels, so their light is added.
    """
    left, right = max(x0 * PER_X, 0.0), min(x1 * PER_X, float(SIZE))
    top, bottom = max(y0 * PER_Y, 0.0), min(y1 * PER_Y, float(SIZE))
    for row in range(int(top), min(int(bottom) + 1, SIZE)):
        high = min(bottom, row + 1.0) - max(top, float(row))
        for col in range(int(left), min(int(right) + 1, SIZE)):
            wide = min(right, col + 1.0) - max(left, float(col))
            if wide <= 1e-6 or high <= 1e-6:
                continue
            cover = np.float32(high * wide)
            free = np.float32(1.0) - cover if row < ROWS else np.float32(1.0)
            for c in range(3):
                light = np.float32(red if c == 0 else green if c == 1 else blue)
                level = out[row, col, c] * free + quantize(cover * light)
                out[row, col, c] = min(int(level), 255)


@functools.cache
def score_text(text: str) -> NDArray[np.uint8]:
    """Draw the score as it comes out in the dashboard's lower left corner: (12, 12) bytes of grey.

    pygame draws it, on a corner of stock's canvas with the same alignment to the observation's
    pixels. It needs no display for that.
    """
    import pygame

    width, height = CANVAS_W // 8, CANVAS_H // 8
    pygame.font.init()
    corner = pygame.Surface((width, height), depth=32)
    font = pygame.font.Font(pygame.font.get_default_font(), 42)
    drawn = font.render(text, True, (255, 255, 255), (0, 0, 0))
    place = drawn.get_rect()
    place.center = (60, height - 50)
    corner.blit(drawn, place)
    small = pygame.transform.smoothscale(corner, (SIZE // 8, SIZE // 8))
    return np.ascontiguousarray(pygame.surfarray.array3d(small)[:, :, 0].T)
