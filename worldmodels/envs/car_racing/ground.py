"""The ground of a CarRacing frame: exact area coverage of playfield, grass, road and borders.

Gymnasium draws polygons on a 1000x800 canvas with pygame, flips it and averages it down to 96x96
pixels. Here each edge of a polygon adds to a plane the *change* of coverage at the pixels it
crosses; a running sum down the columns of the plane then gives the covered area of every pixel.
Canvas coordinates are stock's before its vertical flip; those of the observation have y downward.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium.envs.box2d import car_racing as stock

from worldmodels._compile import compiled

SIZE, ROWS = 96, 84
"""Height and width of the observation, and its rows above the dashboard."""
CANVAS_W, CANVAS_H = 1000, 800
PER_X, PER_Y = SIZE / CANVAS_W, SIZE / CANVAS_H
"""Observation pixels per canvas pixel, across and down."""
FIELD, PATCH, ROAD, SHADE1, SHADE2, KERB, WHITE = range(7)
"""Planes of coverage: playfield, lighter grass, all road, the road's two lighter shades, all
borders, white borders."""
NUM_PLANES = 7
REACH = 2 * stock.TRACK_WIDTH + stock.TRACK_DETAIL_STEP + 2 * stock.BORDER
"""No part of a tile or its border is further from its cross-section's left end, world units."""

# IEEE's arithmetic, without fast-math: floats round as they do in Python, and a division by zero
# gives infinity as in numpy instead of an exception that every division would test for
kernel = compiled(error_model="numpy")


@kernel
def add_edge(
    planes: Any, first: int, second: int, ax: float, ay: float, bx: float, by: float, value: float
) -> None:
    """Add the area below a directed edge, times `value`, to one or two planes of coverage changes.

    Edges to the right add, edges to the left subtract, so a closed polygon leaves its own area:
    with sign +1 if it runs clockwise on the screen, else -1. `planes` is (ROWS + 2, planes, SIZE)
    float32; `second` is -1 for one plane. The edge runs from canvas point (ax, ay) to (bx, by),
    where whole numbers are pixels' middles.
    """
    if ax > bx:
        ax, ay, bx, by, value = bx, by, ax, ay, -value
    x0, y0 = (ax + 0.5) * PER_X, (CANVAS_H - 0.5 - ay) * PER_Y
    x1, y1 = (bx + 0.5) * PER_X, (CANVAS_H - 0.5 - by) * PER_Y
    if x0 == x1 or x1 <= 0.0 or x0 >= SIZE or (y0 >= ROWS and y1 >= ROWS):
        return
    slope = (y1 - y0) / (x1 - x0)
    if x0 < 0.0:
        x0, y0 = 0.0, y0 - x0 * slope
    x1 = min(x1, float(SIZE))
    y = y0
    col = int(x0)
    while col < x1:
        width = min(col + 1.0, x1) - max(float(col), x0)
        following = y + slope * width
        top, bottom = min(y, following), max(y, following)
        _add_segment(planes, first, col, top, bottom, width * value)
        if second >= 0:
            _add_segment(planes, second, col, top, bottom, width * value)
        y = following
        col += 1


@kernel
def _add_segment(
    planes: Any, plane: int, col: int, top: float, bottom: float, weight: float
) -> None:
    """Add the part of an edge inside one column: it runs from height `top` to `bottom`."""
    if bottom <= 0.0:
        planes[0, plane, col] += weight
        return
    if top >= ROWS:
        return
    span = bottom - top
    if top < 0.0:
        above = -weight * top / span
        planes[0, plane, col] += above
        weight -= above
        span, top = bottom, 0.0
    if bottom > ROWS:
        weight *= (ROWS - top) / span
        bottom = float(ROWS)
        span = bottom - top
    first, last = int(top), int(bottom)
    if first == last:
        below = weight * (0.5 * (top + bottom) - first)
        planes[first, plane, col] += weight - below
        planes[first + 1, plane, col] += below
        return
    density = weight / span
    # area between the edge's part above the lower side of a pixel and that side
    side = first + 1.0 - top
    before = 0.5 * density * side * side
    planes[first, plane, col] += before
    for row in range(first + 1, last):
        area = density * (row + 0.5 - top)
        planes[row, plane, col] += area - before
        before = area
    rest = bottom - last
    area = density * (last - top + rest - 0.5 * rest * rest)
    planes[last, plane, col] += area - before
    planes[last + 1, plane, col] += weight - area


@kernel
def _swell(nx: float, ny: float) -> float:
    """How far pygame's outline moves an edge with unit normal (nx, ny) outward, in canvas pixels.

    A filled polygon includes the pixels that its edges run through, half of each is outside; on
    steep edges the rounded ends of the filled lines add an eighth to the antialiased outline.
    """
    nx, ny = abs(nx), abs(ny)
    return 0.625 * nx if nx > ny else 0.5 * ny


