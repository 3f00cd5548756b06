"""What can be evaluated: agents by folder or name, checkpoints, baselines, any `Policy`."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from worldmodels import runs
from worldmodels.agent import Agent, find
from worldmodels.envs import ActionSpec
from worldmodels.experience.rollout import Behaviour, PolicyBehaviour
from worldmodels.protocols import Policy, UserError


@dataclass(frozen=True)
class AgentParameters:
    """The agent in a folder with another controller: a checkpoint, cheap to send to a process."""

    agent: Path | Agent
    """folder, or name of an agent that comes with the package; opened where it has to travel"""
    parameters: NDArray[np.float32] = field(repr=False)
    """(N,) the controller's parameters"""


@runtime_checkable
class Reseedable(Protocol):
    """A policy with its own random numbers, such as an agent, or a planner on one."""

    def check_env(self, env: gym.Env[Any, Any]) -> None:
        """Refuse an environment that it does not fit."""
        ...

    def reseed(self, seed: int) -> None:
        """Restart the random numbers."""
        ...


MOST_CORNERS = 4
"""Numbers of a Box action up to which all corners are tried as constant actions."""

PolicySpec: TypeAlias = "str | Path | AgentParameters | Policy"
"""What to evaluate: an agent's folder or name, "random", "zeros", a checkpoint, or any policy."""


def describe(policy: PolicySpec) -> str:
    """Name a policy for people."""
    if isinstance(policy, AgentParameters):
        return f"{policy.agent} (other parameters)"
    named = isinstance(policy, str | Path | ConstantPolicy)
    return str(policy) if named else type(policy).__name__


def build_behaviour(
    policy: PolicySpec, env: gym.Env[Any, Any], deterministic: bool = True, seed: int = 0
) -> Behaviour:
    """Open a policy for a group of environments such as `env`, its own random numbers at `seed`.

    It takes its mode if `deterministic`. `UserError` if there is no such agent, or it is for
    another action space.
    """
    if policy in ("random", "zeros"):
        return RandomPolicy(env.action_space, still=policy == "zeros")
    if isinstance(policy, str | Path):
        policy = _load(*stamp(policy))
    elif isinstance(policy, AgentParameters):
        opened = policy.agent
        agent = opened if isinstance(opened, Agent) else _load(*stamp(opened))
        policy = agent.with_parameters(policy.parameters)
    if isinstance(policy, Reseedable):
        policy.check_env(env)
        policy.reseed(seed)
    if not isinstance(policy, Policy):
        raise UserError(f"{policy!r} is not a policy: it has no predict()")
    return PolicyBehaviour(policy, deterministic)


class RandomPolicy:
    """Uniform actions from a generator for each episode's seed, or always the same action."""

    def __init__(self, space: gym.spaces.Space[Any], still: bool = False) -> None:
        """Act in a space; `still` always takes zeros (clipped to a Box) or the first choice."""
        self._space, self._still = space, still
        self._rngs: list[np.random.Generator] = []

    def start(self, seeds: Sequence[int]) -> None:
        """Begin episodes."""
        self._rngs = [np.random.default_rng(runs.derive_seed("random", int(s))) for s in seeds]

    def act(self, obs: NDArray[np.uint8], active: NDArray[np.bool_]) -> NDArray[Any]:
        """Choose actions (W, A) or (W,); rows without an episode get zeros or the first choice."""
        space = self._space
        first = space.start if isinstance(space, gym.spaces.Discrete) else 0
        actions = np.full((len(obs), *(space.shape or ())), first, space.dtype)
        for row, rng in enumerate(() if self._still else self._rngs):
            if isinstance(space, gym.spaces.Discrete):
                actions[row] = space.start + rng.integers(space.n)
            elif isinstance(space, gym.spaces.Box):
                whole = actions.dtype.kind in "iu"
                bounds = space.low, space.high
                actions[row] = (
                    rng.integers(*bounds, endpoint=True) if whole else rng.uniform(*bounds)
                )
        return actions


