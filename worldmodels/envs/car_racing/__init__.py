"""CarRacing with Gymnasium's physics to the bit, and much faster pixels."""

from worldmodels.envs.car_racing.env import FastCarRacing

__all__ = ["FastCarRacing"]