@kernel
def _to_canvas(camera: Any, x: float, y: float) -> tuple[float, float]:
    """Turn world units into canvas pixels, cut to whole ones as pygame does."""
    zoom, cos, sin, shift_x, shift_y = camera
    canvas_x = np.trunc((cos * x - sin * y) * zoom + shift_x)
    return canvas_x, np.trunc((sin * x + cos * y) * zoom + shift_y)


@kernel
def draw_grass(camera: Any, planes: Any) -> bool:
    """Add every other square of every other row of the playfield, which have lighter grass.

    Returns whether the playfield's outside may be in view; only then it is added itself.
    """
    zoom, cos, sin, shift_x, shift_y = camera
    low_x = low_y = 1e9
    high_x = high_y = -1e9
    for k in range(4):  # the view's corners in world units
        px = ((CANVAS_W if k & 1 else 0) - shift_x) / zoom
        py = ((CANVAS_H if k & 2 else 0) - shift_y) / zoom
        x, y = cos * px + sin * py, cos * py - sin * px
        low_x, high_x = min(low_x, x), max(high_x, x)
        low_y, high_y = min(low_y, y), max(high_y, y)
    outside = max(-low_x, -low_y, high_x, high_y) > stock.PLAYFIELD - 1
    if outside:
        _draw_square(camera, planes, FIELD, -stock.PLAYFIELD, -stock.PLAYFIELD, 2 * stock.PLAYFIELD)
    margin, step = 2 / zoom, 2 * stock.GRASS_DIM
    first_x = max(math.floor((low_x - margin - stock.GRASS_DIM) / step), -10)
    first_y = max(math.floor((low_y - margin - stock.GRASS_DIM) / step), -10)
    last_x = min(math.floor((high_x + margin) / step), 9)
    last_y = min(math.floor((high_y + margin) / step), 9)
    for i in range(first_x, last_x + 1):
        for j in range(first_y, last_y + 1):
            _draw_square(camera, planes, PATCH, step * i, step * j, stock.GRASS_DIM)
    return outside


@kernel
def _draw_square(camera: Any, planes: Any, plane: int, x: float, y: float, length: float) -> None:
    """Add a square of the playfield, (x, y) its lower left corner in world units."""
    cos, sin = camera[1], camera[2]
    wide, high = _swell(cos, sin), _swell(-sin, cos)
    last_x = last_y = 0.0
    for k in range(5):
        right, upper = k == 1 or k == 2, k == 2 or k == 3
        px, py = _to_canvas(camera, x + length if right else x, y + length if upper else y)
        across, up = wide if right else -wide, high if upper else -high
        px += across * cos - up * sin
        py += across * sin + up * cos
        if k > 0:
            add_edge(planes, plane, -1, last_x, last_y, px, py, -1.0)
        last_x, last_y = px, py


@kernel
def draw_road(camera: Any, road: Any, planes: Any) -> bool:
    """Add tiles and borders in view; returns whether there are borders among them.

    Their order does not matter: the track turns too slowly to come near itself again.
    """
    sections, borders, sides, shade = road
    n = sections.shape[0]
    near, ends = np.empty(n, np.bool_), np.empty((n, 4))
    _find_near(camera, sections, near, ends)
    kerbs = False
    for i in range(n):
        if near[i]:
            _draw_tile(ends, near, shade, i, planes)
            if sides[i] != 0:
                _draw_border(camera, borders[i], sides[i] > 0, i % 2 == 0, planes)
                kerbs = True
    return kerbs


@kernel
def _find_near(camera: Any, sections: Any, near: Any, ends: Any) -> None:
    """Find which tiles may be in view, and put the ends of their cross-sections on the canvas."""
    zoom, cos, sin, shift_x, shift_y = camera
    reach = REACH * zoom
    last_seen = False
    for i in range(-1, len(sections)):
        x = (cos * sections[i, 0] - sin * sections[i, 1]) * zoom + shift_x
        y = (sin * sections[i, 0] + cos * sections[i, 1]) * zoom + shift_y
        seen = -reach < x < CANVAS_W + reach and -reach < y < CANVAS_H + reach
        if seen:
            ends[i] = _project(camera, sections[i])
        if i >= 0:
            near[i] = seen and last_seen and _in_view(ends[i - 1], ends[i], stock.BORDER * zoom + 2)
        last_seen = seen


@kernel
def _in_view(before: Any, at: Any, margin: float) -> Any:
    """Whether the box round two cross-sections is within a margin of what is seen of the canvas."""
    x = before[0], before[2], at[0], at[2]
    y = before[1], before[3], at[1], at[3]
    low_x, high_x, low_y, high_y = min(x), max(x), min(y), max(y)
    floor = CANVAS_H - ROWS / PER_Y
    across = low_x < CANVAS_W + margin and high_x > -margin
    return across and low_y < CANVAS_H + margin and high_y > floor - margin


