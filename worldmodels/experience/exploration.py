"""Behaviours that collect experience: random ones, and agents with noise.

Every behaviour acts in a group of episodes and draws from one generator per episode, derived from
its seed and the word "exploration": an episode depends on its seed only. Noise is in unit
coordinates, -1 to 1 for every dimension of a Box action space; in a Discrete one it is the fraction
of decisions that are random.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from worldmodels.config import Between, Config, Count, Decay, Fraction, NotNegative, Positive
from worldmodels.envs.spaces import ActionSpec
from worldmodels.experience.rollout import Behaviour
from worldmodels.protocols import Policy, PolicyState, UserError
from worldmodels.runs import derive_seed, file_digest, to_jsonable
from worldmodels.tasks import task_of

PolicyLoader: TypeAlias = Callable[[Path], Policy]
"""Opens an agent's folder, such as `Agent.from_pretrained`."""

_Act: TypeAlias = Callable[[NDArray[np.uint8]], NDArray[Any]]
"""Frames (n, H, W, C) of n episodes -> their actions, (n, A) or (n,)."""

_CHUNK = 128


@dataclass(frozen=True)
class AR1Config(Config):
    """Smooth random actions: AR(1) noise around a bias; in Discrete spaces, sticky choices.

    Choices are uniformly random: of the fields they have `rho` only, and a `bias` is refused.
    """

    rho: Decay = 0.9
    """autocorrelation of the noise per step; in a Discrete space, the chance to keep the choice"""
    scale: NotNegative = 0.25
    """standard deviation around the bias, in unit coordinates (a Box spans -1 to 1)"""
    bias: tuple[float, ...] | None = None
    """centre of each action in unit coordinates (default: the task's, else 0)"""
    bias_std: NotNegative = 0.1
    """standard deviation of a shift of the bias, drawn once per episode"""


@dataclass(frozen=True)
class BrownianConfig(Config):
    """Brownian motion in the action space, as in C. Tallec's reimplementation of World Models."""

    dt: Positive = 1 / 50
    """time of one step: an action moves by sqrt(dt) times standard noise, in its own units"""


@dataclass(frozen=True)
class RandomControllerConfig(Config):
    """Linear controllers with random Cauchy weights, redrawn for each episode.

    As in World Models (Ha & Schmidhuber 2018), whose random controllers see through an untrained V
    and M; these see a thumbnail of the frame, which is as arbitrary an embedding and is cheap.
    """

    max_scale: Positive = 0.01
    """an episode's weights are Cauchy noise times a scale drawn from 0 to this"""
    thumbnail: Annotated[int, Between(1, 64)] = 8
    """height and width of the grey thumbnail"""


@dataclass(frozen=True)
class AgentNoiseConfig(Config):
    """A trained agent with noise, so that the data show what happens near its path and off it."""

    agent: Path
    """folder of the agent"""
    rho: Decay = 0.9
    """autocorrelation of the noise on the agent's actions from step to step; of Box actions only"""
    scale: NotNegative = 0.15
    """standard deviation of that noise in unit coordinates; in a Discrete space the fraction of
    decisions with a random action, which comes in bursts as below"""
    bias_std: NotNegative = 0.0
    """standard deviation of a shift of the agent's actions, drawn per episode, in the same units;
    0 in a Discrete space"""
    burst_probability: Fraction = 0.01
    """chance per step that a burst begins: one random action, held for some steps"""
    burst_steps: Count = 10
    """longest burst, in steps; lengths from 1 to this are equally likely"""
    random_start_probability: Fraction = 0.0
    """fraction of the episodes that begin with random actions"""
    random_start_steps: Count = 100
    """longest random beginning, in steps; lengths from 1 to this are equally likely"""
    explore: AR1Config = field(default_factory=AR1Config)
    """random actions at the beginning"""


BehaviourConfig: TypeAlias = AR1Config | BrownianConfig | RandomControllerConfig | AgentNoiseConfig


