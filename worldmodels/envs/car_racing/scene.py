"""A whole CarRacing frame: the ground's colours mixed by coverage, then car and dashboard."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from worldmodels.envs.car_racing.ground import (
    FIELD,
    KERB,
    NUM_PLANES,
    PATCH,
    ROAD,
    SHADE1,
    SHADE2,
    WHITE,
    draw_grass,
    draw_road,
)
from worldmodels.envs.car_racing.rasterizer import CANVAS_H, CANVAS_W, ROWS, SIZE, quantize
from worldmodels.envs.car_racing.sprites import cover_car, draw_dashboard, paint_car
from worldmodels.envs.kernels import kernel

POSE_SIZE = 28
"""Numbers that tell where everything that moves is; see `draw_frame`."""


@kernel
def draw_frame(
    pose: Any,
    sections: Any,
    borders: Any,
    sides: Any,
    shade: Any,
    palette: Any,
    shapes: Any,
    shape_sizes: Any,
    text: Any,
    planes: Any,
    car: Any,
    window: Any,
    out: Any,
) -> None:
    """Draw one observation.

    Args:
        pose: (POSE_SIZE) zoom; the hull's x, y, angle, velocity x, y and angular velocity; the
            first wheel's joint angle; then x, y, angle, phase and omega of each wheel.
        sections: (N, 4) cross-sections of the road as `track.lay_road` returns them, world units.
        borders: (N, 8) likewise.
        sides: (N) likewise.
        shade: (N) 0, 1 or 2: index of tile i's colour.
        palette: (5, 3) float32 colours: grass, lighter grass, the three shades of road.
        shapes: (5, 8, 2) the wheel's polygon, then the hull's four, in the body's frame.
        shape_sizes: (5) number of vertices of each.
        text: (12, 12) uint8, the score as `sprites.score_text` draws it.
        planes: (ROWS + 2, NUM_PLANES, SIZE) float32 zeros; zeros again afterwards.
        car: (CAR_ROWS, CAR_COLS, 4) float32 scratch.
        window: (CAR_WINDOW, CAR_WINDOW) uint8 zeros; zeros again afterwards.
        out: (SIZE, SIZE, 3) uint8, written.
    """
    zoom, x, y = pose[0], -pose[1] * pose[0], -pose[2] * pose[0]
    cos, sin = math.cos(-pose[3]), math.sin(-pose[3])
    shift_x = CANVAS_W / 2 + (x * cos - y * sin)
    shift_y = CANVAS_H / 4 + (x * sin + y * cos)
    camera = (zoom, cos, sin, shift_x, shift_y)
    outside = draw_grass(camera, planes)
    box = cover_car(camera, pose, shapes, shape_sizes, window, car)
    kerbs = draw_road(camera, sections, borders, sides, shade, planes)
    _mix(planes, palette, outside, kerbs, car, box, out)
    draw_dashboard(pose, text, out)


@kernel
def _mix(
    planes: Any, palette: Any, outside: bool, kerbs: bool, car: Any, box: Any, out: Any
) -> None:
    """Mix all colours row by row, paint the car, turn means into bytes, and empty the planes.

    Means to bytes can be vectorised, the order of the channels cannot, so these are two steps.
    """
    sums, shares = np.zeros((NUM_PLANES, SIZE), np.float32), np.empty((4, SIZE), np.float32)
    line, levels = np.empty((3, SIZE), np.float32), np.empty((3, SIZE), np.uint8)
    if not outside:
        sums[FIELD] = 1
    top, left, bottom, right = box
    for row in range(ROWS):
        _mix_row(planes[row], palette, outside, kerbs, sums, shares, line)
        if top <= row < bottom:
            paint_car(car[row - top], left, right, line)
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
def _mix_row(
    changes: Any, palette: Any, outside: bool, kerbs: bool, sums: Any, shares: Any, line: Any
) -> None:
    """Add a row's changes of coverage to the sums, empty them, and mix the row's colours.

    Borders lie on the road's edge, so the road has what they leave of a pixel, and the grass the
    rest.

    Args:
        changes: (NUM_PLANES, SIZE) a row of all planes.
        palette: (5, 3) colours.
        outside: whether the playfield's coverage changes.
        kerbs: whether that of borders changes.
        sums: (NUM_PLANES, SIZE) coverage of the row above, updated.
        shares: (4, SIZE) scratch.
        line: (3, SIZE) float32, the row's colours, written.
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
