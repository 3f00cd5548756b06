"""Numba kernels for exact area coverage of polygons in CarRacing's 96x96 observation.

Gymnasium draws polygons on a 1000x800 canvas with pygame, flips it and averages it down to 96x96
pixels. Here each edge of a polygon adds to a plane the *change* of coverage at the pixels it
crosses; a running sum down the columns of the plane then gives the covered area of every pixel. The
cost is that of the edges' lengths, and the inner loops run along the rows of memory.

Two systems of coordinates: the observation's pixels, y downward, and the canvas's pixels as stock
draws them, before its vertical flip.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from worldmodels._compile import compiled

SIZE, ROWS = 96, 84
"""Height and width of the observation, and its rows above the dashboard."""
CANVAS_W, CANVAS_H = 1000, 800
PER_X, PER_Y = SIZE / CANVAS_W, SIZE / CANVAS_H
"""Observation pixels per canvas pixel, across and down."""
NOWHERE = -1_000_000

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
    float32, and running sums down its columns give the coverage; `second` is -1 for one plane. The
    edge runs from canvas point (ax, ay) to (bx, by), where whole numbers are pixels' middles.
    """
    if ax > bx:
        ax, ay, bx, by = bx, by, ax, ay
        value = -value
    x0, y0 = (ax + 0.5) * PER_X, (CANVAS_H - 0.5 - ay) * PER_Y
    x1, y1 = (bx + 0.5) * PER_X, (CANVAS_H - 0.5 - by) * PER_Y
    if x0 == x1 or x1 <= 0.0 or x0 >= SIZE or (y0 >= ROWS and y1 >= ROWS):
        return
    slope = (y1 - y0) / (x1 - x0)
    if x0 < 0.0:
        y0 -= x0 * slope
        x0 = 0.0
    x1 = min(x1, float(SIZE))
    y = y0
    col = int(x0)
    while col < x1:
        width = min(col + 1.0, x1) - max(float(col), x0)
        following = y + slope * width
        _add_segment(planes, first, col, min(y, following), max(y, following), width * value)
        if second >= 0:
            _add_segment(planes, second, col, min(y, following), max(y, following), width * value)
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
        span = bottom
        top = 0.0
    if bottom > ROWS:
        weight *= (ROWS - top) / span
        bottom = float(ROWS)
        span = bottom - top
    first = int(top)
    last = int(bottom)
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
def swell(nx: float, ny: float) -> float:
    """How far pygame's outline moves an edge with unit normal (nx, ny) outward, in canvas pixels.

    A filled polygon includes the pixels that its edges run through, half of each is outside; on
    steep edges the rounded ends of the filled lines add an eighth to the antialiased outline.
    """
    nx, ny = abs(nx), abs(ny)
    return 0.625 * nx if nx > ny else 0.5 * ny


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
def quantize(value: Any) -> Any:
    """Turn a mean colour into the level that pygame's two-pass integer `smoothscale` gives.

    Each pass cuts off fractions. An even area of colour c comes out as c - 2, a mixed one 1.25
    lower than its mean on average, of which the conversion to a byte will take half a level.
    """
    tolerance = np.float32(0.002)
    whole = np.floor(value + tolerance)
    level = value - np.float32(0.75) if value - whole > tolerance else whole - np.float32(2)
    return level if level > np.float32(0) else np.float32(0)
