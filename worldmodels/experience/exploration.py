"""What drives the environment while experience is collected.

Every behaviour draws from generators of its own, one for each episode, derived from the episode's
seed and the word "exploration": neither the worker nor the rest of the group has a say in an
episode.

Noise lives in unit coordinates, -1 to 1 for every dimension of a Box action space.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from worldmodels.config import Between, Config, Count, Decay, Fraction, NotNegative, Positive
from worldmodels.envs.spaces import ActionSpec
from worldmodels.experience.rollout import Behaviour
from worldmodels.protocols import Policy, UserError
from worldmodels.runs import to_jsonable
from worldmodels.tasks import task_of

PolicyLoader: TypeAlias = Callable[[Path], Policy]
"""Opens an agent's folder, such as `Agent.from_pretrained`."""


@dataclass(frozen=True)
class AR1Config(Config):
    """Smooth random actions: AR(1) noise around a bias; in Discrete spaces, sticky choices."""

    rho: Decay = 0.9
    """how much of the deviation is left one step later, 0 to below 1; in a Discrete space, the
    probability of keeping the choice"""
    scale: NotNegative = 0.25
    """standard deviation around the bias, in unit coordinates (a Box spans -1 to 1)"""
    bias: tuple[float, ...] | None = None
    """centre of each action in unit coordinates; None takes the task's own, else 0"""
    bias_spread: NotNegative = 0.1
    """standard deviation of a shift of the bias, drawn once an episode: slow and fast drivers"""


@dataclass(frozen=True)
class BrownianConfig(Config):
    """Brownian motion in the action space, as in C. Tallec's reimplementation of World Models."""

    dt: Positive = 1 / 50
    """time of one step: an action moves by sqrt(dt) times standard noise, in its own units"""


@dataclass(frozen=True)
class RandomControllerConfig(Config):
    """Linear controllers with random Cauchy weights, drawn anew for each episode.

    As in World Models (Ha & Schmidhuber 2018), but the paper's random controllers look through a V
    and an M that are not trained yet. Here they look at a thumbnail of the frame, which is as
    arbitrary an embedding and costs nothing.
    """

    max_scale: Positive = 0.01
    """an episode's weights are Cauchy noise times a scale drawn from 0 to this"""
    thumbnail: Annotated[int, Between(1, 64)] = 8
    """height and width of the grey thumbnail"""


@dataclass(frozen=True)
class AgentNoiseConfig(Config):
    """A trained agent, disturbed, so that the data show what happens near its path and off it."""

    agent: Path
    """folder of the agent"""
    rho: Decay = 0.9
    """how much of the noise on the agent's actions is left one step later"""
    scale: NotNegative = 0.15
    """standard deviation of that noise in unit coordinates; Discrete actions have none"""
    bias_spread: NotNegative = 0.0
    """standard deviation of a shift of the agent's actions, drawn once an episode, in the same
    units: slower and faster driving than its own"""
    kick_probability: Fraction = 0.01
    """probability, in each step, that a kick begins: one random action, held for a while"""
    kick_steps: Count = 10
    """longest kick, in steps; lengths from 1 to this are equally likely"""
    random_start_probability: Fraction = 0.0
    """share of the episodes that begin with random driving"""
    random_start_steps: Count = 100
    """longest random beginning, in steps; lengths from 1 to this are equally likely"""
    explore: AR1Config = field(default_factory=AR1Config)
    """random driving at the beginning"""


BehaviourConfig: TypeAlias = AR1Config | BrownianConfig | RandomControllerConfig | AgentNoiseConfig


def describe(cfg: BehaviourConfig) -> dict[str, Any]:
    """Return what identifies a behaviour: its kind and values, an agent by its files' SHA-256.

    Raises:
        UserError: the agent's folder is missing or empty.
    """
    facts = {"kind": type(cfg).__name__.removesuffix("Config"), **to_jsonable(cfg)}
    if isinstance(cfg, AgentNoiseConfig):
        facts["agent"] = _folder_digest(Path(cfg.agent))
    return facts


def _folder_digest(folder: Path) -> str:
    """Hash the names and contents of an agent's weights and configuration."""
    files = sorted(p for p in folder.glob("*") if p.suffix in (".safetensors", ".json"))
    if not files:
        raise UserError(f"there is no agent in {folder}: it has no weights and no config.json")
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}:{hashlib.sha256(file.read_bytes()).hexdigest()};".encode())
    return digest.hexdigest()


def build_behaviour(
    cfg: BehaviourConfig, env: gym.Env[Any, Any], load_policy: PolicyLoader | None = None
) -> Behaviour:
    """Make what a configuration describes, for the action space of `env`.

    Args:
        cfg: the configuration.
        env: an environment of the kind to be driven.
        load_policy: opens an agent's folder; needed for `AgentNoiseConfig`.

    Raises:
        UserError: the configuration does not fit the action space, or the agent cannot be loaded.
    """
    from worldmodels.experience import behaviours

    spec = ActionSpec.from_space(env.action_space)
    if isinstance(cfg, AR1Config):
        return _ar1(cfg, spec, env)
    if isinstance(cfg, BrownianConfig):
        if spec.kind != "box":
            raise UserError(
                "BrownianConfig needs a Box action space; AR1Config takes Discrete ones"
            )
        return behaviours.Brownian(cfg.dt, spec)
    if isinstance(cfg, RandomControllerConfig):
        bias = _bias(None, spec, task_of(env).random_controller_bias)
        return behaviours.RandomController(cfg.max_scale, cfg.thumbnail, bias, spec)
    if load_policy is None:
        raise UserError("AgentNoiseConfig needs load_policy, which opens the agent's folder")
    return behaviours.NoisyPolicy(
        load_policy(Path(cfg.agent)),
        spec,
        noise=(cfg.rho, cfg.scale),
        bias_spread=cfg.bias_spread,
        kick=(cfg.kick_probability, cfg.kick_steps),
        random_start=(cfg.random_start_probability, cfg.random_start_steps),
        explore=_ar1(cfg.explore, spec, env),
    )


def _ar1(cfg: AR1Config, spec: ActionSpec, env: gym.Env[Any, Any]) -> Behaviour:
    from worldmodels.experience import behaviours

    if spec.kind == "discrete":
        return behaviours.Sticky(cfg.rho, spec)
    bias = _bias(cfg.bias, spec, task_of(env).explore_bias)
    return behaviours.AR1(cfg.rho, cfg.scale, bias, cfg.bias_spread, spec)


def _bias(
    given: Sequence[float] | None, spec: ActionSpec, own: Sequence[float] | None
) -> NDArray[np.float64]:
    """Return the bias (A,) in unit coordinates: the one given, or the task's own, or 0."""
    if given is not None and len(given) != spec.dim:
        raise UserError(f"the bias has {len(given)} numbers; the actions have {spec.dim}")
    bias = given if given is not None else own if spec.kind == "box" else None
    return np.zeros(spec.dim) if bias is None else np.array(bias, np.float64)
