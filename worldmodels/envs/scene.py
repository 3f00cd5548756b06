"""What a CarRacing frame shows, from back to front: grass, road, borders, car, dashboard."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from gymnasium.envs.box2d.car_racing import GRASS_DIM, PLAYFIELD
from numba import njit
from numpy.typing import NDArray

from worldmodels.envs.rasterizer import (
    CANVAS_H,
    CANVAS_W,
    PER_X,
    PER_Y,
    ROWS,
    SIZE,
    add_edge,
    fill_polygon,
    quantize,
)

FIELD, PATCH, ROAD, SHADE1, SHADE2, BORDER, WHITE = range(7)
"""Planes of coverage: playfield, grass patches, all road, road of the two lighter shades, all border, white border."""
NUM_PLANES = 7
REACH = 34.0
"""A tile or border further than this from the view's edge, in world units, is not in view."""
CAR_WINDOW = 192
"""Canvas pixels in each direction that the car may cover."""
DARK, STRIPE, HULL = 1, 2, 3
POSE_SIZE = 28


@njit(cache=True)  # type: ignore[untyped-decorator]  # numba publishes no types
def draw_frame(
    pose: Any, sections: Any, borders: Any, sides: Any, shade: Any, conflicts: Any, palette: Any,
    shapes: Any, shape_sizes: Any, text: Any, planes: Any, image: Any, window: Any, out: Any,
) -> None:  # fmt: skip
    """Draw one observation.

    Args:
        pose: (POSE_SIZE) zoom; the hull's x, y, angle, velocity x, y and angular velocity; the angle of the first
            wheel's joint; then x, y, angle, phase and omega of each wheel.
        sections: (N, 4), borders: (N, 8), sides: (N), as `track.lay_road` returns them, world units.
        shade: (N) 0, 1 or 2: index of tile i's colour.
        conflicts: (N) as `track.find_conflicts` returns them.
        palette: (5, 3) float32 colours: grass, its patches, the three shades of road.
        shapes: (5, 8, 2) the wheel's polygon, then the hull's four, in the body's frame.
        shape_sizes: (5) number of vertices of each.
        text: (12, 12) uint8, the score as `score_text` draws it.
        planes: (NUM_PLANES, ROWS + 2, SIZE) float32 zeros; zeros again afterwards.
        image: (3, ROWS, SIZE) float32 scratch.
        window: (CAR_WINDOW, CAR_WINDOW) uint8 zeros; zeros again afterwards.
        out: (SIZE, SIZE, 3) uint8, written.
    """
    zoom, x, y = pose[0], -pose[1] * pose[0], -pose[2] * pose[0]
    cos, sin = math.cos(-pose[3]), math.sin(-pose[3])
    camera = (
        zoom, cos, sin, CANVAS_W / 2 + (x * cos - y * sin), CANVAS_H / 4 + (x * sin + y * cos)
    )  # fmt: skip
    _draw_grass(camera, planes)
    _blend_grass(planes, palette, image)
    _draw_road(camera, sections, borders, sides, shade, conflicts, palette, planes, image)
    _draw_car(camera, pose, shapes, shape_sizes, window, image)
    _quantize_image(image, out)
    _draw_dashboard(pose, text, out)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _to_canvas(camera: Any, x: float, y: float) -> tuple[float, float]:
    """Turn world units into canvas pixels, cut to whole ones as pygame does."""
    zoom, cos, sin, shift_x, shift_y = camera
    return (
        np.trunc((cos * x - sin * y) * zoom + shift_x),
        np.trunc((sin * x + cos * y) * zoom + shift_y),
    )


@njit(cache=True)  # type: ignore[untyped-decorator]
def _swell(nx: float, ny: float) -> float:
    """How far pygame's outline moves an edge with normal (nx, ny) outward, in canvas pixels.

    A filled polygon includes the pixels its edges run through, half of each is outside; on steep edges the
    rounded ends of the filled lines add an eighth to the antialiased outline.
    """
    nx, ny = abs(nx), abs(ny)
    return 0.625 * nx if nx > ny else 0.5 * ny


@njit(cache=True)  # type: ignore[untyped-decorator]
def _edge(plane: Any, a: Any, b: Any, value: float) -> None:
    """Add an edge between two canvas points, flipped and scaled to the observation."""
    add_edge(
        plane,
        (a[0] + 0.5) * PER_X, (CANVAS_H - 0.5 - a[1]) * PER_Y,
        (b[0] + 0.5) * PER_X, (CANVAS_H - 0.5 - b[1]) * PER_Y,
        value,
    )  # fmt: skip


