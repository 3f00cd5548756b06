"""A whole CarRacing frame: the ground's colours mixed by coverage, then car and dashboard."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from gymnasium.envs.box2d.car_dynamics import SIZE as UNIT
from gymnasium.envs.box2d.car_dynamics import WHEEL_R, WHEEL_W
from numpy.typing import NDArray

from worldmodels.envs.car_racing import ground
from worldmodels.envs.car_racing.ground import CANVAS_H, CANVAS_W, PER_X, PER_Y, ROWS, SIZE, kernel

POSE_SIZE, HULL_AT, WHEEL_AT, WHEEL_STRIDE = 28, 1, 8, 5
"""Numbers of a pose (see `draw_frame`), where the hull's and the first wheel's x, y, angle stand in
it, and from wheel to wheel."""
CAR_WINDOW = 160
"""Canvas pixels in each direction in which the car is drawn; it needs 40 x 82."""
DARK, STRIPE, HULL = 1, 2, 3
"""Palette of the car: the wheels, their white stripes, the hull."""
STRIPE_GREY, HULL_RED = 77, 204
NOWHERE = -1_000_000


def make_scratch() -> tuple[NDArray[Any], ...]:
    """Planes of coverage, the car's share (H, W, 4) of pixels by colour, its window of the canvas.

    Planes and window are zeros before and after each frame.
    """
    near = int(CAR_WINDOW * PER_Y) + 3, int(CAR_WINDOW * PER_X) + 3, 4
    planes = np.zeros((ROWS + 2, ground.NUM_PLANES, SIZE), np.float32)
    return planes, np.zeros(near, np.float32), np.zeros((CAR_WINDOW, CAR_WINDOW), np.uint8)


@kernel
def draw_frame(
    pose: Any, road: Any, palette: Any, shapes: Any, text: Any, scratch: Any, out: Any
) -> None:
    """Draw one observation.

    Args:
        pose: (POSE_SIZE) zoom; the hull's x, y, angle, velocity x, y and angular velocity; the
            first wheel's joint angle; then x, y, angle, phase and omega of each wheel.
        road: sections, borders and sides as `track.lay_road` returns them, and shade (N): 0, 1 or
            2, index of tile i's colour.
        palette: (5, 3) float32 colours: grass, lighter grass, the three shades of road.
        shapes: polygons (5, 8, 2) of a wheel and the hull's four, in the body's frame, and their
            numbers of vertices (5).
        text: (12, 12, 3) uint8, the score as `score_text` draws it.
        scratch: see `make_scratch`.
        out: (SIZE, SIZE, 3) uint8, written.
    """
    planes, cover, window = scratch
    zoom, x, y = pose[0], -pose[1] * pose[0], -pose[2] * pose[0]
    cos, sin = math.cos(-pose[3]), math.sin(-pose[3])
    shift_x = CANVAS_W / 2 + (x * cos - y * sin)
    shift_y = CANVAS_H / 4 + (x * sin + y * cos)
    camera = (zoom, cos, sin, shift_x, shift_y)
    outside = ground.draw_grass(camera, planes)
    box = _cover_car(camera, pose, shapes, window, cover)
    kerbs = ground.draw_road(camera, road, planes)
    _mix(planes, palette, outside, kerbs, cover, box, out)
    _draw_dashboard(pose, text, out)


@kernel
def _mix(
    planes: Any, palette: Any, outside: bool, kerbs: bool, cover: Any, box: Any, out: Any
) -> None:
    """Mix all colours row by row, paint the car, turn means into bytes, and empty the planes.

    Means to bytes can be vectorised, the order of the channels cannot, so these are two steps.
    """
    sums, shares = np.zeros((ground.NUM_PLANES, SIZE), np.float32), np.empty((4, SIZE), np.float32)
    line, levels = np.empty((3, SIZE), np.float32), np.empty((3, SIZE), np.uint8)
    if not outside:
        sums[ground.FIELD] = 1
    top, left, bottom, right = box
    for row in range(ROWS):
        ground.mix_row(planes[row], palette, outside, kerbs, sums, shares, line)
        if top <= row < bottom:
            _paint_car(cover[row - top], left, right, line)
        for c in range(3):
            for col in range(SIZE):
                levels[c, col] = np.uint8(np.int32(quantize(line[c, col])))
        pixels = out[row].reshape(3 * SIZE)
        for col in range(SIZE):
            pixels[3 * col] = levels[0, col]
            pixels[3 * col + 1] = levels[1, col]
            pixels[3 * col + 2] = levels[2, col]
    planes[ROWS:] = 0


@kernel
def quantize(value: Any) -> Any:
    """Turn a mean colour into the level that pygame's two-pass integer `smoothscale` gives.

    Each pass cuts off fractions. An even area of colour c comes out as c - 2, a mixed one 1.25
    lower than its mean on average, of which the conversion to a byte will take half a level.
    """
    tolerance = np.float32(0.002)
    whole = np.floor(value + tolerance)
    level = value - np.float32(0.75) if value - whole > tolerance else whole - np.float32(2)
    return level if level > np.float32(0) else np.float32(0)


@kernel
def _cover_car(
    camera: Any, pose: Any, shapes: Any, window: Any, cover: Any
) -> tuple[int, int, int, int]:
    """Draw wheels with their white stripes, then the hull, at the canvas's own resolution.

    Returns the observation's pixels that `cover` is for: top, left, one past bottom and right.
    """
    zoom, cos, sin, shift_x, shift_y = camera
    left = int((cos * pose[1] - sin * pose[2]) * zoom + shift_x) - CAR_WINDOW // 2
    bottom = int((sin * pose[1] + cos * pose[2]) * zoom + shift_y) - CAR_WINDOW // 2
    xs, ys = np.empty(8, np.int64), np.empty(8, np.int64)
    spans, stripe = np.empty((CAR_WINDOW, 2), np.int32), np.empty((4, 2))
    polygons, sizes = shapes
    low_x, high_x, low_y, high_y = CANVAS_W, 0, CANVAS_H, 0
    for k in range(12):  # each wheel and its stripe, then the four parts of the hull
        shape = 0 if k < 8 else k - 7
        at = WHEEL_AT + WHEEL_STRIDE * (k // 2) if k < 8 else HULL_AT
        vertices, n, index = polygons[shape], sizes[shape], DARK if k < 8 else HULL
        if k < 8 and k % 2 == 1:
            if not _find_stripe(pose[at + 3], stripe):
                continue
            vertices, n, index = stripe, 4, STRIPE
        _project_body(camera, pose[at:], vertices, n, xs, ys)
        low_x, high_x = min(low_x, xs[:n].min()), max(high_x, xs[:n].max())
        low_y, high_y = min(low_y, ys[:n].min()), max(high_y, ys[:n].max())
        fill_polygon(window, spans, left, bottom, xs, ys, n, index)
    low_x, high_x = max(low_x, left, 0), min(high_x, left + CAR_WINDOW - 1, CANVAS_W - 1)
    low_y, high_y = max(low_y, bottom, 0), min(high_y, bottom + CAR_WINDOW - 1, CANVAS_H - 1)
    if low_x > high_x or low_y > high_y:
        return 0, 0, 0, 0
    return _average(window, left, bottom, (low_x, high_x, low_y, high_y), cover)


@kernel
def fill_polygon(
    window: Any, spans: Any, left: int, bottom: int, xs: Any, ys: Any, n: int, index: int
) -> None:
    """Fill a convex polygon with a palette index the way `pygame.draw.polygon` fills it.

    `window` (H, W) uint8 is a part of the canvas that starts at (left, bottom), `spans` (H, 2)
    int32 is scratch, and the n vertices' canvas coordinates `xs` and `ys` are whole numbers.
    """
    low = high = ys[0]
    for i in range(1, n):
        low, high = min(low, ys[i]), max(high, ys[i])
    first, last = max(low, bottom), min(high, bottom + window.shape[0] - 1)
    if low == high or first > last:
        return
    spans[first - bottom : last - bottom + 1] = NOWHERE
    for i in range(n):
        j = i - 1 if i > 0 else n - 1
        x1, y1, x2, y2 = xs[j], ys[j], xs[i], ys[i]
        if y1 > y2:
            x1, y1, x2, y2 = x2, y2, x1, y1
        if y1 == y2:
            continue
        slope = (x2 - x1) / (y2 - y1)
        for y in range(max(y1, first), min(y2 if y2 == high else y2 - 1, last) + 1):
            crossing = x1 + (y - y1) * slope
            # pygame rounds by the order of the edges, not by which side they are on
            if spans[y - bottom, 0] == NOWHERE:
                spans[y - bottom, 0] = math.floor(crossing + 1e-6)
            else:
                spans[y - bottom, 1] = math.ceil(crossing - 1e-6)
    for y in range(first - bottom, last - bottom + 1):
        start = max(min(spans[y, 0], spans[y, 1]) - left, 0)
        stop = min(max(spans[y, 0], spans[y, 1]) - left + 1, window.shape[1])
        for x in range(start, stop):
            window[y, x] = index


@kernel
def _project_body(camera: Any, place: Any, vertices: Any, n: int, xs: Any, ys: Any) -> None:
    """Put the polygon of a body at x, y, angle on the canvas, in whole pixels."""
    zoom, turn_cos, turn_sin, shift_x, shift_y = camera
    cos, sin = math.cos(place[2]), math.sin(place[2])
    for i in range(n):
        px = cos * vertices[i, 0] - sin * vertices[i, 1] + place[0]
        py = sin * vertices[i, 0] + cos * vertices[i, 1] + place[1]
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
    left, right = -WHEEL_W * UNIT, WHEEL_W * UNIT
    points[0], points[1] = (left, WHEEL_R * c1 * UNIT), (right, WHEEL_R * c1 * UNIT)
    points[2], points[3] = (right, WHEEL_R * c2 * UNIT), (left, WHEEL_R * c2 * UNIT)
    return True


@kernel
def _average(
    window: Any, left: int, bottom: int, box: Any, cover: Any
) -> tuple[int, int, int, int]:
    """Average the car's palette window over the observation's pixels, and empty it.

    The window starts at canvas pixel (left, bottom); the car covers the box: low and high x, low
    and high y.
    """
    low_x, high_x, low_y, high_y = box
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
def _paint_car(cover: Any, left: int, right: int, line: Any) -> None:
    """Paint one row of what `_cover_car` covers over a line (3, SIZE) of the observation."""
    for col in range(left, right):
        parts = cover[col - left]
        free = max(1.0 - parts[DARK] - parts[STRIPE] - parts[HULL], 0.0)
        grey = STRIPE_GREY * parts[STRIPE]
        line[0, col] = line[0, col] * free + grey + HULL_RED * parts[HULL]
        line[1, col] = line[1, col] * free + grey
        line[2, col] = line[2, col] * free + grey


@kernel
def _draw_dashboard(pose: Any, text: Any, out: Any) -> None:
    """Paint the black panel, the score and the bars: speed, four wheels, steering, gyroscope."""
    out[ROWS:] = 0
    out[ROWS:, : text.shape[1]] = text
    floor = CANVAS_H - 20
    speed = math.sqrt(pose[4] * pose[4] + pose[5] * pose[5])
    top = int(CANVAS_H - (20 + 20 * 0.02 * speed))
    _draw_bar(out, speed, (125, 150), (floor, top), (255, 255, 255))
    for k in range(4):
        omega = pose[WHEEL_AT + WHEEL_STRIDE * k + 4]
        top = int(CANVAS_H - (20 + 20 * 0.01 * omega))
        x = 25 * (7 + k)
        _draw_bar(out, omega, (x, x + 25), (floor, top), (0 if k < 2 else 51, 0, 255))
    level = (CANVAS_H - 80, CANVAS_H - 40)
    _draw_bar(out, pose[7], (500, int((20 - 10.0 * pose[7]) * 25)), level, (0, 255, 0))
    _draw_bar(out, pose[6], (750, int((30 - 0.8 * pose[6]) * 25)), level, (255, 0, 0))


@kernel
def _draw_bar(out: Any, value: float, across: Any, down: Any, color: Any) -> None:
    """Paint one rectangle of canvas pixels between two columns and two rows, unless value is 0.

    On the black panel neighbouring bars share pixels, so their light is added.
    """
    if not abs(value) > 1e-4:
        return
    left, right = max(min(across) * PER_X, 0.0), min((max(across) + 1) * PER_X, float(SIZE))
    top, bottom = max(min(down) * PER_Y, 0.0), min((max(down) + 1) * PER_Y, float(SIZE))
    for row in range(int(top), min(int(bottom) + 1, SIZE)):
        high = min(bottom, row + 1.0) - max(top, float(row))
        for col in range(int(left), min(int(right) + 1, SIZE)):
            wide = min(right, col + 1.0) - max(left, float(col))
            if wide <= 1e-6 or high <= 1e-6:
                continue
            cover = np.float32(high * wide)
            free = np.float32(1.0) - cover if row < ROWS else np.float32(1.0)
            for c in range(3):
                level = out[row, col, c] * free + quantize(cover * np.float32(color[c]))
                out[row, col, c] = min(int(level), 255)


@functools.cache
def score_text(text: str) -> NDArray[np.uint8]:
    """Draw the score as it comes out in the dashboard's lower left corner: (12, 12, 3) bytes.

    pygame draws it without a display, on a corner of stock's canvas, aligned to the observation.
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
    return np.ascontiguousarray(pygame.surfarray.array3d(small).swapaxes(0, 1))
