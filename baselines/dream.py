"""PPO in the dream of an agent, and its policy in reality: the agent's V and M with PPO as C.

A step of the dream is `Agent.action_repeat` frames of the real environment; in reality the agent
holds each action that long, since it is the agent itself, with another C.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from torch import Tensor

from baselines import drivers
from baselines.models import build_policy
from baselines.recipes import Recipe
from baselines.training_env import normalized
from worldmodels import envs, runs
from worldmodels.agent import Agent, find
from worldmodels.dream.sb3 import DreamVecEnv, LatentPredictor
from worldmodels.protocols import UserError


def copy_agent(agent: Path, target: Path) -> Path:
    """Put an agent where a run can find it for ever; what is there already stays.

    Raises:
        UserError: there is no such agent, or another one is there.
    """
    folder = find(agent)
    if not target.exists():
        temporary = target.with_name(f".{target.name}-new")
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(folder, temporary)
        temporary.replace(target)
    sums = [runs.read_json(place / "config.json")["sha256"] for place in (folder, target)]
    if sums[0] != sums[1]:
        raise UserError(f"{target} holds another agent than {agent}; choose another run folder")
    return target


def home_of(agent: Path) -> str:
    """The environment of the agent in a folder."""
    config = find(agent) / "config.json"
    return envs.from_file(str(runs.read_json(config)["env_id"]), config)


def make_dream_env(recipe: Recipe, world: Path, horizon: int) -> VecEnv:
    """As many dreams of an agent, that long, as the recipe has environments.

    Raises:
        UserError: there is no such agent, or it cannot dream.
    """
    vector = gym.make_vec(
        "worldmodels/Dream-v0",
        recipe.n_envs,
        vectorization_mode="vector_entry_point",
        agent=Agent.from_pretrained(world),
        horizon=horizon,
    )
    return normalized(recipe, VecMonitor(DreamVecEnv(vector)))


def drive_by(recipe: Recipe, tensors: Mapping[str, Tensor], world: Path, digest: str = "") -> Agent:
    """The agent in a folder under a policy that was trained in its dream.

    Args:
        recipe: of the policy.
        tensors: its weights.
        world: the agent's folder.
        digest: names the weights, for evaluations that can be resumed.

    Raises:
        UserError: there is no such agent, or the tensors are not the recipe's.
    """
    agent = Agent.from_pretrained(world)
    seen = spaces.Box(-np.inf, np.inf, (agent.z_dim + agent.seen_dim,), np.float32)
    policy = build_policy(recipe, seen, drivers.action_space(agent.action_spec))
    drivers.assign(policy, tensors, world)
    sums = runs.read_json(world / "config.json")["sha256"]
    return agent.with_policy(LatentPredictor(policy), digest and runs.config_hash([digest, sums]))
