"""The car and its contacts with the road: stock physics, the same floats, less Python.

Stock computes with numpy scalars and reads each vector through several proxies. Here the same
operations are done in the same order on Python floats, which round alike.
"""

from __future__ import annotations

import math
from typing import Any

from gymnasium.envs.box2d.car_dynamics import (
    ENGINE_POWER,
    FRICTION_LIMIT,
    SIZE,
    WHEEL_MOMENT_OF_INERTIA,
    Car,
)
from gymnasium.envs.box2d.car_racing import FrictionDetector

BRAKE_FORCE = 15
"""What the brake takes from a wheel's rotation in one step, radians per second."""
GRASS_LIMIT = FRICTION_LIMIT * 0.6
STIFFNESS = 205000 * SIZE * SIZE


class FastCar(Car):
    """Gymnasium's car with `gas` and `step` in plain floats."""

    def __init__(self, world: Any, angle: float, x: float, y: float) -> None:
        """Put a car into the world; each wheel's fixture knows which it is."""
        super().__init__(world, angle, x, y)  # type: ignore[no-untyped-call]  # stock is untyped
        for k, wheel in enumerate(self.wheels):
            wheel.fixtures[0].userData = -1 - k

    def numbers(self) -> list[float]:
        """The whole state of the car: cars that differ in nothing here continue alike."""
        numbers = [self.fuel_spent]
        for body in self.drawlist:
            numbers += [*body.position, *body.linearVelocity, body.angle, body.angularVelocity]
        for wheel in self.wheels:
            numbers += [wheel.omega, wheel.phase, wheel.gas, wheel.brake, wheel.steer]
            numbers += [wheel.joint.angle, wheel.joint.motorSpeed, len(wheel.tiles)]
        return [float(number) for number in numbers]

    def gas(self, gas: float) -> None:
        """Open the rear throttle to `gas`, 0 to 1, by at most 0.1 a step; close it at once."""
        gas = min(max(gas, 0.0), 1.0)
        for wheel in self.wheels[2:4]:
            wheel.gas += min(gas - wheel.gas, 0.1)

    def step(self, dt: float) -> None:
        """Apply one step of `dt` seconds of engine, brake and friction to the wheels."""
        for wheel in self.wheels:
            joint = wheel.joint
            turn = wheel.steer - joint.angle
            joint.motorSpeed = math.copysign(min(50.0 * abs(turn), 3.0), turn)
            grass = not wheel.tiles
            limit = GRASS_LIMIT if grass else FRICTION_LIMIT  # every tile has friction 1
            forward = wheel.GetWorldVector((0, 1))
            forward_x, forward_y = forward.x, forward.y
            side_x, side_y = forward_y, -forward_x
            velocity = wheel.linearVelocity
            velocity_x, velocity_y = velocity.x, velocity.y
            vf = forward_x * velocity_x + forward_y * velocity_y
            vs = side_x * velocity_x + side_y * velocity_y
            power = dt * ENGINE_POWER * wheel.gas
            omega = wheel.omega
            omega += power / WHEEL_MOMENT_OF_INERTIA / (abs(omega) + 5.0)
            self.fuel_spent += power
            if wheel.brake >= 0.9:  # it blocks the wheel
                omega = 0.0
            elif wheel.brake > 0:
                omega -= math.copysign(min(BRAKE_FORCE * wheel.brake, abs(omega)), omega)
            wheel.phase += omega * dt
            f_force = (-vf + omega * wheel.wheel_rad) * STIFFNESS
            p_force = -vs * STIFFNESS
            force = math.sqrt(f_force * f_force + p_force * p_force)
            if force > 2.0 * limit:
                self._skid(wheel, grass)
            else:
                wheel.skid_start = wheel.skid_particle = None
            if force > limit:
                f_force = f_force / force * limit
                p_force = p_force / force * limit
            wheel.omega = omega - dt * f_force * wheel.wheel_rad / WHEEL_MOMENT_OF_INERTIA
            force_x = p_force * side_x + f_force * forward_x
            force_y = p_force * side_y + f_force * forward_y
            wheel.ApplyForceToCenter((force_x, force_y), True)

    def _skid(self, wheel: Any, grass: bool) -> None:
        """Lengthen the wheel's trace, or begin one."""
        trace = wheel.skid_particle
        if trace and trace.grass == grass and len(trace.poly) < 30:
            trace.poly.append((wheel.position[0], wheel.position[1]))
        elif wheel.skid_start is None:
            wheel.skid_start = wheel.position
        else:
            create: Any = self._create_particle
            wheel.skid_particle = create(wheel.skid_start, wheel.position, grass)
            wheel.skid_start = None


class ContactListener(FrictionDetector):
    """Gymnasium's contact listener, with half the proxies: it reads fixtures instead of bodies.

    Every contact is between a tile, whose fixture holds its index, and the hull, whose fixtures
    hold None, or wheel k, whose fixture holds -1 - k.
    """

    def BeginContact(self, contact: Any) -> None:
        """Give a tile the plain colour of the road, note a wheel on it, and reward the first."""
        index, wheel = _tile_and_wheel(contact)
        env = self.env
        tile = env.road[index]
        tile.color[:] = env.road_color
        env.shade[index] = 0
        if wheel is None:
            return
        env.car.wheels[-1 - wheel].tiles.add(tile)
        if not tile.road_visited:
            tile.road_visited = True
            env.reward += 1000.0 / len(env.track)
            env.tile_visited_count += 1
            share = env.tile_visited_count / len(env.track)
            if index == 0 and share > self.lap_complete_percent:
                env.new_lap = True

    def EndContact(self, contact: Any) -> None:
        """Note that a wheel has left a tile."""
        index, wheel = _tile_and_wheel(contact)
        if wheel is not None:
            env = self.env
            env.car.wheels[-1 - wheel].tiles.remove(env.road[index])


def _tile_and_wheel(contact: Any) -> tuple[int, int | None]:
    """The index of a contact's tile, and what its other fixture holds."""
    index, wheel = contact.fixtureA.userData, contact.fixtureB.userData
    return (wheel, index) if index is None or index < 0 else (index, wheel)
