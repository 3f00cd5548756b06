"""Driving a group of environments in lockstep, for collection and for evaluation alike.

A behaviour always sees a batch of the same width: unused rows are padding, and the row of an
episode that ended keeps its last frame. No matrix product changes its shape when an episode ends,
so every float of an episode depends on the seeds of its group only, never on the worker or on
timing.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from worldmodels import envs as environments
from worldmodels.config import Count, Repeat, require
from worldmodels.envs.spaces import ActionSpec
from worldmodels.protocols import Policy, PolicyState, UserError
from worldmodels.tasks import task_of

GROUP_WIDTH = 16
"""Rows of the batch that behaviours see, and the largest number of episodes driven at once."""


TELL_SECONDS = 20.0
"""A group that has been driving for this long says how far it is, and then once in this time."""


class Behaviour(Protocol):
    """Whatever chooses actions for a group of episodes that begin together."""

    def start(self, seeds: Sequence[int]) -> None:
        """Begin episodes, row r with `seeds[r]`; what is random must come from the seed alone."""
        ...

    def act(self, obs: NDArray[np.uint8], active: NDArray[np.bool_]) -> NDArray[Any]:
        """Choose an action for every row.

        Args:
            obs: (W, H, W', 3), or (W, H, W', 1) where they are grey: the environments' own frames,
                W the group's width; not to be kept.
            active: (W,) rows whose action will be used.

        Returns:
            (W, A) for a Box action space, (W,) integers for a Discrete one; what stands in inactive
            rows does not matter. Box actions are clipped to the space by the caller.
        """
        ...


@dataclass(frozen=True)
class GroupStep:
    """One lockstep of a group, for hooks. The arrays are only valid during the call."""

    t: int
    """0 after the reset, then 1, 2, ... after each action"""
    obs: NDArray[np.uint8]
    """(W, H, W', C) raw frames after this step, C 3, or 1 for grey ones"""
    action: NDArray[np.float32] | NDArray[np.int64] | None
    """(W, A) float32 or (W,) int64 executed actions that led here; None after the reset"""
    reward: NDArray[np.float64]
    """(W,) rewards of this action, 0 in inactive rows"""
    active: NDArray[np.bool_]
    """(W,) rows that took this step (or, at t = 0, that have an episode)"""
    done: NDArray[np.bool_]
    """(W,) rows whose episode ended with this step"""


@dataclass(frozen=True)
class EpisodeResult:
    """How one episode went."""

    seed: int
    """the environment was reset with it"""
    total_reward: float
    """the episode's return: its rewards added in float64"""
    length: int
    """steps of the environment"""
    terminated: bool
    """ended by the environment's rules"""
    truncated: bool
    """ended by a limit of time or of steps"""
    lap_finished: bool | None
    """the lap was completed; None for environments without laps"""
    lost: bool = False
    """truncated because patience ran out"""
    frames: NDArray[np.uint8] | None = None
    """(T + 1, H, W, C) raw frames, C 3, or 1 for grey ones, if asked for"""


@runtime_checkable
class Attentive(Protocol):
    """A policy for which a row is so much work that it wants to know which ones matter."""

    def attend(self, active: NDArray[np.bool_]) -> None:
        """Hear which rows (W,) of the next batch are active."""
        ...


class PolicyBehaviour:
    """A `Policy` as a behaviour: carries its recurrent state and tells it where episodes begin."""

    def __init__(self, policy: Policy, deterministic: bool = True) -> None:
        """Wrap a policy; `deterministic` is passed on to its `predict`."""
        self._policy = policy
        self._deterministic = deterministic
        self._state: PolicyState | None = None
        self._fresh = True

    def start(self, seeds: Sequence[int]) -> None:
        """Forget the state of the episodes before."""
        self._state = None
        self._fresh = True

    def act(self, obs: NDArray[np.uint8], active: NDArray[np.bool_]) -> NDArray[Any]:
        """Ask the policy."""
        start = np.full(len(active), self._fresh)
        self._fresh = False
        if isinstance(self._policy, Attentive):
            self._policy.attend(active)
        action, self._state = self._policy.predict(obs, self._state, start, self._deterministic)
        return action


def shared_envs(
    env_id: str, number: int, env_kwargs: Mapping[str, Any] | None = None
) -> list[gym.Env[Any, Any]]:
    """Return `number` environments of one id, made once in a process and used again after that."""
    options = dict(env_kwargs or {})
    key = (env_id, _identity(options))
    if key not in _pool:
        _pool.clear()  # those of another id are dropped
        _pool[key] = _Made(options, [])
    found = _pool[key].envs
    while len(found) < number:
        found.append(environments.make(env_id, **options))
    return found[:number]


class _Made(NamedTuple):
    options: Mapping[str, Any]
    """kept, since `_identity` knows some of its values by their address alone"""
    envs: list[gym.Env[Any, Any]]


_pool: dict[tuple[str, Hashable], _Made] = {}
"""The process's environments, of one id and one choice of arguments."""


def _identity(value: Any) -> Hashable:
    """What is equal for equal arguments of an environment, of any type and however nested."""
    if isinstance(value, Mapping):
        return type(value), frozenset((key, _identity(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return type(value), tuple(map(_identity, value))
    try:
        hash(value)
    except TypeError:
        try:
            return type(value), pickle.dumps(value)  # arrays, sets, plain dataclasses
        except (pickle.PicklingError, TypeError, AttributeError):
            return type(value), id(value)
    return type(value), value  # the type, since 1, 1.0 and True are equal


def run_group(
    envs: Sequence[gym.Env[Any, Any]],
    behaviour: Behaviour,
    seeds: Sequence[int],
    *,
    max_steps: int | None = None,
    patience: int | None = None,
    action_repeat: int = 1,
    width: int = GROUP_WIDTH,
    keep_frames: bool = False,
    on_step: Callable[[GroupStep], None] | None = None,
    on_episode: Callable[[EpisodeResult], None] | None = None,
) -> list[EpisodeResult]:
    """Drive one episode for each seed, all in step, until the last one has ended.

    Args:
        envs: at least as many as seeds; they are reset, and left as they end.
        behaviour: chooses the actions.
        seeds: one for each episode; at most `width`.
        max_steps: truncate after that many steps, beside the environment's own limit.
        patience: truncate after that many steps in a row without a reward above 0, so that an
            episode that is lost does not fill the data; for collection, never for a test.
        action_repeat: steps of the environment that each action is held for. Behaviour and hooks
            then see the frame after the last of them, and the sum of their rewards.
        width: rows of the behaviour's batch, the same for all groups that are to be comparable.
        keep_frames: put the raw frames into the results.
        on_step: called after the reset and after every lockstep.
        on_episode: called when an episode has ended.

    Returns:
        One result for each seed, in their order.

    Raises:
        UserError: too many seeds, environments of different spaces, an action of the wrong shape,
            out of range or not finite, or an environment that breaks a promise (see `CheckedEnv`);
            seed and step are named.
    """
    if not 0 < len(seeds) <= min(width, len(envs)):
        raise UserError(
            f"{len(seeds)} seeds for {len(envs)} environments in a group of width {width}; "
            "there must be at least one seed, and no more than environments or rows"
        )
    require("action_repeat", action_repeat, Repeat)
    require("max_steps", max_steps, Count | None)
    require("patience", patience, Count | None)
    group = _Group(envs[: len(seeds)], seeds, width, keep_frames)
    limits_of_steps = _Limits(max_steps, patience, action_repeat)
    behaviour.start(seeds)
    step = group.reset()
    while True:
        if on_step is not None:
            on_step(step)
        if on_episode is not None:
            for row in np.flatnonzero(step.done):
                on_episode(group.result(int(row)))
        if not group.active.any():
            return [group.result(row) for row in range(len(seeds))]
        step = group.step(behaviour.act(group.obs, group.active), limits_of_steps)


class _Limits(NamedTuple):
    """How long episodes may be, in the environment's steps, and how long an action is held."""

    max_steps: int | None
    patience: int | None
    action_repeat: int


class _Group:
    """The running state of `run_group`."""

    def __init__(
        self,
        envs: Sequence[gym.Env[Any, Any]],
        seeds: Sequence[int],
        width: int,
        keep_frames: bool,
    ) -> None:
        self.envs = envs
        self.seeds = [int(seed) for seed in seeds]
        self.task = task_of(envs[0])
        self.spec = ActionSpec.from_space(envs[0].action_space)
        self.low = np.array(self.spec.low, np.float32)
        self.high = np.array(self.spec.high, np.float32)
        shape = _common_shape(envs, self.spec)
        # grey frames have their channel in the batch, and none where the environment gives none
        self.obs = np.zeros((width, *shape, *([1] if len(shape) == 2 else [])), np.uint8)
        self._own = self.obs.reshape(width, *shape)
        self.active = np.arange(width) < len(seeds)
        self.t = 0
        self.began = self.told = time.monotonic()
        self.rewarded = np.zeros(width, np.int64)
        self.total = np.zeros(width)
        self.length = np.zeros(width, np.int64)
        self.terminated, self.truncated, self.lost = (np.zeros(width, np.bool_) for _ in range(3))
        self.infos: list[dict[str, Any]] = [{} for _ in seeds]
        self.frames: list[list[NDArray[np.uint8]]] | None = (
            [[] for _ in seeds] if keep_frames else None
        )

    def reset(self) -> GroupStep:
        """Start the episodes."""
        for row, (env, seed) in enumerate(zip(self.envs, self.seeds, strict=True)):
            self._see(row, env.reset(seed=seed)[0])
        width = len(self.active)
        return GroupStep(
            0, self.obs, None, np.zeros(width), self.active.copy(), np.zeros(width, np.bool_)
        )

    def step(self, action: NDArray[Any], limits: _Limits) -> GroupStep:
        """Let every environment whose episode goes on take an action, for as long as it is held."""
        self._tell()
        action = self._check(action)
        self.t += 1
        acted = self.active.copy()
        reward = np.zeros(len(acted))
        taken = self.spec.to_env(action)
        for row in np.flatnonzero(acted).tolist():
            reward[row] = self._act(row, taken[row], limits)
        self.total += reward
        self.active &= ~(self.terminated | self.truncated)
        return GroupStep(self.t, self.obs, action, reward, acted, acted & ~self.active)

    def _act(self, row: int, action: Any, limits: _Limits) -> float:
        """Hold an action in one environment; the sum of its rewards."""
        env, total = self.envs[row], 0.0
        bare: Any = env.unwrapped
        skips = limits.action_repeat > 1 and hasattr(bare, "draws_observations")
        for left in reversed(range(limits.action_repeat)):
            if skips:  # nobody sees the frames in between
                bare.draws_observations = left == 0
            obs, gained, terminated, truncated, info = env.step(action)
            total += float(gained)
            self.length[row] += 1
            steps = int(self.length[row])
            if float(gained) > 0:
                self.rewarded[row] = steps
            lost = limits.patience is not None and steps - self.rewarded[row] >= limits.patience
            stopped = (steps == limits.max_steps or lost) and not terminated
            if terminated or truncated or stopped:
                self.terminated[row], self.truncated[row] = terminated, truncated or stopped
                self.lost[row] = lost and not terminated
                break
        if skips:
            obs = bare.draw_last() if left else obs
            bare.draws_observations = True
        self._see(row, obs)
        self.infos[row] = info
        return total

    def _see(self, row: int, obs: NDArray[np.uint8]) -> None:
        self._own[row] = obs
        if self.frames is not None:
            self.frames[row].append(self.obs[row].copy())

    def _check(self, action: NDArray[Any]) -> NDArray[np.float32] | NDArray[np.int64]:
        """Return the actions within their bounds, or say what is wrong with them."""
        width = len(self.active)
        if self.spec.kind == "discrete":
            choice = np.asarray(action)
            if choice.shape != (width,) or not np.issubdtype(choice.dtype, np.integer):
                self._refuse(f"{choice.dtype} {choice.shape}", f"integers ({width},)")
            first, last = self.spec.start, self.spec.start + self.spec.dim - 1
            choice = np.where(self.active, choice, first).astype(np.int64)
            wrong = np.flatnonzero((choice < first) | (choice > last))
            if len(wrong):
                self._refuse(str(choice[wrong[0]]), f"{first} to {last}", int(wrong[0]))
            return choice
        values = np.asarray(action, np.float32)
        if values.shape != (width, self.spec.dim):
            self._refuse(f"shape {values.shape}", f"shape ({width}, {self.spec.dim})")
        values = np.where(self.active[:, None], values, self.low)
        wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(wrong):
            self._refuse(str(values[wrong[0]]), "finite", int(wrong[0]))
        clipped = np.clip(values, self.low, self.high)
        return np.rint(clipped) if self.spec.integer else clipped

    def _tell(self) -> None:
        """Say now and then how far the group is, for those who wait."""
        now = time.monotonic()
        if now - self.told < TELL_SECONDS:
            return
        self.told, seconds = now, now - self.began
        going = int(self.active.sum())
        print(
            f"seeds {self.seeds[0]} to {self.seeds[-1]}: {int(self.length.max()):,} steps in "
            f"{seconds:.0f} s, {going} of {len(self.seeds)} episodes not over yet",
            flush=True,
        )

    def _refuse(self, got: str, right: str, row: int = 0) -> None:
        raise UserError(
            f"the action for step {self.t + 1} of seed {self.seeds[row]} is {got}; "
            f"it must be {right}"
        )

    def result(self, row: int) -> EpisodeResult:
        """Sum up an episode that has ended."""
        return EpisodeResult(
            seed=self.seeds[row],
            total_reward=float(self.total[row]),
            length=int(self.length[row]),
            terminated=bool(self.terminated[row]),
            truncated=bool(self.truncated[row]),
            lap_finished=self._finished(self.infos[row]),
            lost=bool(self.lost[row]),
            frames=None if self.frames is None else np.stack(self.frames[row]),
        )

    def _finished(self, info: Mapping[str, Any]) -> bool | None:
        """Tell whether an episode reached its goal.

        An environment may say so only in a step that terminates: an episode that ran out of time
        did not reach it, which is not the same as an environment without a goal.
        """
        key = self.task.finished_key
        return None if key is None else bool(info.get(key, False))


def _common_shape(envs: Sequence[gym.Env[Any, Any]], spec: ActionSpec) -> tuple[int, ...]:
    """The shape of all environments' frames.

    Raises:
        UserError: one has other frames or actions than the first.
    """
    shape = envs[0].observation_space.shape
    assert shape is not None
    for number, env in enumerate(envs):
        own = env.observation_space.shape
        if own != shape or ActionSpec.from_space(env.action_space) != spec:
            name = env.spec.id if env.spec else str(env)
            raise UserError(
                f"environment {name!r}: instance {number} has frames {own} and {env.action_space}, "
                f"but the first one has {shape} and {envs[0].action_space}; they must agree"
            )
    return shape
