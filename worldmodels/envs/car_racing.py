"""CarRacing with Gymnasium's physics and pixels drawn by numba kernels instead of pygame."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium.envs.box2d.car_dynamics import SIZE, WHEEL_R, WHEEL_W
from gymnasium.envs.box2d.car_racing import SCALE, ZOOM, CarRacing
from numpy.typing import NDArray

from worldmodels.envs import rasterizer


class FastCarRacing(CarRacing):  # type: ignore[misc]  # gymnasium.envs.box2d is untyped
    """Gymnasium's CarRacing-v3: same physics, rewards, infos and random streams; observations drawn faster."""

    def _create_track(self) -> bool:
        created: bool = super()._create_track()
        if created:
            polygons = self.road_poly
            self._quads = np.array([poly for poly, _ in polygons], np.float64)
            self._is_border = np.array([isinstance(color, tuple) for _, color in polygons], np.int64)
        return created

    def _render(self, mode: str) -> Any:
        if mode == "state_pixels" and "t" in self.__dict__:
            return self._draw_observation()
        return super()._render(mode)

    def _draw_observation(self) -> NDArray[np.uint8]:
        hull = self.car.hull
        angle = -hull.angle
        zoom = 0.1 * SCALE * max(1 - self.t, 0) + ZOOM * SCALE * min(self.t, 1)
        x, y = -hull.position[0] * zoom, -hull.position[1] * zoom
        cos, sin = math.cos(angle), math.sin(angle)
        camera = np.array([zoom, angle, 500 + x * cos - y * sin, 200 + x * sin + y * cos])
        colors = np.array([[int(c) for c in color] for _, color in self.road_poly], np.float32)
        out = np.empty((96, 96, 3), np.uint8)
        rasterizer.draw(
            self._quads, colors, self._is_border, camera,
            self.bg_color.astype(np.float32), self.grass_color.astype(np.float32),
            self._car_polygons(), self._dashboard(), out,
        )  # fmt: skip
        return out

    def _car_polygons(self) -> NDArray[np.float64]:
        rows = []
        for body in self.car.drawlist:
            transform = body.transform
            for fixture in body.fixtures:
                rows.append(([transform * v for v in fixture.shape.vertices], [int(c * 255) for c in body.color]))
            if hasattr(body, "phase"):
                c1, c2, s1, s2 = (f(body.phase + d) for f in (math.cos, math.sin) for d in (0, 1.2))
                if s1 > 0 and s2 > 0:
                    continue
                c1, c2 = (np.sign(c1) if s1 > 0 else c1), (np.sign(c2) if s2 > 0 else c2)
                w, r = WHEEL_W * SIZE, WHEEL_R * SIZE
                stripe = [(-w, r * c1), (w, r * c1), (w, r * c2), (-w, r * c2)]
                rows.append(([transform * v for v in stripe], [77, 77, 77]))
        polygons = np.zeros((len(rows), 20))
        for row, (points, color) in zip(polygons, rows, strict=True):
            row[0], row[1:4] = len(points), color
            row[4 : 4 + 2 * len(points)] = np.array([tuple(p) for p in points]).ravel()
        return polygons

    def _dashboard(self) -> NDArray[np.float64]:
        s, h = 1000 / 40, 800 / 40
        wheels, hull = self.car.wheels, self.car.hull
        speed = math.hypot(*hull.linearVelocity)
        bars = []
        values = [(5, 0.02 * speed, (255, 255, 255))]
        values += [(7 + i, 0.01 * wheels[i].omega, (0 if i < 2 else 51, 0, 255)) for i in range(4)]
        for place, value, color in values:
            y0, y1 = sorted((800 - h - h * value, 800 - h))
            bars.append((place * s, (place + 1) * s + 1, y0, y1 + 1, *color))
        for place, value, color in (
            (20, -10 * wheels[0].joint.angle, (0, 255, 0)),
            (30, -0.8 * hull.angularVelocity, (255, 0, 0)),
        ):
            x0, x1 = sorted((place * s, (place + value) * s))
            bars.append((x0, x1 + 1, 800 - 4 * h, 800 - 2 * h + 1, *color))
        scale = np.array([0.096, 0.096, 0.12, 0.12, 1, 1, 1])
        return np.array(bars, np.float64) * scale