def describe(cfg: BehaviourConfig) -> dict[str, Any]:
    """What identifies a behaviour: its kind and values, an agent by the SHA-256 of its files."""
    facts = {"kind": type(cfg).__name__.removesuffix("Config"), **to_jsonable(cfg)}
    if isinstance(cfg, AgentNoiseConfig):
        files = [p for p in cfg.agent.glob("*") if p.suffix in (".safetensors", ".json")]
        if not files:
            raise UserError(
                f"there is no agent in {cfg.agent}: it has no weights and no config.json"
            )
        digest = hashlib.sha256()
        for file in sorted(files):
            digest.update(f"{file.name}:{file_digest(file)};".encode())
        facts["agent"] = digest.hexdigest()
    return facts


def build_behaviour(
    cfg: BehaviourConfig, env: gym.Env[Any, Any], load_policy: PolicyLoader | None = None
) -> Behaviour:
    """Make what a configuration describes, for environments such as `env`.

    Raises:
        UserError: the configuration does not fit the action space, the agent cannot be loaded, or
            `load_policy`, which opens the folder of `AgentNoiseConfig`, is missing.
    """
    spec, task = ActionSpec.from_space(env.action_space), task_of(env)
    if isinstance(cfg, AR1Config):
        if spec.kind == "discrete":
            if cfg.bias is not None:
                raise UserError(
                    f"the bias is {cfg.bias}, but the actions are choices; leave it out"
                )
            return _Random(partial(_sticky, cfg, spec))
        return _Random(partial(_ar1, cfg, spec, _bias(cfg.bias, spec, task.explore_bias)))
    if isinstance(cfg, BrownianConfig):
        if spec.kind != "box":
            raise UserError(
                "BrownianConfig needs a Box action space; AR1Config takes Discrete ones"
            )
        return _Random(partial(_brownian, cfg, spec))
    if isinstance(cfg, RandomControllerConfig):
        bias = _bias(None, spec, task.random_controller_bias)
        return _Random(partial(_random_controller, cfg, spec, bias))
    if load_policy is None:
        raise UserError("AgentNoiseConfig needs load_policy, which opens the agent's folder")
    policy = load_policy(Path(cfg.agent))
    return _NoisyPolicy(cfg, spec, policy, build_behaviour(cfg.explore, env))


def _bias(
    given: Sequence[float] | None, spec: ActionSpec, own: Sequence[float] | None
) -> NDArray[np.float64]:
    """Return the bias (A,) in unit coordinates: the one given, or the task's own, or 0."""
    if given is not None and len(given) != spec.dim:
        raise UserError(f"the bias has {len(given)} numbers; the actions have {spec.dim}")
    bias = given if given is not None else own if spec.kind == "box" else None
    return np.zeros(spec.dim) if bias is None else np.array(bias, np.float64)


def _stream(
    seeds: Sequence[int], label: str, normal: bool, width: int
) -> Iterator[NDArray[np.float64]]:
    """Yield (n, width) numbers, standard normal or uniform from 0 to 1; row r from seed r only."""
    rngs = [np.random.default_rng(derive_seed(int(s), "exploration", label)) for s in seeds]
    shape = (_CHUNK, width)
    while True:
        draws = [rng.standard_normal(shape) if normal else rng.random(shape) for rng in rngs]
        yield from np.stack(draws, axis=1)


def _ar1_noise(
    seeds: Sequence[int], cfg: AR1Config | AgentNoiseConfig, dim: int, label: str
) -> Iterator[NDArray[np.float64]]:
    """Yield (n, A): x <- rho x + sqrt(1 - rho^2) scale e, with e standard normal."""
    stream = _stream(seeds, label, True, dim)
    # Begin in the stationary distribution, so that early steps vary as much as late ones.
    value = cfg.scale * next(stream)
    while True:
        yield value
        value = cfg.rho * value + np.sqrt(1 - cfg.rho**2) * cfg.scale * next(stream)


def _to_box(unit: NDArray[np.float64], spec: ActionSpec) -> NDArray[np.float32]:
    """Turn (n, A) unit coordinates into actions of a Box space, clipped."""
    low, high = np.array(spec.low), np.array(spec.high)
    actions: NDArray[np.float64] = low + (np.clip(unit, -1, 1) + 1) * ((high - low) / 2)
    return actions.astype(np.float32)


def _to_unit(actions: NDArray[Any], spec: ActionSpec) -> NDArray[np.float64]:
    """Turn (n, A) actions of a Box space into unit coordinates."""
    low, high = np.array(spec.low), np.array(spec.high)
    unit: NDArray[np.float64] = (actions - low) / ((high - low) / 2) - 1
    return unit


