"""CarRacing with Gymnasium's physics and pixels drawn by numba kernels instead of pygame."""

from __future__ import annotations

import copy
import math
from collections import deque
from typing import Any, Self

import gymnasium as gym
import numpy as np
from Box2D import b2_staticBody, b2BodyDef, b2FixtureDef, b2PolygonShape, b2World
from gymnasium.envs.box2d.car_racing import FPS, PLAYFIELD, SCALE, ZOOM, CarRacing
from gymnasium.error import InvalidAction
from numpy.typing import NDArray

from worldmodels.envs.car_racing import scene, track
from worldmodels.envs.car_racing.car import ContactListener, FastCar
from worldmodels.envs.car_racing.ground import SIZE
from worldmodels.protocols import UserError

TILE_INDICES = list(range(track.MAX_STEPS))
"""Box2D never gives up a reference to a fixture's user data, so all episodes share these."""
DISCRETE = ((0, 0, 0), (0.6, 0, 0), (-0.6, 0, 0), (0, 0.2, 0), (0, 0, 0.8))
"""Steering, gas and brake of each discrete action."""
MOST_REPLAYED = 100_000
"""Steps of an episode that a copy can repeat; longer ones are not copied."""
_LIVE = """
world car road road_poly contactListener_keepref fd_tile _tile_shape _tile_body screen clock surf
""".split()
"""Attributes that hold objects of Box2D and pygame: a copy makes its own."""