@njit(cache=True)  # type: ignore[untyped-decorator]
def _square(camera: Any, plane: Any, x: float, y: float, length: float) -> None:
    """Add a square of the playfield, (x, y) its lower left corner in world units."""
    cos, sin = camera[1], camera[2]
    wide, high = _swell(cos, sin), _swell(-sin, cos)
    corners = np.empty((4, 2))
    for k in range(4):
        right = k == 1 or k == 2
        upper = k >= 2
        px, py = _to_canvas(camera, x + length if right else x, y + length if upper else y)
        h = wide if right else -wide
        v = high if upper else -high
        corners[k, 0] = px + h * cos - v * sin
        corners[k, 1] = py + h * sin + v * cos
    for k in range(4):
        _edge(plane, corners[k], corners[(k + 1) % 4], -1.0)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _draw_grass(camera: Any, planes: Any) -> None:
    """Cover the playfield, and every other square of every other row of it with lighter grass."""
    zoom, cos, sin, shift_x, shift_y = camera
    low_x = low_y = 1e9
    high_x = high_y = -1e9
    for k in range(4):  # the view's corners in world units
        px = ((CANVAS_W if k & 1 else 0) - shift_x) / zoom
        py = ((CANVAS_H if k & 2 else 0) - shift_y) / zoom
        x, y = cos * px + sin * py, cos * py - sin * px
        low_x, high_x = min(low_x, x), max(high_x, x)
        low_y, high_y = min(low_y, y), max(high_y, y)
    if min(low_x, low_y) > -PLAYFIELD + 1 and max(high_x, high_y) < PLAYFIELD - 1:
        planes[FIELD, 0, :] = 1.0
    else:
        _square(camera, planes[FIELD], -PLAYFIELD, -PLAYFIELD, 2 * PLAYFIELD)
    first_x = max(math.floor((low_x - 5) / (2 * GRASS_DIM)), -10)
    first_y = max(math.floor((low_y - 5) / (2 * GRASS_DIM)), -10)
    last_x = min(math.floor((high_x + 5) / (2 * GRASS_DIM)), 9)
    last_y = min(math.floor((high_y + 5) / (2 * GRASS_DIM)), 9)
    for i in range(first_x, last_x + 1):
        for j in range(first_y, last_y + 1):
            _square(camera, planes[PATCH], GRASS_DIM * 2 * i, GRASS_DIM * 2 * j, GRASS_DIM)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _blend_grass(planes: Any, palette: Any, image: Any) -> None:
    """Paint the image with the grass and empty its two planes."""
    field = np.zeros(SIZE, np.float32)
    patch = np.zeros(SIZE, np.float32)
    base = palette[0]
    extra = palette[1] - palette[0]
    for row in range(ROWS):
        for col in range(SIZE):
            field[col] += planes[FIELD, row, col]
            patch[col] += planes[PATCH, row, col]
            planes[FIELD, row, col] = 0.0
            planes[PATCH, row, col] = 0.0
            image[0, row, col] = field[col] * base[0] + patch[col] * extra[0]
            image[1, row, col] = field[col] * base[1] + patch[col] * extra[1]
            image[2, row, col] = field[col] * base[2] + patch[col] * extra[2]
    planes[FIELD, ROWS:] = 0.0
    planes[PATCH, ROWS:] = 0.0


@njit(cache=True)  # type: ignore[untyped-decorator]
def _section(camera: Any, ax: float, ay: float, bx: float, by: float, out: Any) -> None:
    """Put both ends of a cross-section on the canvas, moved apart by what pygame's outlines add."""
    left_x, left_y = _to_canvas(camera, ax, ay)
    right_x, right_y = _to_canvas(camera, bx, by)
    dx, dy = bx - ax, by - ay
    length = math.sqrt(dx * dx + dy * dy)
    nx = (camera[1] * dx - camera[2] * dy) / length
    ny = (camera[2] * dx + camera[1] * dy) / length
    move = _swell(nx, ny)
    out[0, 0] = left_x - move * nx
    out[0, 1] = left_y - move * ny
    out[1, 0] = right_x + move * nx
    out[1, 1] = right_y + move * ny


