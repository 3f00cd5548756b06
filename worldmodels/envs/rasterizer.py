"""Numba kernels that draw CarRacing's 96x96 observation straight at its own scale.

Gymnasium draws polygons on a 1000x800 canvas with pygame, flips it and averages it down to 96x96. Here the
exact area that each polygon covers in each of the 96x96 pixels is accumulated edge by edge: an edge adds the
change of coverage at the pixels it crosses, and a running sum along the row turns changes into coverage.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

SIZE = 96
"""Height and width of the observation, in pixels."""
CANVAS_W = 1000
CANVAS_H = 800
SX = SIZE / CANVAS_W
SY = SIZE / CANVAS_H


@njit(cache=True)  # type: ignore[untyped-decorator]  # numba publishes no types
def _add_edge(
    acc: Any, x0: float, y0: float, x1: float, y1: float, a: float, r: float, g: float, b: float
) -> None:
    """Add one directed edge, in observation pixels, with the colour (a, r, g, b) on its inner side."""
    if y0 == y1:
        return
    sign = 1.0
    if y0 > y1:
        x0, y0, x1, y1 = x1, y1, x0, y0
        sign = -1.0
    if y1 <= 0.0 or y0 >= SIZE:
        return
    slope = (x1 - x0) / (y1 - y0)
    if y0 < 0.0:
        x0 -= y0 * slope
        y0 = 0.0
    if y1 > SIZE:
        y1 = float(SIZE)
    x = x0
    row = int(y0)
    while row < y1:
        top = max(float(row), y0)
        bottom = min(row + 1.0, y1)
        nxt = x + slope * (bottom - top)
        weight = sign * (bottom - top)
        left = min(x, nxt)
        right = max(x, nxt)
        x = nxt
        if right <= 0.0:
            _put(acc, row, 0, weight, a, r, g, b)
        elif left < SIZE:
            span = right - left
            if left < 0.0:
                _put(acc, row, 0, -weight * left / span, a, r, g, b)
                weight += weight * left / span
                span = right
                left = 0.0
            if right > SIZE:
                weight *= (SIZE - left) / span
                right = float(SIZE)
                span = right - left
            first = int(left)
            last = int(right)
            if last == first:
                inside = weight * (0.5 * (left + right) - first)
                _put(acc, row, first, weight - inside, a, r, g, b)
                _put(acc, row, first + 1, inside, a, r, g, b)
            else:
                density = weight / span
                # coverage of a pixel = density * integral of (pixel end - x) over the part left of it
                edge = first + 1 - left
                before = 0.5 * density * edge * edge
                _put(acc, row, first, before, a, r, g, b)
                for col in range(first + 1, last):
                    edge = col + 1 - left
                    done = density * (edge - 0.5)
                    _put(acc, row, col, done - before, a, r, g, b)
                    before = done
                rest = right - last
                done = density * (last - left) + density * (rest - 0.5 * rest * rest)
                _put(acc, row, last, done - before, a, r, g, b)
                _put(acc, row, last + 1, weight - done, a, r, g, b)
        row += 1


@njit(cache=True)  # type: ignore[untyped-decorator]
def _put(acc: Any, row: int, col: int, weight: float, a: float, r: float, g: float, b: float) -> None:
    acc[row, col, 0] += weight * a
    acc[row, col, 1] += weight * r
    acc[row, col, 2] += weight * g
    acc[row, col, 3] += weight * b


@njit(cache=True)  # type: ignore[untyped-decorator]
def _add_polygon(acc: Any, xs: Any, ys: Any, n: int, r: float, g: float, b: float) -> None:
    """Add a polygon given in canvas pixels, vertices truncated as pygame does."""
    area = 0.0
    for i in range(n):
        j = (i + 1) % n
        area += xs[i] * ys[j] - xs[j] * ys[i]
    sign = 1.0 if area < 0 else -1.0
    for i in range(n):
        j = (i + 1) % n
        _add_edge(
            acc,
            (xs[i] + 0.5) * SX, SIZE - (ys[i] + 0.5) * SY,
            (xs[j] + 0.5) * SX, SIZE - (ys[j] + 0.5) * SY,
            -sign, -sign * r, -sign * g, -sign * b,
        )  # fmt: skip


@njit(cache=True)  # type: ignore[untyped-decorator]
def draw(quads: Any, colors: Any, layers: Any, camera: Any, bg: Any, grass: Any, car: Any, hud: Any, out: Any) -> None:
    """First draft."""
    zoom = camera[0]
    cos = math.cos(camera[1])
    sin = math.sin(camera[1])
    tx = camera[2]
    ty = camera[3]
    acc = np.zeros((4, SIZE, SIZE + 2, 4), np.float32)
    xs = np.empty(8)
    ys = np.empty(8)
    reach = 160.0
    dim = 2000.0 / 6.0 / 20.0
    for gx in range(-20, 20, 2):
        for gy in range(-20, 20, 2):
            near = False
            for k in range(4):
                px = dim * gx + (dim if k == 0 or k == 3 else 0.0)
                py = dim * gy + (dim if k >= 2 else 0.0)
                xs[k] = np.trunc((px * cos - py * sin) * zoom + tx)
                ys[k] = np.trunc((px * sin + py * cos) * zoom + ty)
            mx = 0.25 * (xs[0] + xs[1] + xs[2] + xs[3])
            my = 0.25 * (ys[0] + ys[1] + ys[2] + ys[3])
            near = -400 < mx < 1400 and -400 < my < 1200
            if near:
                _add_polygon(acc[0], xs, ys, 4, 0.0, 0.0, 0.0)
    for i in range(quads.shape[0]):
        mx = quads[i, 0, 0]
        my = quads[i, 0, 1]
        x = (mx * cos - my * sin) * zoom + tx
        y = (mx * sin + my * cos) * zoom + ty
        if not (-reach - 200 < x < 1000 + reach + 200 and -reach - 200 < y < 800 + reach + 200):
            continue
        for k in range(4):
            px = quads[i, k, 0]
            py = quads[i, k, 1]
            xs[k] = np.trunc((px * cos - py * sin) * zoom + tx)
            ys[k] = np.trunc((px * sin + py * cos) * zoom + ty)
        _add_polygon(acc[1 + layers[i]], xs, ys, 4, colors[i, 0], colors[i, 1], colors[i, 2])
    for i in range(car.shape[0]):
        n = int(car[i, 0])
        for k in range(n):
            px = car[i, 4 + 2 * k]
            py = car[i, 5 + 2 * k]
            xs[k] = np.trunc((px * cos - py * sin) * zoom + tx)
            ys[k] = np.trunc((px * sin + py * cos) * zoom + ty)
        _add_polygon(acc[3], xs, ys, n, car[i, 1], car[i, 2], car[i, 3])
    for row in range(84):
        s = np.zeros((4, 4), np.float32)
        for col in range(SIZE):
            for layer in range(4):
                for c in range(4):
                    s[layer, c] += acc[layer, row, col, c]
            border = min(s[2, 0], np.float32(1.0))
            road = max(min(s[1, 0], np.float32(1.0) - border), np.float32(0.0))
            wheel = min(s[3, 0], np.float32(1.0))
            for c in range(3):
                v = bg[c] + s[0, 0] * (grass[c] - bg[c])
                v = v * (1 - road - border)
                if s[1, 0] > 0:
                    v += s[1, c + 1] / s[1, 0] * road
                if s[2, 0] > 0:
                    v += s[2, c + 1] / s[2, 0] * border
                v = v * (1 - wheel)
                if s[3, 0] > 1e-6:
                    v += s[3, c + 1] / s[3, 0] * wheel
                out[row, col, c] = np.uint8(min(max(v - 1.0, 0.0), 255.0))
    out[84:] = 0
    for i in range(hud.shape[0]):
        _bar(hud[i], out)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _bar(bar: Any, out: Any) -> None:
    """Draw one rectangle (x0, x1, y0, y1, r, g, b) of the dashboard, in observation pixels."""
    for row in range(max(0, int(bar[2])), min(SIZE, int(bar[3]) + 1)):
        high = min(bar[3], row + 1.0) - max(bar[2], float(row))
        for col in range(max(0, int(bar[0])), min(SIZE, int(bar[1]) + 1)):
            wide = min(bar[1], col + 1.0) - max(bar[0], float(col))
            for c in range(3):
                cover = max(high, 0.0) * max(wide, 0.0)
                out[row, col, c] = np.uint8(out[row, col, c] * (1 - cover) + cover * bar[4 + c])