class FastCarRacing(CarRacing):
    """Gymnasium's CarRacing-v3 with the same physics, rewards, infos and random streams, faster.

    Takes the same keyword arguments. Observations are drawn by kernels, within half a level of the
    stock ones on average; `render()` draws with pygame as the stock class does. Copies and pickles
    continue the episode where the original is, which costs a repetition of its steps.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take the arguments of Gymnasium's class."""
        super().__init__(*args, **kwargs)
        self.car: Any = None
        self._controls: deque[Any] = deque(maxlen=MOST_REPLAYED)
        self._open_world(self.world)
        self._scratch, self._pose = scene.make_scratch(), np.zeros(scene.POSE_SIZE)
        self.draws_observations = True
        """set to False for steps whose frame nobody will see: `step` then returns the last one"""

    def _open_world(self, world: b2World) -> None:
        """Take an empty world, and make what fills it and listens to it."""
        # one listener for all episodes: Box2D would keep each new one for ever
        listener: Any = ContactListener  # stock's classes and methods are untyped
        self.contactListener_keepref = listener(self, self.lap_complete_percent)
        self.world, world.contactListener = world, self.contactListener_keepref
        self._tile_shape = b2PolygonShape(vertices=[(0, 0), (1, 0), (1, -1), (0, -1)])
        self.fd_tile = b2FixtureDef(shape=self._tile_shape, isSensor=True)
        self._tile_body = b2BodyDef(type=b2_staticBody, fixtures=self.fd_tile)

    def __copy__(self) -> Self:
        """A deep copy, since two environments cannot share a world."""
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        """All but the objects of Box2D and pygame, and the state that a copy's car must reach."""
        state = {name: value for name, value in vars(self).items() if name not in _LIVE}
        if self.car is None:
            return state
        if len(self._controls) == MOST_REPLAYED:
            raise UserError(
                f"this CarRacing has done {MOST_REPLAYED} steps since its last reset, which is "
                "too many to copy or pickle it: reset it first"
            )
        share = self.contactListener_keepref.lap_complete_percent
        return {**state, "car": self.car.numbers(), "share": share}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Build a world and repeat the episode in it, as Box2D cannot be set to a state exactly."""
        plain = dict(state)
        numbers, share = plain.pop("car", None), plain.pop("share", None)
        self.__dict__.update(plain)
        self.screen = self.clock = self.surf = self.car = self.road = None
        self._open_world(b2World((0, 0)))
        if numbers is None:
            return
        self.draws_observations, self.render_mode = False, None
        self._create_tiles()
        self._start()
        self.contactListener_keepref.lap_complete_percent = share
        for control in plain["_controls"]:
            FastCarRacing.step(self, control)
        if self.car.numbers() != numbers:
            raise UserError(
                "this CarRacing cannot be copied or pickled before its next reset: its car is not "
                "where step() has put it"
            )
        self.__dict__.update(plain)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Start an episode on a new track; option "randomize": False keeps randomised colours."""
        gym.Env.reset(self, seed=seed)
        stock: Any = self  # its methods are untyped
        stock._destroy()
        if self.domain_randomize:
            stock._reinit_colors((options or {}).get("randomize", True))
        while (lap := track.draw_lap(self.np_random)) is None:
            if self.verbose:
                print("the ends of the track do not meet: another is made")
        self.track = list(map(tuple, lap.tolist()))
        self._sections, self._borders, self._sides = track.lay_road(lap)
        self._create_tiles()
        self._start()
        if self.render_mode == "human":
            stock.render()
        return self.step(None)[0], {}

    def _start(self) -> None:
        """Put the car on the first tile, with nothing done yet."""
        self.contactListener_keepref.lap_complete_percent = self.lap_complete_percent
        self.reward = self.prev_reward = self.t = 0.0
        self.tile_visited_count, self.new_lap = 0, False
        self._controls = deque(maxlen=MOST_REPLAYED)
        self.car = FastCar(self.world, *self.track[0][1:4])
        # the polygons of a wheel and the hull, as Box2D keeps them
        shapes, sizes = np.zeros((5, 8, 2)), np.zeros(5, np.int64)
        for k, fixture in enumerate([*self.car.wheels[0].fixtures, *self.car.hull.fixtures]):
            vertices = fixture.shape.vertices
            sizes[k] = len(vertices)
            shapes[k, : len(vertices)] = vertices
        self._shapes = shapes, sizes

    def _create_tiles(self) -> None:
        """Make a sensor body for each tile, and the polygons that stock draws for people."""
        shades = [self.road_color + 0.01 * k * 255 for k in range(3)]
        colors = [self.bg_color, self.grass_color, *shades]
        self._palette = np.trunc(colors).astype(np.float32)
        self.shade = (np.arange(len(self.track)) % 3).astype(np.int8)
        self.road: Any = []
        self.road_poly: list[Any] = []
        ends = [((lx, ly), (rx, ry)) for lx, ly, rx, ry in self._sections.tolist()]
        for i, (left, right) in enumerate(ends):
            last_left, last_right = ends[i - 1]
            corners = [left, right, last_right, last_left]
            self._tile_shape.vertices = corners
            self.fd_tile.userData = TILE_INDICES[i]
            tile = self.world.CreateBody(self._tile_body)
            tile.userData, tile.idx, tile.color = tile, i, shades[i % 3].copy()
            tile.road_visited, tile.road_friction = False, 1.0
            self.road.append(tile)
            self.road_poly.append((corners, tile.color))
            if self._sides[i]:
                inner, outer, last_inner, last_outer = self._borders[i].reshape(4, 2).tolist()
                color = (255, 255, 255) if i % 2 == 0 else (255, 0, 0)
                self.road_poly.append(([inner, outer, last_outer, last_inner], color))

    def step(
        self, action: NDArray[Any] | int | None
    ) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Advance by 1/50 second; see Gymnasium's CarRacing for actions and rewards.

        An action that is not finite is refused, since the physics would never recover.
        """
        assert self.car is not None, "call reset() before step()"
        self._control(action)
        self.car.step(1.0 / FPS)
        self.world.Step(1.0 / FPS, 6 * 30, 2 * 30)
        self.t += 1.0 / FPS
        if self.draws_observations:
            self.state = self._draw_observation()

        step_reward, terminated = 0.0, False
        info: dict[str, Any] = {}
        if action is not None:
            self.reward -= 0.1
            self.car.fuel_spent = 0.0
            step_reward = self.reward - self.prev_reward
            self.prev_reward = self.reward
            if self.tile_visited_count == len(self.track) or self.new_lap:
                terminated, info["lap_finished"] = True, True
            position = self.car.hull.position
            if abs(position.x) > PLAYFIELD or abs(position.y) > PLAYFIELD:
                terminated, info["lap_finished"], step_reward = True, False, -100
        if self.render_mode == "human":
            self._render("human")
        return self.state, step_reward, terminated, False, info

    def _control(self, action: Any) -> None:
        """Pass an action to the car, where there is one."""
        values = action
        if action is not None and self.continuous:
            action = values = np.asarray(action).tolist()
            if len(values) != 3 or not math.isfinite(sum(values)):
                raise UserError(
                    f"CarRacing was given the action {values}; it takes 3 finite numbers"
                )
        elif action is not None:
            if not self.action_space.contains(action):
                raise InvalidAction(
                    f"you passed the invalid action `{action}`. "
                    f"The supported action_space is `{self.action_space}`"
                )
            action, values = int(action), DISCRETE[int(action)]
        self._controls.append(action)
        if values is not None:
            steer, gas, brake = values
            self.car.steer(-steer)
            self.car.gas(gas)
            self.car.brake(brake)

    def _render(self, mode: str) -> Any:
        """Draw observations with the kernels, and the modes made for people as stock does."""
        if mode == "state_pixels" and "t" in self.__dict__:
            return self._draw_observation()
        return super()._render(mode)

    def draw_last(self) -> NDArray[np.uint8]:
        """Draw the state after a step that did not (its score text is one step ahead)."""
        self.state = obs = self._draw_observation()
        return obs

    def _draw_observation(self) -> NDArray[np.uint8]:
        """Draw the (96, 96, 3) observation of the present state."""
        hull, wheels = self.car.hull, self.car.wheels
        position, velocity = hull.position, hull.linearVelocity
        zoom = 0.1 * SCALE * max(1 - self.t, 0) + ZOOM * SCALE * min(self.t, 1)
        pose = [zoom, position.x, position.y, hull.angle]
        pose += (velocity.x, velocity.y, hull.angularVelocity, wheels[0].joint.angle)
        for wheel in wheels:
            position = wheel.position
            pose += (position.x, position.y, wheel.angle, wheel.phase, wheel.omega)
        self._pose[:] = pose
        obs = np.empty((SIZE, SIZE, 3), np.uint8)
        scene.draw_frame(
            self._pose,
            (self._sections, self._borders, self._sides, self.shade),
            self._palette,
            self._shapes,
            scene.score_text(f"{self.reward:04.0f}"),
            self._scratch,
            obs,
        )
        return obs
