"""Numba kernels for exact area coverage of polygons in CarRacing's 96x96 observation.

Gymnasium draws polygons on a 1000x800 canvas with pygame, flips it and averages it down to 96x96 pixels.
Here each edge of a polygon adds to a plane the *change* of coverage at the pixels it crosses; a running sum
down the columns of the plane then gives the covered area of every pixel. The cost is that of the edges'
lengths, and the inner loops run along the rows of memory.

Coordinates called x, y are observation pixels; X, Y are canvas pixels with Y upward as stock draws, before
its vertical flip.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

SIZE = 96
"""Height and width of the observation, in pixels."""
ROWS = 84
"""Rows above the dashboard, which is 5/40 of the height."""
CANVAS_W = 1000
CANVAS_H = 800
PER_X = SIZE / CANVAS_W
PER_Y = SIZE / CANVAS_H


@njit(cache=True)  # type: ignore[untyped-decorator]  # numba publishes no types
def add_edge(plane: Any, x0: float, y0: float, x1: float, y1: float, value: float) -> None:
    """Add the area below a directed edge, times `value`, to a plane of coverage changes.

    Edges to the right add, edges to the left subtract, so a closed polygon leaves its own area.

    Args:
        plane: (ROWS + 2, SIZE) float32; a running sum down its columns gives the coverage.
        x0: start of the edge, as y0; x1, y1 its end.
        value: weight of the area; negative for polygons that run anticlockwise on the screen.
    """
    if x0 == x1:
        return
    if x0 > x1:
        x0, y0, x1, y1 = x1, y1, x0, y0
        value = -value
    if x1 <= 0.0 or x0 >= SIZE or (y0 >= ROWS and y1 >= ROWS):
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
        _add_segment(plane, col, min(y, following), max(y, following), width * value)
        y = following
        col += 1


@njit(cache=True)  # type: ignore[untyped-decorator]
def _add_segment(plane: Any, col: int, top: float, bottom: float, weight: float) -> None:
    """Add the part of an edge inside one column: it runs from height `top` to `bottom`."""
    if bottom <= 0.0:
        plane[0, col] += weight
        return
    if top >= ROWS:
        return
    span = bottom - top
    if top < 0.0:
        above = -weight * top / span
        plane[0, col] += above
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
        plane[first, col] += weight - below
        plane[first + 1, col] += below
        return
    density = weight / span
    # area of the edge's part that lies above the lower side of a pixel, so far
    side = first + 1.0 - top
    before = 0.5 * density * side * side
    plane[first, col] += before
    for row in range(first + 1, last):
        area = density * (row + 0.5 - top)
        plane[row, col] += area - before
        before = area
    rest = bottom - last
    area = density * (last - top + rest - 0.5 * rest * rest)
    plane[last, col] += area - before
    plane[last + 1, col] += weight - area


@njit(cache=True)  # type: ignore[untyped-decorator]
def fill_polygon(window: Any, left: int, bottom: int, xs: Any, ys: Any, n: int, index: int) -> None:
    """Fill a polygon with a palette index the way `pygame.draw.polygon` fills it.

    Args:
        window: (H, W) uint8, a part of the canvas.
        left: canvas X of the window's first column; `bottom` is canvas Y of its first row.
        xs: canvas X of the vertices, whole numbers; `ys` their Y, `n` how many.
        index: what to write.
    """
    low = ys[0]
    high = ys[0]
    for i in range(1, n):
        low = min(low, ys[i])
        high = max(high, ys[i])
    crossings = np.empty(16, np.int64)
    for y in range(max(low, bottom), min(high, bottom + window.shape[0] - 1) + 1):
        count = 0
        for i in range(n):
            x1, y1 = xs[i - 1 if i else n - 1], ys[i - 1 if i else n - 1]
            x2, y2 = xs[i], ys[i]
            if y1 > y2:
                x1, y1, x2, y2 = x2, y2, x1, y1
            if y1 == y2 or not (y1 <= y < y2 or (y == high and y2 == high)):
                continue
            # pygame rounds by the order of the edges, not by which side they are on
            offset = (y - y1) * (x2 - x1)
            height = y2 - y1
            crossings[count] = x1 + (offset // height if count % 2 == 0 else -(-offset // height))
            count += 1
        crossings[:count].sort()
        if low == high:
            crossings[0], crossings[1], count = xs[:n].min(), xs[:n].max(), 2
        for i in range(0, count - 1, 2):
            start = max(crossings[i] - left, 0)
            stop = min(crossings[i + 1] - left + 1, window.shape[1])
            for x in range(start, stop):
                window[y - bottom, x] = index


@njit(cache=True)  # type: ignore[untyped-decorator]
def quantize(value: float) -> int:
    """Turn a mean colour into the byte that pygame's two-pass integer `smoothscale` gives.

    Each pass cuts off fractions. An even area of colour c comes out as c - 2, a mixed one 1.25 lower than
    its mean on average.
    """
    whole = np.floor(value + np.float32(0.002))
    if value - whole < np.float32(0.002):
        return max(int(whole) - 2, 0)
    return max(int(value - np.float32(0.75)), 0)
