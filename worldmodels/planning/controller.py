"""An agent's C in torch: where searches begin, what drives after a plan, what actors add to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from worldmodels.agent import Agent
from worldmodels.controller import linear

Drive: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""z (B, Z) and h (B, H) to M's action input (B, A), differentiable where it can be."""


class ControllerDrive:
    """An agent's C as a differentiable function of z and h (B, ...) to M's action input (B, A)."""

    def __init__(self, agent: Agent) -> None:
        """Take C's weights as they are now."""
        parameters = torch.tensor(agent.parameters)[None]
        sizes = (agent.z_dim, agent.h_dim)
        self.weights = linear.Controllers(parameters, agent.controller, *sizes, agent.input_stats)

    def __call__(self, z: Tensor, h: Tensor) -> Tensor:
        """C's actions."""
        return self.weights(z[None], h[None])[0]
