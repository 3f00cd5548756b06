"""An agent's dreams and V's reconstructions as frames, for an energy to judge."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from worldmodels.agent import Agent
from worldmodels.dream.env import DreamVector
from worldmodels.vision.vae import to_float, to_uint8


@torch.inference_mode()
def dreamt(agent: Agent, count: int, dreams: int = 20, seed: int = 0) -> NDArray[np.uint8]:
    """Frames (count, 64, 64, 3) of dreams under the agent's own controller.

    Args:
        agent: one with recorded starts.
        count: frames in all, from every dream the same number but for the last.
        dreams: that run side by side; one that ends restarts.
        seed: of their chance.

    Raises:
        UserError: the agent cannot dream.
    """
    env = DreamVector(agent, dreams)
    obs, _ = env.reset(seed=seed)
    found = []
    for _ in range(-(-count // dreams)):
        z, h = torch.from_numpy(obs).split([agent.z_dim, agent.seen_dim], dim=1)
        found.append(z)
        obs, *_ = env.step(agent.action_spec.decode(agent.act(z, h).numpy()))
    return agent.decode(torch.cat(found)[:count])


@torch.inference_mode()
def reconstructed(agent: Agent, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What the agent's V keeps of frames (B, 64, 64, 3): the same shape."""
    parts = np.array_split(frames, max(1, len(frames) // 256))
    seen = [agent.vision(to_float(torch.from_numpy(part))).reconstruction for part in parts]
    pictures: NDArray[np.uint8] = to_uint8(torch.cat(seen)).numpy()
    return pictures
