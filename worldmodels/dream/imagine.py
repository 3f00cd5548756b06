"""Dreams of an agent as arrays, for analysis: what `Agent.imagine` returns."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from worldmodels.dream.env import DreamVector
from worldmodels.dream.starts import Array, DreamStarts
from worldmodels.dream.world import WorldStep
from worldmodels.protocols import UserError

if TYPE_CHECKING:
    from worldmodels.agent import Agent


class Imagined(NamedTuple):
    """B dreams of T steps of M, those after a dream's end included (see ``ended``)."""

    z: Array
    """(B, T + 1, Z) latents; `Agent.decode` draws them"""
    h: Array
    """(B, T + 1, H) what a policy sees of M beside z: its features, or [h, c]"""
    action: NDArray[Any]
    """(B, T, A) for a Box, (B, T) for choices: the environment's actions"""
    reward: Array
    """(B, T) rewards as M predicts them"""
    ended: NDArray[np.bool_]
    """(B, T) True from the step on that ended the dream"""

    @property
    def length(self) -> NDArray[np.int64]:
        """(B,) steps of each dream until its end, the last one included."""
        steps: NDArray[np.int64] = np.minimum((~self.ended).sum(1) + 1, self.ended.shape[1])
        return steps

    @property
    def total_reward(self) -> NDArray[np.float64]:
        """(B,) sum of the rewards until the dream's end."""
        counts = np.arange(self.reward.shape[1]) < self.length[:, None]
        return np.asarray((self.reward * counts).sum(1, dtype=np.float64))


@torch.inference_mode()
def imagine(
    agent: Agent,
    steps: int,
    dreams: int,
    *,
    actions: ArrayLike | None = None,
    frames: NDArray[np.uint8] | None = None,
    seed: int = 0,
    **changes: Any,
) -> Imagined:
    """Dream; see `Agent.imagine`."""
    options = None
    if frames is not None:
        dreams, options = len(frames), {"start": np.arange(len(frames))}
        agent = _starting_at(agent, frames)
    vector = DreamVector(agent, dreams, horizon=steps, **changes)
    vector.reset(seed=seed, options=options)
    plan = None if actions is None else _plan(np.asarray(actions), dreams, steps)
    seen, taken, made = [vector.observe()], list[NDArray[Any]](), list[WorldStep]()
    for t in range(steps):
        z, h = torch.from_numpy(seen[-1]).split([agent.z_dim, agent.seen_dim], dim=1)
        chosen = agent.action_spec.decode(agent.act(z, h).numpy()) if plan is None else plan[:, t]
        step, _ = vector.dream(chosen, vector.np_random)
        taken.append(chosen)
        made.append(step)
        seen.append(vector.observe())
    latents, features = np.split(np.stack(seen, 1), [agent.z_dim], axis=2)
    reward = np.stack([step.reward for step in made], 1)
    ended = np.logical_or.accumulate(np.stack([step.terminated for step in made], 1), axis=1)
    return Imagined(latents, features, np.stack(taken, 1), reward, ended)


def _starting_at(agent: Agent, frames: NDArray[np.uint8]) -> Agent:
    """The agent with dreams that begin at real frames (B, H, W, 3), M's state empty."""
    z = agent.encode(frames)[0].numpy()
    states = [memory.initial_state(len(z)) for memory in agent.memories]
    other = copy.copy(agent)
    other.starts = DreamStarts(
        z, *(np.stack([state[part].numpy() for state in states]) for part in range(2))
    )
    return other


def _plan(actions: NDArray[Any], dreams: int, steps: int) -> NDArray[Any]:
    """Actions (T, ...) of all dreams, or (B, T, ...), as (B, T, ...)."""
    if actions.shape[:2] == (dreams, steps):
        return actions
    if len(actions) != steps:
        raise UserError(
            f"actions have shape {actions.shape}; expected one for each of {steps} steps, or that "
            f"for each of {dreams} dreams"
        )
    return np.broadcast_to(actions, (dreams, *actions.shape))