@njit(cache=True)  # type: ignore[untyped-decorator]
def _draw_road(
    camera: Any, track: Any, borders: Any, side: Any, shade: Any, conflict: Any, palette: Any, planes: Any, image: Any
) -> None:
    """Paint tiles and borders in view, in batches that do not overlap themselves."""
    zoom, cos, sin, shift_x, shift_y = camera
    px, py = (CANVAS_W / 2 - shift_x) / zoom, (CANVAS_H / 2 - shift_y) / zoom
    middle_x, middle_y = cos * px + sin * py, cos * py - sin * px
    half_w = CANVAS_W / 2 / zoom + REACH
    half_h = CANVAS_H / 2 / zoom + REACH
    n = track.shape[0]
    near = np.empty(n, np.bool_)
    for i in range(n):
        dx, dy = track[i, 0] - middle_x, track[i, 1] - middle_y
        near[i] = abs(cos * dx - sin * dy) < half_w and abs(sin * dx + cos * dy) < half_h
    start = 0
    drawn = False
    border = False
    for i in range(n):
        if not near[i]:
            continue
        if drawn and conflict[i] >= start:
            if near[i - 1]:  # under the next batch, so that no grass shows through the seam
                _draw_tile(camera, track, shade, i, False, True, planes)
            _blend_road(planes, palette, image, border)
            start, drawn, border = i, False, False
        first = not drawn or not near[i - 1] or i == start
        last = i == n - 1 or not near[i + 1]
        _draw_tile(camera, track, shade, i, first, last or conflict[(i + 1) % n] >= start, planes)
        drawn = True
        if side[i] != 0:
            _draw_border(camera, borders, side, i, planes)
            border = True
    if drawn:
        _blend_road(planes, palette, image, border)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _draw_tile(camera: Any, track: Any, shade: Any, i: int, first: bool, last: bool, planes: Any) -> None:
    """Add tile i, the road between cross-sections i - 1 and i."""
    ends = np.empty((2, 2, 2))
    _section(camera, track[i - 1, 0], track[i - 1, 1], track[i - 1, 2], track[i - 1, 3], ends[0])
    _section(camera, track[i, 0], track[i, 1], track[i, 2], track[i, 3], ends[1])
    for k in range(2):
        if k == 1 and shade[i] == 0:
            break
        plane = planes[ROAD if k == 0 else ROAD + shade[i]]
        _edge(plane, ends[0, 0], ends[1, 0], 1.0)
        _edge(plane, ends[1, 1], ends[0, 1], 1.0)
        if first or (k == 1 and shade[i] != shade[i - 1]):
            _edge(plane, ends[0, 1], ends[0, 0], 1.0)
        if last or (k == 1 and shade[i] != shade[(i + 1) % shade.shape[0]]):
            _edge(plane, ends[1, 0], ends[1, 1], 1.0)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _draw_border(camera: Any, borders: Any, side: Any, i: int, planes: Any) -> None:
    """Add the red or white border of tile i."""
    at = borders[i]
    ends = np.empty((2, 2, 2))
    _section(camera, at[4], at[5], at[6], at[7], ends[0])
    _section(camera, at[0], at[1], at[2], at[3], ends[1])
    value = 1.0 if side[i] > 0 else -1.0
    for k in range(2 if i % 2 == 0 else 1):
        plane = planes[BORDER + k]
        _edge(plane, ends[0, 0], ends[1, 0], value)
        _edge(plane, ends[1, 0], ends[1, 1], value)
        _edge(plane, ends[1, 1], ends[0, 1], value)
        _edge(plane, ends[0, 1], ends[0, 0], value)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _blend_road(planes: Any, palette: Any, image: Any, border: bool) -> None:
    """Paint the planes of one batch over the image and empty them.

    Borders lie on the road's edge, so the road has what they leave of a pixel, and the grass the rest.
    """
    sums = np.zeros((5, SIZE), np.float32)
    zero, one, tiny = np.float32(0), np.float32(1), np.float32(1e-3)
    last = 5 if border else 3
    for row in range(ROWS):
        for k in range(last):
            for col in range(SIZE):
                sums[k, col] += planes[ROAD + k, row, col]
                planes[ROAD + k, row, col] = zero
        for c in range(3):
            road = palette[2, c]
            shade1, shade2 = palette[3, c] - road, palette[4, c] - road
            plain = np.float32(255) if c == 0 else zero
            white = np.float32(255) - plain
            for col in range(SIZE):
                edge = max(min(sums[3, col], one), zero)
                covered = max(sums[0, col], tiny)
                left = min(sums[0, col], one - edge)
                left = max(left, zero)
                ratio = left / covered
                image[c, row, col] = (
                    image[c, row, col] * (one - edge - left)
                    + left * road + ratio * (sums[1, col] * shade1 + sums[2, col] * shade2)
                    + edge * plain + sums[4, col] * white
                )  # fmt: skip
    planes[ROAD:, ROWS:] = zero


