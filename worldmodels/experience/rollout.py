"""The one loop over environments: a group of them in lockstep, for collection and evaluation alike.

A behaviour always sees a batch of the same width: unused rows are padding, and the row of an
episode that ended keeps its last frame. Matrix products keep their shape when an episode ends, so
every float of an episode depends only on the seeds of its group.
"""

from __future__ import annotations

import atexit
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from worldmodels import envs as environments
from worldmodels.config import Count, require
from worldmodels.envs.pixels import drawer_of
from worldmodels.envs.spaces import ActionSpec
from worldmodels.experience.episode import EpisodeResult
from worldmodels.protocols import Policy, PolicyState, UserError
from worldmodels.tasks import task_of

GROUP_WIDTH = 16
"""Rows of the batch that behaviours see: the largest number of episodes in a group."""

TELL_SECONDS = 20.0
"""Seconds between two lines of progress of a group that takes long."""


class Behaviour(Protocol):
    """Whatever chooses actions for a group of episodes that begin together."""

    def start(self, seeds: Sequence[int]) -> None:
        """Begin episodes, row r with `seeds[r]`; random numbers must come from the seed only."""
        ...

    def act(self, obs: NDArray[np.uint8], active: NDArray[np.bool_]) -> NDArray[Any]:
        """Choose an action for every row.

        Args:
            obs: (W, H, W', 3), or (W, H, W', 1) where they are grey: the environments' own frames,
                W the group's width; valid during the call only.
            active: (W,) rows whose action will be used.

        Returns:
            (W, A) for a Box action space, (W,) integers for a Discrete one; inactive rows are
            ignored. Box actions are clipped to the space by the caller.
        """
        ...


Hook: TypeAlias = Callable[[NDArray[np.uint8], NDArray[np.bool_]], None]
"""Gets the group's raw frames (W, H, W', C), C 3 or 1, and which rows (W,) have a new one; the
arrays are valid during the call only."""


class PolicyBehaviour:
    """A `Policy` as a behaviour: carries its recurrent state and tells it where episodes begin."""

    def __init__(self, policy: Policy, deterministic: bool = True) -> None:
        """Take a policy, and what its `predict` gets as `deterministic`."""
        self._policy, self._deterministic = policy, deterministic
        self.looks_every = int(getattr(policy, "looks_every", 1))
        """of so many frames of an episode, counted from its first one, the policy looks at one"""
        self.start(())

    def start(self, seeds: Sequence[int]) -> None:
        """Forget the state of the episodes before."""
        self._state: PolicyState | None = None
        self._fresh = True

    def act(self, obs: NDArray[np.uint8], active: NDArray[np.bool_]) -> NDArray[Any]:
        """Ask the policy."""
        start = np.full(len(active), self._fresh)
        self._fresh = False
        attend = getattr(self._policy, "attend", None)
        if attend is not None:  # a planner skips the work of rows that are not active
            attend(active)
        action, self._state = self._policy.predict(obs, self._state, start, self._deterministic)
        return action


_pool: dict[object, tuple[Mapping[str, Any], list[gym.Env[Any, Any]]]] = {}
"""The process's environments of one id and choice of arguments, kept with the arguments."""


def shared_envs(
    env_id: str, number: int, env_kwargs: Mapping[str, Any] | None = None
) -> list[gym.Env[Any, Any]]:
    """Return `number` environments of one id, made once in a process and used again after that."""
    options = dict(env_kwargs or {})
    try:  # the same for equal arguments, of any type and however nested
        key: object = env_id, pickle.dumps(options)
    except (pickle.PicklingError, TypeError, AttributeError):
        key = env_id, tuple((name, id(value)) for name, value in options.items())
    if key not in _pool:
        close_shared_envs()
        _pool[key] = options, []
    found = _pool[key][1]
    while len(found) < number:
        found.append(environments.make(env_id, **options))
    return found[:number]


@atexit.register
def close_shared_envs() -> None:
    """Close and forget what `shared_envs` keeps, which some engines want before Python ends."""
    for _, kept in _pool.values():
        for env in kept:
            env.close()
    _pool.clear()


def run_group(
    envs: Sequence[gym.Env[Any, Any]],
    behaviour: Behaviour,
    seeds: Sequence[int],
    *,
    max_steps: int | None = None,
    patience: int | None = None,
    action_repeat: int = 1,
    width: int = GROUP_WIDTH,
    on_frames: Hook | None = None,
) -> list[EpisodeResult]:
    """Run one episode per seed (at most ``width``), all in step, until the last one has ended.

    Frames that neither the behaviour nor ``on_frames`` looks at are not drawn, where that can be.

    Args:
        envs: at least as many as seeds; they are reset first and not closed.
        behaviour: chooses the actions.
        seeds: one for each episode.
        max_steps: truncate after that many steps, beside the environment's own limit.
        patience: truncate after that many steps in a row without a reward above 0, so that lost
            episodes do not fill the data; for collection, never for a test.
        action_repeat: steps of the environment per action; only the frame after the last is seen.
        width: rows of the behaviour's batch, the same for all groups that are compared.
        on_frames: called after the reset and after every step of the group.

    Raises:
        UserError: too many seeds, environments of different spaces, an impossible action, or an
            environment that breaks a promise (see `CheckedEnv`); seed and step are named.
    """
    if not 0 < len(seeds) <= min(width, len(envs)):
        raise UserError(
            f"{len(seeds)} seeds for {len(envs)} environments in a group of width {width}; "
            "there must be at least one seed, and no more than environments or rows"
        )
    require("action_repeat", action_repeat, Count)
    require("max_steps", max_steps, Count | None)
    require("patience", patience, Count | None)
    group = _Group(envs[: len(seeds)], seeds, width, (max_steps, patience, action_repeat))
    if on_frames is None:
        group.looks_every = getattr(behaviour, "looks_every", 1)
    behaviour.start(seeds)
    group.reset()
    seen = group.active.copy()
    while True:
        if on_frames is not None:
            on_frames(group.obs, seen)
        if not group.active.any():
            return [group.result(row) for row in range(len(seeds))]
        seen = group.active.copy()
        began = time.perf_counter()
        action = behaviour.act(group.obs, group.active)
        group.seconds[seen] += (time.perf_counter() - began) / seen.sum()
        group.step(action)