def _padded(actions: NDArray[Any], like: NDArray[Any]) -> NDArray[Any]:
    """Add rows of zeros to the actions (n, ...) of the first n rows, up to those of `like`."""
    out = np.zeros((len(like), *actions.shape[1:]), actions.dtype)
    out[: len(actions)] = actions
    return out


class _Random:
    """A behaviour without a policy: `begin` makes an `_Act` from the seeds of a group."""

    def __init__(self, begin: Callable[[Sequence[int]], _Act]) -> None:
        self._begin = begin

    def start(self, seeds: Sequence[int]) -> None:
        """Begin episodes."""
        self._act, self._number = self._begin(seeds), len(seeds)

    def act(self, obs: NDArray[np.uint8], active: NDArray[np.bool_]) -> NDArray[Any]:
        """Return actions, (W, A) or (W,)."""
        return _padded(self._act(obs[: self._number]), active)


def _ar1(cfg: AR1Config, spec: ActionSpec, bias: NDArray[np.float64], seeds: Sequence[int]) -> _Act:
    """Autoregressive noise around a bias (A,) that is shifted once per episode."""
    centre = bias + cfg.bias_std * next(_stream(seeds, "bias", True, spec.dim))
    noise = _ar1_noise(seeds, cfg, spec.dim, "noise")
    return lambda obs: _to_box(centre + next(noise), spec)


def _sticky(cfg: AR1Config, spec: ActionSpec, seeds: Sequence[int]) -> _Act:
    """Discrete actions that are kept with the probability `rho` and redrawn otherwise."""

    def draw(numbers: NDArray[np.float64]) -> NDArray[np.int64]:
        return spec.start + (numbers[:, 1] * spec.dim).astype(np.int64)

    def choices() -> Iterator[NDArray[np.int64]]:
        stream = _stream(seeds, "sticky", False, 2)
        choice = draw(next(stream))
        for numbers in stream:
            yield choice
            choice = np.where(numbers[:, 0] < cfg.rho, choice, draw(numbers))

    chosen = choices()
    return lambda obs: next(chosen)


def _brownian(cfg: BrownianConfig, spec: ActionSpec, seeds: Sequence[int]) -> _Act:
    """Brownian motion from a uniformly drawn first action, clipped to the space in each step."""
    low, high = np.array(spec.low), np.array(spec.high)

    def values() -> Iterator[NDArray[np.float32]]:
        value = low + next(_stream(seeds, "first", False, spec.dim)) * (high - low)
        for numbers in _stream(seeds, "noise", True, spec.dim):
            yield value.astype(np.float32)
            value = np.clip(value + np.sqrt(cfg.dt) * numbers, low, high)

    moved = values()
    return lambda obs: next(moved)


def _random_controller(
    cfg: RandomControllerConfig, spec: ActionSpec, bias: NDArray[np.float64], seeds: Sequence[int]
) -> _Act:
    """A linear map from a thumbnail to actions, its weights drawn once per episode.

    The bias (A,) is added to the squashed output; in a Discrete space the largest output wins.
    """
    shape, weights = (cfg.thumbnail**2 + 1, spec.dim), []
    for seed in seeds:
        rng = np.random.default_rng(derive_seed(int(seed), "exploration", "controller"))
        weights.append(rng.random() * cfg.max_scale * rng.standard_cauchy(shape))
    stacked = np.stack(weights)

    def act(obs: NDArray[np.uint8]) -> NDArray[Any]:
        outputs = np.einsum("ni,nia->na", thumbnails(obs, cfg.thumbnail), stacked)
        if spec.kind == "discrete":
            return np.asarray(spec.start + outputs.argmax(axis=1))
        return _to_box(np.tanh(outputs) + bias, spec)

    return act


def thumbnails(obs: NDArray[np.uint8], size: int) -> NDArray[np.float64]:
    """Sample a grid of pixels, grey from -1 to 1, and add a constant 1; (n, size^2 + 1)."""
    n, height, width = obs.shape[:3]
    rows = (2 * np.arange(size) + 1) * height // (2 * size)
    columns = (2 * np.arange(size) + 1) * width // (2 * size)
    grid = obs[:, rows[:, None], columns].reshape(n, size * size, -1)
    grey = grid.mean(axis=2, dtype=np.float64) / 127.5 - 1
    return np.concatenate([grey, np.ones((n, 1))], axis=1)


