"""Controllers that act, for tests: numpy in, numpy out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worldmodels.controller.linear import ControllerConfig, Controllers, InputStats

Array = NDArray[np.float32]


def act(
    params: Array, z: Array, h: Array | None, cfg: ControllerConfig, stats: InputStats | None = None
) -> NDArray[Any]:
    """Actions (P, B, A) of a population (P, N) at z (P, B, Z) and h (P, B, H), or of one (N,)."""
    if params.ndim == 1:
        one = act(params[None], z[None], None if h is None else h[None], cfg, stats)
        return np.asarray(one[0])
    hidden = torch.zeros((*z.shape[:-1], 0)) if h is None else torch.from_numpy(h)
    weights = Controllers(torch.from_numpy(params), cfg, z.shape[-1], hidden.shape[-1], stats)
    return np.asarray(weights.act(torch.from_numpy(z), hidden))
