"""The kinds of actions under which an environment that nobody has described is played."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from worldmodels.envs.spaces import ActionSpec

STICKY = (0.0, 0.5, 0.7, 0.9, 0.98)
"""Probabilities of keeping a choice of a Discrete space; 0 chooses anew in every step."""
SCALES = (0.25, 0.5, 1.0)
"""Standard deviations of AR(1) noise in a Box, in unit coordinates."""
RHO = 0.9
"""What is left of that noise one step later."""


def behaviours(spec: ActionSpec) -> list[tuple[str, str, float]]:
    """Name, kind and value of all that is tried: random actions, then at most three held ones."""
    found = [("uniform", "uniform", 0.0)]
    if spec.kind == "discrete":
        found += [(f"a choice kept with {rate:g}", "sticky", rate) for rate in STICKY[1:]]
        held = sorted({0, spec.dim // 2, spec.dim - 1})
        return found + [(f"choice {spec.start + n} held", "held", float(n)) for n in held]
    found += [(f"AR(1) noise of {scale:g}", "noise", scale) for scale in SCALES]
    names = {-1.0: "lowest", 0.0: "middle", 1.0: "highest"}
    return found + [(f"the {name} action held", "held", unit) for unit, name in names.items()]


def actions_of(spec: ActionSpec, kind: str, value: float, seed: int) -> Iterator[Any]:
    """Actions for the environment, without end."""
    rng, low, high = np.random.default_rng(seed), np.array(spec.low), np.array(spec.high)
    if spec.kind == "discrete":
        choice = int(value) if kind == "held" else int(rng.integers(spec.dim))
        while True:
            yield spec.start + choice
            if kind == "uniform" or (kind == "sticky" and rng.random() >= value):
                choice = int(rng.integers(spec.dim))
    unit = value * rng.standard_normal(spec.dim)
    while True:
        if kind == "uniform":
            unit = rng.uniform(-1, 1, spec.dim)
        elif kind == "held":
            unit = np.full(spec.dim, value)
        numbers = low + (np.clip(unit, -1, 1) + 1) * (high - low) / 2
        yield spec.to_env(numbers.astype(np.float32))
        unit = RHO * unit + np.sqrt(1 - RHO**2) * value * rng.standard_normal(spec.dim)