@dataclass(frozen=True)
class ConstantPolicy:
    """Always the same action."""

    action: int | tuple[float, ...]
    """a choice, or the numbers of a Box action"""

    def __str__(self) -> str:
        """What it does, such as "always 2" or "always (0, 1)"."""
        numbers = self.action if isinstance(self.action, tuple) else (self.action,)
        text = ", ".join(f"{number:g}" for number in numbers)
        return f"always ({text})" if len(numbers) > 1 else f"always {text}"

    @property
    def digest(self) -> str:
        """Identity, for evaluations that can be resumed."""
        return str(self.action)

    def predict(
        self,
        observation: NDArray[np.uint8],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], Any]:
        """See `protocols.Policy`; observations have a batch axis."""
        action = np.asarray(self.action, np.int64 if isinstance(self.action, int) else np.float32)
        return np.tile(action, (len(observation), *[1] * action.ndim)), state


def constant_policies(space: ActionSpec) -> list[ConstantPolicy]:
    """The constant actions that are worth a try: all choices, or the ends and middle of a Box.

    Of a Box these are its centre, and its corners if it has at most `MOST_CORNERS` numbers; of a
    larger one the two ends of each number with the others in the middle.
    """
    if space.kind == "discrete":
        return [ConstantPolicy(space.start + choice) for choice in range(space.dim)]
    ends = list(zip(space.low, space.high, strict=True))
    middle = tuple((low + high) / 2 for low, high in ends)
    if space.dim <= MOST_CORNERS:
        return [ConstantPolicy(action) for action in (middle, *itertools.product(*ends))]
    single = [(*middle[:k], end, *middle[k + 1 :]) for k in range(space.dim) for end in ends[k]]
    return [ConstantPolicy(action) for action in (middle, *single)]


def stamp(path: str | Path) -> tuple[Path, str]:
    """An agent's folder, and a digest that changes when it is written again."""
    folder = find(path)
    return folder, runs.file_digest(folder / "config.json")


@lru_cache(maxsize=2)
def _load(folder: Path, stamp: str) -> Agent:
    """Open an agent once per process, and again when its folder has changed."""
    return Agent.from_pretrained(folder)


def opened(policies: Sequence[PolicySpec]) -> list[PolicySpec]:
    """The policies with their agents opened, each folder once, for workers without these files."""

    @cache
    def agent(path: str | Path) -> Agent:
        return Agent.from_pretrained(find(path))

    found: list[PolicySpec] = []
    for policy in policies:
        if isinstance(policy, AgentParameters) and not isinstance(policy.agent, Agent):
            policy = AgentParameters(agent(policy.agent), policy.parameters)
        elif isinstance(policy, str | Path) and policy not in ("random", "zeros"):
            policy = agent(policy)
        found.append(policy)
    return found


def identify(policy: PolicySpec) -> Any:
    """Identity of a policy, for the JSON from which an evaluation resumes."""
    if policy in ("random", "zeros"):
        return policy
    if isinstance(policy, AgentParameters):
        assert not isinstance(policy.agent, Agent), "evaluations are identified before they travel"
        return [stamp(policy.agent)[1], policy.parameters]
    if isinstance(policy, str | Path):
        return stamp(policy)[1]
    if digest := getattr(policy, "digest", ""):
        return digest
    raise UserError(
        "resume needs an agent's folder or name, or a policy that names its weights in an "
        "attribute `digest`"
    )


def check_picklable(policies: Sequence[PolicySpec]) -> None:
    """Refuse policies that cannot be sent to processes."""
    for policy in policies:
        if isinstance(policy, str | Path | AgentParameters):
            continue
        try:
            pickle.dumps(policy)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise UserError(
                f"policy {describe(policy)} cannot be sent to another process ({error}); "
                "evaluate with workers=1, or give a folder"
            ) from error
