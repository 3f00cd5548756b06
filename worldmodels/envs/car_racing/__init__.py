"""CarRacing with Gymnasium's physics to the bit, and much faster pixels."""

from worldmodels.envs.car_racing.env import FastCarRacing

__all__ = ["STOCK", "FastCarRacing"]

STOCK = "CarRacing-v"
"""How the ids of Gymnasium's own environment begin."""