class _Group:
    """The running state of `run_group`."""

    def __init__(
        self,
        envs: Sequence[gym.Env[Any, Any]],
        seeds: Sequence[int],
        width: int,
        limits: tuple[int | None, int | None, int],
    ) -> None:
        self.envs = envs
        self.max_steps, self.patience, self.repeat = limits
        self.looks_every = 1
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
        self.rewarded, self.length = (np.zeros(width, np.int64) for _ in range(2))
        self.total, self.seconds = np.zeros(width), np.zeros(width)
        self.terminated, self.truncated, self.lost = (np.zeros(width, np.bool_) for _ in range(3))
        self.infos: list[dict[str, Any]] = [{} for _ in seeds]
        self.actions: list[list[Any]] = [[] for _ in seeds]
        self.rewards: list[list[float]] = [[] for _ in seeds]

    def reset(self) -> None:
        """Start the episodes."""
        for row, (env, seed) in enumerate(zip(self.envs, self.seeds, strict=True)):
            self._own[row] = env.reset(seed=seed)[0]

    def step(self, action: NDArray[Any]) -> None:
        """Step every environment whose episode is not over, for as long as the action is held."""
        self._tell()
        action = self._check(action)
        self.t += 1
        taken = self.spec.to_env(action)
        for row in np.flatnonzero(self.active).tolist():
            reward = self._act(row, taken[row])
            self.actions[row].append(action[row])
            self.rewards[row].append(reward)
            self.total[row] += reward
        self.active &= ~(self.terminated | self.truncated)

    def _act(self, row: int, action: Any) -> float:
        """Hold an action in one environment; return the sum of its rewards."""
        env, total = self.envs[row], 0.0
        looked = self.t % self.looks_every == 0
        drawer = None if looked and self.repeat == 1 else drawer_of(env)
        for left in reversed(range(self.repeat)):
            if drawer is not None:  # frames in between are not used
                drawer.draws_observations = looked and left == 0
            obs, gained, terminated, truncated, info = env.step(action)
            total += float(gained)
            self.length[row] += 1
            steps = int(self.length[row])
            if float(gained) > 0:
                self.rewarded[row] = steps
            lost = self.patience is not None and steps - self.rewarded[row] >= self.patience
            stopped = (steps == self.max_steps or lost) and not terminated
            if terminated or truncated or stopped:
                self.terminated[row], self.truncated[row] = terminated, truncated or stopped
                self.lost[row] = lost and not terminated
                break
        if drawer is not None:
            obs = drawer.draw_last() if looked and left else obs
            drawer.draws_observations = True
        self._own[row], self.infos[row] = obs, info
        return total

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
        """Print the progress of a group that takes long."""
        now = time.monotonic()
        if now - self.told < TELL_SECONDS:
            return
        self.told, seconds = now, now - self.began
        print(
            f"seeds {self.seeds[0]} to {self.seeds[-1]}: {self.length.max():,} steps in "
            f"{seconds:.0f} s, {self.active.sum()} of {len(self.seeds)} episodes still running",
            flush=True,
        )

    def _refuse(self, got: str, right: str, row: int = 0) -> None:
        raise UserError(
            f"the action for step {self.t + 1} of seed {self.seeds[row]} is {got}; "
            f"it must be {right}"
        )

    def result(self, row: int) -> EpisodeResult:
        """Sum up an episode that has ended."""
        # An environment may report its goal only in a step that terminates, so a truncated episode
        # did not reach it; None is for environments without a goal.
        goal = self.task.finished_key
        return EpisodeResult(
            seed=self.seeds[row],
            total_reward=float(self.total[row]),
            length=int(self.length[row]),
            terminated=bool(self.terminated[row]),
            truncated=bool(self.truncated[row]),
            lap_finished=None if goal is None else bool(self.infos[row].get(goal, False)),
            lost=bool(self.lost[row]),
            actions=np.array(self.actions[row]),
            rewards=np.array(self.rewards[row]),
            ms_per_action=1000 * float(self.seconds[row]) / int(self.length[row]),
        )


def _common_shape(envs: Sequence[gym.Env[Any, Any]], spec: ActionSpec) -> tuple[int, ...]:
    """The shape of all environments' frames, which must agree, as their actions must."""
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