@njit(cache=True)  # type: ignore[untyped-decorator]
def _draw_car(camera: Any, pose: Any, shapes: Any, shape_sizes: Any, window: Any, image: Any) -> None:
    """Paint wheels with their white stripes, then the hull, at the canvas's own resolution."""
    px, py = _to_canvas(camera, pose[1], pose[2])
    left = int(px) - CAR_WINDOW // 2
    bottom = int(py) - CAR_WINDOW // 2
    xs = np.empty(8, np.int64)
    ys = np.empty(8, np.int64)
    low_x, high_x, low_y, high_y = left + CAR_WINDOW, left, bottom + CAR_WINDOW, bottom
    points = np.empty((4, 2))
    for k in range(12):
        body = 8 + 5 * (k // 2) if k < 8 else 1
        shape = 0 if k < 8 else k - 7
        vertices, n, index = shapes[shape], shape_sizes[shape], DARK if k < 8 else HULL
        if k < 8 and k % 2 == 1:
            if not _stripe(pose[body + 3], shapes[0], points):
                continue
            vertices, n, index = points, 4, STRIPE
        x, y, cos, sin = pose[body], pose[body + 1], math.cos(pose[body + 2]), math.sin(pose[body + 2])
        for i in range(n):
            vx, vy = vertices[i, 0], vertices[i, 1]
            cx, cy = _to_canvas(camera, cos * vx - sin * vy + x, sin * vx + cos * vy + y)
            xs[i], ys[i] = int(cx), int(cy)
            low_x, high_x = min(low_x, xs[i]), max(high_x, xs[i])
            low_y, high_y = min(low_y, ys[i]), max(high_y, ys[i])
        fill_polygon(window, left, bottom, xs, ys, n, index)
    _blend_car(window, left, bottom, low_x, high_x, low_y, high_y, image)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _stripe(phase: float, wheel: Any, points: Any) -> bool:
    """Put the visible part of a wheel's white stripe into points; False if it is underneath."""
    s1, s2 = math.sin(phase), math.sin(phase + 1.2)
    c1, c2 = math.cos(phase), math.cos(phase + 1.2)
    if s1 > 0 and s2 > 0:
        return False
    if s1 > 0:
        c1 = np.sign(c1)
    if s2 > 0:
        c2 = np.sign(c2)
    half, radius = 14 * 0.02, 27 * 0.02
    points[0] = (-half, radius * c1)
    points[1] = (half, radius * c1)
    points[2] = (half, radius * c2)
    points[3] = (-half, radius * c2)
    return True


@njit(cache=True)  # type: ignore[untyped-decorator]
def _blend_car(
    window: Any, left: int, bottom: int, low_x: int, high_x: int, low_y: int, high_y: int, image: Any
) -> None:
    """Average the car's palette window over the image's pixels, paint it, and empty it."""
    low_x, high_x = max(low_x, left, 0), min(high_x, left + CAR_WINDOW - 1, CANVAS_W - 1)
    low_y, high_y = max(low_y, bottom, 0), min(high_y, bottom + CAR_WINDOW - 1, CANVAS_H - 1)
    if high_x < low_x or high_y < low_y:
        return
    first_col, last_col = int(low_x * PER_X), int((high_x + 1) * PER_X)
    first_row, last_row = int((CANVAS_H - 1 - high_y) * PER_Y), int((CANVAS_H - low_y) * PER_Y)
    cover = np.zeros((last_row - first_row + 1, last_col - first_col + 1, 4), np.float32)
    for y in range(low_y, high_y + 1):
        top = (CANVAS_H - 1 - y) * PER_Y
        row = int(top)
        upper = min(row + 1.0, top + PER_Y) - top
        for x in range(low_x, high_x + 1):
            index = window[y - bottom, x - left]
            if index == 0:
                continue
            window[y - bottom, x - left] = 0
            start = x * PER_X
            col = int(start)
            near = min(col + 1.0, start + PER_X) - start
            for r in range(2):
                high = upper if r == 0 else PER_Y - upper
                if high > 1e-9:
                    cover[row - first_row + r, col - first_col, index] += high * near
                    if PER_X - near > 1e-9:
                        cover[row - first_row + r, col - first_col + 1, index] += high * (PER_X - near)
    for row in range(first_row, min(last_row, ROWS - 1) + 1):
        for col in range(first_col, min(last_col, SIZE - 1) + 1):
            dark = cover[row - first_row, col - first_col, DARK]
            stripe = cover[row - first_row, col - first_col, STRIPE]
            hull = cover[row - first_row, col - first_col, HULL]
            free = max(1.0 - dark - stripe - hull, 0.0)
            image[0, row, col] = image[0, row, col] * free + 77 * stripe + 204 * hull
            image[1, row, col] = image[1, row, col] * free + 77 * stripe
            image[2, row, col] = image[2, row, col] * free + 77 * stripe


@njit(cache=True)  # type: ignore[untyped-decorator]
def _quantize_image(image: Any, out: Any) -> None:
    for row in range(ROWS):
        for col in range(SIZE):
            out[row, col, 0] = quantize(image[0, row, col])
            out[row, col, 1] = quantize(image[1, row, col])
            out[row, col, 2] = quantize(image[2, row, col])


@njit(cache=True)  # type: ignore[untyped-decorator]
def _draw_dashboard(pose: Any, text: Any, out: Any) -> None:
    """Paint the black panel, the score and the seven bars: speed, four wheels, steering, gyroscope."""
    out[ROWS:] = 0
    out[ROWS:, : text.shape[1], 0] = text
    out[ROWS:, : text.shape[1], 1] = text
    out[ROWS:, : text.shape[1], 2] = text
    for k in range(7):
        if k == 0:
            value = math.sqrt(pose[4] * pose[4] + pose[5] * pose[5])
        elif k < 5:
            value = pose[8 + 5 * k - 1]
        else:
            value = pose[7] if k == 5 else pose[6]
        if abs(value) <= 1e-4:
            continue
        if k < 5:
            place = 5 if k == 0 else 6 + k
            gain = 0.02 if k == 0 else 0.01
            x0, x1 = place * 25, (place + 1) * 25
            y0, y1 = int(CANVAS_H - (20 + 20 * gain * value)), CANVAS_H - 20
        else:
            place = 20 if k == 5 else 30
            gain = -10.0 if k == 5 else -0.8
            x0, x1 = place * 25, int((place + gain * value) * 25)
            y0, y1 = CANVAS_H - 80, CANVAS_H - 40
        red = 255 if k == 0 or k == 6 else (51 if k == 3 or k == 4 else 0)
        green = 255 if k == 0 or k == 5 else 0
        blue = 255 if k < 5 else 0
        _bar(out, min(x0, x1), max(x0, x1) + 1, min(y0, y1), max(y0, y1) + 1, red, green, blue)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _bar(out: Any, x0: int, x1: int, y0: int, y1: int, red: int, green: int, blue: int) -> None:
    """Paint one rectangle of canvas pixels [x0, x1) x [y0, y1), y downward."""
    left, right = max(x0 * PER_X, 0.0), min(x1 * PER_X, float(SIZE))
    top, bottom = max(y0 * PER_Y, 0.0), min(y1 * PER_Y, float(SIZE))
    for row in range(int(top), min(int(bottom) + 1, SIZE)):
        high = min(bottom, row + 1.0) - max(top, float(row))
        for col in range(int(left), min(int(right) + 1, SIZE)):
            wide = min(right, col + 1.0) - max(left, float(col))
            cover = np.float32(max(high, 0.0) * max(wide, 0.0))
            if cover <= 1e-6:
                continue
            free = np.float32(1.0) - cover if row < ROWS else np.float32(1.0)
            out[row, col, 0] = min(out[row, col, 0] * free + quantize(cover * red), 255)
            out[row, col, 1] = min(out[row, col, 1] * free + quantize(cover * green), 255)
            out[row, col, 2] = min(out[row, col, 2] * free + quantize(cover * blue), 255)


@functools.cache
def score_text(text: str) -> NDArray[np.uint8]:
    """Draw the score as it comes out in the dashboard's lower left corner: (12, 12) bytes of grey.

    pygame draws it, on a corner of stock's canvas with the same alignment to the observation's pixels.
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