def _burst_chance(cfg: AgentNoiseConfig, spec: ActionSpec) -> float:
    """Chance per step that a burst begins; in a Discrete space with those that are its noise.

    Bursts of mean length L that begin with the chance q fill the fraction L q / (L q + 1 - q).
    """
    if spec.kind == "box":
        return cfg.burst_probability
    if cfg.bias_std:
        cfg.refuse("bias_std", "0 in a Discrete space, where no action can be shifted")
    if cfg.scale > 1:
        cfg.refuse("scale", "from 0 to 1 in a Discrete space: a fraction of the decisions")
    length = (1 + cfg.burst_steps) / 2
    noise = cfg.scale / (cfg.scale + length * (1 - cfg.scale))
    return cfg.burst_probability + (1 - cfg.burst_probability) * noise


class _NoisyPolicy:
    """A policy with noise on its actions, random action bursts, and random starts."""

    def __init__(
        self, cfg: AgentNoiseConfig, spec: ActionSpec, policy: Policy, explore: Behaviour
    ) -> None:
        self._cfg, self._spec, self._policy, self._explore = cfg, spec, policy, explore
        self._burst_chance = _burst_chance(cfg, spec)

    def start(self, seeds: Sequence[int]) -> None:
        """Draw which episodes begin with random actions, and for how long."""
        cfg, dim = self._cfg, self._spec.dim
        self._explore.start(seeds)
        self._noise = _ar1_noise(seeds, cfg, dim, "agent-noise")
        self._bias = cfg.bias_std * next(_stream(seeds, "agent-bias", True, dim))
        self._bursts = _stream(seeds, "kicks", False, 2 + dim)
        first = next(_stream(seeds, "random-start", False, 2))
        steps = 1 + (first[:, 1] * cfg.random_start_steps).astype(np.int64)
        self._random_left = np.where(first[:, 0] < cfg.random_start_probability, steps, 0)
        self._burst_left = np.zeros(len(seeds), np.int64)
        self._burst = np.zeros((len(seeds), dim))
        self._state: PolicyState | None = None
        self._fresh = True

    def act(self, obs: NDArray[np.uint8], active: NDArray[np.bool_]) -> NDArray[Any]:
        """Return the noisy actions, (W, A) or (W,), which the policy is told."""
        begin = np.full(len(active), self._fresh)
        self._fresh = False
        decide = getattr(self._policy, "decide", self._policy.predict)  # the group holds actions
        chosen, self._state = decide(obs, self._state, begin, True)
        action = self._disturb(np.array(chosen), self._explore.act(obs, active))
        executed = getattr(self._policy, "executed", None)
        if executed is not None:  # its memory needs the action that was executed
            self._state = executed(self._state, action)
        return action

    def _disturb(self, chosen: NDArray[Any], random: NDArray[Any]) -> NDArray[Any]:
        """Replace or shift the chosen actions of the first n rows."""
        n, numbers = len(self._burst_left), next(self._bursts)
        self._burst_left = np.maximum(self._burst_left - 1, 0)
        begins = (self._burst_left == 0) & (numbers[:, 0] < self._burst_chance)
        lengths = 1 + (numbers[:, 1] * self._cfg.burst_steps).astype(np.int64)
        self._burst_left = np.where(begins, lengths, self._burst_left)
        self._burst = np.where(begins[:, None], numbers[:, 2:], self._burst)
        in_burst, at_start = self._burst_left > 0, self._random_left > 0
        self._random_left = np.maximum(self._random_left - 1, 0)
        if self._spec.kind == "discrete":
            choice = self._spec.start + (self._burst[:, 0] * self._spec.dim).astype(np.int64)
            mixed = np.where(in_burst, choice, chosen[:n])
            chosen[:n] = np.where(at_start, random[:n], mixed)
            return chosen
        unit = _to_unit(chosen[:n], self._spec) + next(self._noise) + self._bias
        mixed = _to_box(np.where(in_burst[:, None], 2 * self._burst - 1, unit), self._spec)
        return _padded(np.where(at_start[:, None], random[:n], mixed), chosen)