@kernel
def _project(camera: Any, section: Any) -> tuple[float, float, float, float]:
    """Put a cross-section's ends on the canvas, moved apart by what pygame's outlines add."""
    ax, ay, bx, by = section[0], section[1], section[2], section[3]
    left_x, left_y = _to_canvas(camera, ax, ay)
    right_x, right_y = _to_canvas(camera, bx, by)
    dx, dy = bx - ax, by - ay
    scale = 1.0 / math.sqrt(dx * dx + dy * dy)
    nx = (camera[1] * dx - camera[2] * dy) * scale
    ny = (camera[2] * dx + camera[1] * dy) * scale
    move = _swell(nx, ny)
    return left_x - move * nx, left_y - move * ny, right_x + move * nx, right_y + move * ny


@kernel
def _draw_tile(ends: Any, near: Any, shade: Any, i: int, planes: Any) -> None:
    """Add tile i, the road between cross-sections i - 1 and i, to the road and to its shade.

    Sides that neighbours share would cancel out, so they are added only where the road starts or
    ends, or changes its shade.
    """
    before, at = ends[i - 1], ends[i]
    lx0, ly0, rx0, ry0 = before[0], before[1], before[2], before[3]
    lx1, ly1, rx1, ry1 = at[0], at[1], at[2], at[3]
    tint = ROAD + shade[i] if shade[i] != 0 else -1
    add_edge(planes, ROAD, tint, lx0, ly0, lx1, ly1, 1.0)
    add_edge(planes, ROAD, tint, rx1, ry1, rx0, ry0, 1.0)
    if i == 0 or not near[i - 1]:
        add_edge(planes, ROAD, tint, rx0, ry0, lx0, ly0, 1.0)
    elif tint >= 0 and shade[i] != shade[i - 1]:
        add_edge(planes, tint, -1, rx0, ry0, lx0, ly0, 1.0)
    if i == len(shade) - 1 or not near[i + 1]:
        add_edge(planes, ROAD, tint, lx1, ly1, rx1, ry1, 1.0)
    elif tint >= 0 and shade[i] != shade[i + 1]:
        add_edge(planes, tint, -1, lx1, ly1, rx1, ry1, 1.0)


@kernel
def _draw_border(camera: Any, border: Any, right: bool, white: bool, planes: Any) -> None:
    """Add the border of a tile, white or red, on the road's right or left."""
    ix0, iy0, ox0, oy0 = _project(camera, border[4:])
    ix1, iy1, ox1, oy1 = _project(camera, border)
    clockwise, tint = 1.0 if right else -1.0, WHITE if white else -1
    add_edge(planes, KERB, tint, ix0, iy0, ix1, iy1, clockwise)
    add_edge(planes, KERB, tint, ix1, iy1, ox1, oy1, clockwise)
    add_edge(planes, KERB, tint, ox1, oy1, ox0, oy0, clockwise)
    add_edge(planes, KERB, tint, ox0, oy0, ix0, iy0, clockwise)


@kernel
def mix_row(
    changes: Any, palette: Any, outside: bool, kerbs: bool, sums: Any, shares: Any, line: Any
) -> None:
    """Add a row's changes of coverage to the sums, empty them, and mix the row's colours.

    Borders lie on the road's edge, so the road has what they leave of a pixel, and the grass the
    rest. Changes and sums are (NUM_PLANES, SIZE), of which only the planes that are drawn change;
    shares (4, SIZE) are scratch, line is (3, SIZE).
    """
    zero, one, tiny = np.float32(0), np.float32(1), np.float32(1e-3)
    for k in range(FIELD if outside else PATCH, NUM_PLANES if kerbs else KERB):
        for col in range(SIZE):
            sums[k, col] += changes[k, col]
            changes[k, col] = zero
    for col in range(SIZE):
        edge = max(min(sums[KERB, col], one), zero)
        all_road = max(sums[ROAD, col], zero)
        seen = min(all_road, one - edge)
        shares[0, col], shares[1, col], shares[2, col] = edge, seen, one - edge - seen
        shares[3, col] = seen / max(all_road, tiny)
    for c in range(3):
        grass, patch = palette[0, c], palette[1, c] - palette[0, c]
        road = palette[2, c]
        shade1, shade2 = palette[3, c] - road, palette[4, c] - road
        for col in range(SIZE):
            value = (sums[FIELD, col] * grass + sums[PATCH, col] * patch) * shares[2, col]
            value += road * shares[1, col]
            value += shares[3, col] * (shade1 * sums[SHADE1, col] + shade2 * sums[SHADE2, col])
            line[c, col] = value
    if kerbs:
        light = np.float32(255)
        for col in range(SIZE):
            line[0, col] += light * shares[0, col]
            line[1, col] += light * sums[WHITE, col]
            line[2, col] += light * sums[WHITE, col]
