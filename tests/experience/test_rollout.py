from __future__ import annotations

import copy
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.experience import fakes
from worldmodels import envs
from worldmodels.envs.pixels import drawer_of
from worldmodels.experience import rollout
from worldmodels.experience.episode import EpisodeResult
from worldmodels.experience.exploration import AR1Config, build_behaviour
from worldmodels.experience.rollout import (
    PolicyBehaviour,
    close_shared_envs,
    run_group,
    shared_envs,
)
from worldmodels.protocols import UserError

WIDTH = 6
SEEDS = [4, 7, 2, 9]


class Fixed:
    """Always the same actions, and a record of what it saw."""

    def __init__(self, actions: Any) -> None:
        self.actions = np.asarray(actions)
        self.seen: list[tuple[tuple[int, ...], int]] = []

    def start(self, seeds: Sequence[int]) -> None:
        self.seeds = list(seeds)

    def act(self, obs: NDArray[np.uint8], active: NDArray[np.bool_]) -> NDArray[Any]:
        self.seen.append((obs.shape, int(active.sum())))
        return self.actions


def zeros() -> Fixed:
    return Fixed(np.zeros((WIDTH, 2)))


def recorded(
    pool: Any, behaviour: Any, seeds: list[int], **limits: int
) -> tuple[list[EpisodeResult], list[NDArray[np.uint8]]]:
    """What `run_group` returns, and the raw frames (T + 1, H, W, C) of each episode."""
    frames: list[list[NDArray[np.uint8]]] = [[] for _ in seeds]

    def keep(obs: NDArray[np.uint8], new: NDArray[np.bool_]) -> None:
        for row in np.flatnonzero(new):
            frames[row].append(obs[row].copy())

    results = run_group(pool, behaviour, seeds, width=WIDTH, on_frames=keep, **limits)
    return results, [np.stack(seen) for seen in frames]


def test_each_episode_goes_as_it_would_alone() -> None:
    pool = shared_envs(fakes.BOX, len(SEEDS))
    behaviour = build_behaviour(AR1Config(), pool[0])
    together, frames = recorded(pool, behaviour, SEEDS)
    assert [r.seed for r in together] == SEEDS
    for result, seen in zip(together, frames, strict=True):
        (alone,), (own,) = recorded(pool, behaviour, [result.seed])
        assert alone.total_reward == result.total_reward
        assert alone.length == result.length == fakes.steps_of(result.seed)
        assert (alone.terminated, alone.truncated) == (result.terminated, result.truncated)
        assert alone.terminated == (result.seed % 2 == 0)
        assert np.array_equal(own, seen)
        assert seen[:, 0, 0, 0].tolist() == list(range(result.length + 1))


def test_the_batch_never_changes_its_width() -> None:
    behaviour = zeros()
    run_group(shared_envs(fakes.BOX, 4), behaviour, SEEDS, width=WIDTH)
    lengths = sorted(map(fakes.steps_of, SEEDS))
    assert {shape for shape, _ in behaviour.seen} == {(WIDTH, 12, 10, 3)}
    assert [n for _, n in behaviour.seen] == [
        sum(t < n for n in lengths) for t in range(lengths[-1])
    ]


def test_the_hook_sees_every_frame_and_results_have_actions_and_rewards() -> None:
    seen: list[list[int]] = [[] for _ in SEEDS]

    def see(obs: NDArray[np.uint8], new: NDArray[np.bool_]) -> None:
        for row in np.flatnonzero(new):
            seen[row].append(int(obs[row, 0, 0, 0]))

    results = run_group(shared_envs(fakes.BOX, 4), zeros(), SEEDS, width=WIDTH, on_frames=see)
    for row, result in enumerate(results):
        steps = fakes.steps_of(SEEDS[row])
        assert seen[row] == list(range(steps + 1))
        assert result.actions is not None and result.rewards is not None
        assert result.actions.shape == (steps, 2) and result.actions.dtype == np.float32
        assert sum(result.rewards.tolist()) == result.total_reward
        assert result.ms_per_action is not None and result.ms_per_action > 0


def test_max_steps_truncates() -> None:
    short, long = 5, fakes.steps_of(4)
    results = run_group(
        shared_envs(fakes.BOX, 4), zeros(), [0, 4, 2], width=WIDTH, max_steps=fakes.steps_of(0)
    )
    assert fakes.steps_of(0) == short < long
    assert [(r.length, r.terminated, r.truncated) for r in results] == [
        (short, True, False),
        (short, False, True),
        (short, False, True),
    ]


def test_patience_ends_what_is_lost() -> None:
    """Full brakes move the fake's level by -1 plus something below 1: nothing is ever paid."""
    lost = Fixed(np.tile([-1.0, 0.0], (WIDTH, 1)))
    pool = shared_envs(fakes.BOX, 2)
    results = run_group(pool, lost, [4, 9], width=WIDTH, patience=7)
    assert [(r.length, r.terminated, r.truncated) for r in results] == [(7, False, True)] * 2
    paid = Fixed(np.ones((WIDTH, 2)))
    results = run_group(pool, paid, [4, 9], width=WIDTH, patience=7)
    assert [r.length for r in results] == [fakes.steps_of(4), fakes.steps_of(9)]


def test_laps() -> None:
    plain = run_group(shared_envs(fakes.BOX, 2), zeros(), [4, 7], width=WIDTH)
    assert [r.lap_finished for r in plain] == [None, None]
    laps = run_group(shared_envs(fakes.LAPS, 2), zeros(), [4, 7], width=WIDTH)
    assert [r.lap_finished for r in laps] == [True, False]


def test_actions_are_clipped_to_the_space() -> None:
    beyond = Fixed(np.full((WIDTH, 2), 9.0))
    (result,) = run_group(shared_envs(fakes.BOX, 1), beyond, [4], width=WIDTH)
    assert result.actions is not None
    assert result.actions.tolist() == [[1.0, 2.0]] * fakes.steps_of(4)


@pytest.mark.parametrize(
    ("env_id", "actions", "said"),
    [
        (fakes.BOX, [[0, 0], [np.nan, 0]] + [[0, 0]] * 4, "step 1 of seed 7 is .*nan.* finite"),
        (fakes.BOX, np.zeros((2, 2)), r"shape \(2, 2\); it must be shape \(6, 2\)"),
        (fakes.DISCRETE, [0, 4, 0, 0, 0, 0], "step 1 of seed 7 is 4; it must be 0 to 3"),
        (fakes.DISCRETE, np.zeros(WIDTH), "float64 .* integers"),
    ],
)
def test_wrong_actions_are_named(env_id: str, actions: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        run_group(shared_envs(env_id, 2), Fixed(actions), [4, 7], width=WIDTH)


def test_padding_may_hold_anything() -> None:
    actions = np.zeros((WIDTH, 2))
    actions[4:] = np.nan
    assert len(run_group(shared_envs(fakes.BOX, 4), Fixed(actions), SEEDS, width=WIDTH)) == 4
    choices = np.array([0, 1, 2, 3, -7, 99])
    assert len(run_group(shared_envs(fakes.DISCRETE, 4), Fixed(choices), SEEDS, width=WIDTH)) == 4


def test_a_reward_that_is_not_finite_is_named() -> None:
    pool = [envs.make(fakes.BOX), envs.make(fakes.BOX, bad_reward_at=3)]
    with pytest.raises(UserError, match="reward is nan in step 3 of seed 7"):
        run_group(pool, zeros(), [4, 7], width=WIDTH)


def test_numbers_that_do_not_fit() -> None:
    pool = shared_envs(fakes.BOX, 2)
    for seeds, width in (([], 4), ([1, 2, 3], 4), ([1, 2], 1)):
        with pytest.raises(UserError, match="at least one seed"):
            run_group(pool, zeros(), seeds, width=width)
    with pytest.raises(UserError, match="max_steps is 0"):
        run_group(pool, zeros(), [1], width=WIDTH, max_steps=0)


def test_a_policy_keeps_its_state_within_a_group_only() -> None:
    policy = fakes.EchoPolicy()
    behaviour = PolicyBehaviour(policy)
    for _ in range(2):
        policy.calls.clear()
        run_group(shared_envs(fakes.BOX, 2), behaviour, [0, 0], width=WIDTH)
        assert [state for state, _ in policy.calls] == [None, 1, 2, 3, 4]
        starts = [bool(start.all()) for _, start in policy.calls]
        assert starts == [True, False, False, False, False]
        assert all(start.all() == start.any() for _, start in policy.calls)


def test_environments_are_made_once() -> None:
    first = shared_envs(fakes.BOX, 2)
    again = shared_envs(fakes.BOX, 3)
    assert again[:2] == first
    assert shared_envs(fakes.BOX, 1, {"bad_reward_at": 1})[0] is not first[0]


def test_a_held_action_is_one_step_of_the_group() -> None:
    """Every frame that is seen, and every sum of rewards, is that of the steps in between."""
    actions = np.tile([[0.5, 0.25]], (WIDTH, 1))
    pool = shared_envs(fakes.BOX, len(SEEDS))
    single = recorded(pool, Fixed(actions), SEEDS)
    held = recorded(pool, Fixed(actions), SEEDS, action_repeat=4)
    for one, every, other, fourth in zip(*single, *held, strict=True):
        assert other.length == one.length
        assert (other.terminated, other.truncated) == (one.terminated, one.truncated)
        assert other.total_reward == pytest.approx(one.total_reward)
        seen = [*range(0, one.length, 4), one.length]
        assert np.array_equal(fourth, every[seen])
        assert other.rewards is not None and len(other.rewards) == len(seen) - 1
        assert other.rewards[0] == pytest.approx(sum(_rewards(one.seed, actions[0], 4)))


def _rewards(seed: int, action: NDArray[np.float64], steps: int) -> list[float]:
    env = envs.make(fakes.BOX)
    env.reset(seed=seed)
    return [float(env.step(action.astype(np.float32))[1]) for _ in range(steps)]


def test_limits_count_the_environments_steps_though_actions_are_held() -> None:
    pool = shared_envs(fakes.BOX, len(SEEDS))
    results = run_group(pool, zeros(), SEEDS, width=WIDTH, max_steps=6, action_repeat=4)
    assert [r.length for r in results] == [min(6, fakes.steps_of(s)) for s in SEEDS]
    with pytest.raises(UserError, match="action_repeat is 0"):
        run_group(pool, zeros(), SEEDS, width=WIDTH, action_repeat=0)


def test_car_racing_draws_only_what_is_seen_and_that_exactly() -> None:
    pool = shared_envs("worldmodels/CarRacing-v3", 1)
    behaviour = Fixed(np.tile([[0.3, 0.4, 0.0]], (WIDTH, 1)))
    for steps in (12, 10):  # 10 ends an episode while an action is held
        (one,), (every,) = recorded(pool, behaviour, [3], max_steps=steps)
        (held,), (fourth,) = recorded(pool, behaviour, [3], max_steps=steps, action_repeat=4)
        assert held.total_reward == pytest.approx(one.total_reward)
        seen = [0, 4, 8, steps]
        assert np.array_equal(fourth[:, :84], every[seen][:, :84])
        assert pool[0].unwrapped.draws_observations  # type: ignore[attr-defined]  # ours


class Plain:
    """An argument that cannot be hashed."""

    __hash__ = None  # type: ignore[assignment]  # as of a dataclass that is not frozen


def test_environments_take_arguments_that_cannot_be_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []
    closed: list[bool] = []

    def make(env_id: str, **kwargs: Any) -> object:
        made.append(kwargs)
        return SimpleNamespace(number=len(made), close=lambda: closed.append(True))

    monkeypatch.setattr(envs, "make", make)
    keep = Plain()
    for kwargs in (
        {"sizes": [1, 2]},
        {"sizes": [1, 3]},
        {"sizes": (1, 3)},
        {"map": {"a": [1], "b": {"c": np.arange(3)}}},
        {"map": {"a": [1], "b": {"c": np.arange(3.0)}}},
        {"map": {"a": [1], "b": {"c": np.arange(4)}}},
        {"flag": 1},
        {"flag": True},
        {"flag": 1.0},
        {"what": {1, 2}},
        {"what": keep},
        {"disable_env_checker": False},
    ):
        before = len(made)
        first = shared_envs("x", 1, kwargs)
        assert shared_envs("x", 1, copy.deepcopy(kwargs)) == first
        assert len(made) == before + 1, kwargs
    changed = [1]
    assert shared_envs("x", 1, {"sizes": changed}) == shared_envs("x", 1, {"sizes": changed})
    changed.append(2)
    shared_envs("x", 1, {"sizes": changed})
    assert len(made) == 14
    assert len(closed) == 13  # each but the last, once another takes its place
    assert made[-3] == {"disable_env_checker": False}
    rollout._pool.clear()


class Glancing:
    """Steers by the brightness of every fourth frame, and holds the action in between."""

    looks_every = 4

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, *_: Any
    ) -> tuple[NDArray[Any], Any]:
        step, action = (0, np.zeros((len(observation), 3), np.float32)) if state is None else state
        if step % self.looks_every == 0:
            bright = observation[..., 1].mean((1, 2)) / 255
            action = np.stack([bright - 0.5, bright, 0 * bright], 1).astype(np.float32)
        return action, (step + 1, action)


@pytest.mark.parametrize("env_id", ["CarRacing-v3", "worldmodels/CarRacing-v3"])
def test_frames_that_a_policy_does_not_look_at_are_not_drawn(
    env_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = envs.make(env_id)
    inner, drawn = drawer_of(env), []
    draw = "_render" if env_id == "CarRacing-v3" else "_draw_observation"
    before = getattr(type(inner), draw)

    def counted(self: Any, *args: Any) -> Any:
        if getattr(self, "draws_observations", True):
            drawn.append(args)
        return before(self, *args)

    monkeypatch.setattr(type(inner), draw, counted)
    behaviour, results = PolicyBehaviour(Glancing()), []
    for every, frames in ((4, 1 + 2), (1, 1 + 11)):
        behaviour.looks_every = every
        results += run_group([env], behaviour, [3], max_steps=11)
        assert len(drawn) == frames
        drawn.clear()
    np.testing.assert_array_equal(results[0].actions, results[1].actions)
    assert results[0].total_reward == results[1].total_reward
    assert inner.draws_observations


def test_shared_environments_are_closed_before_python_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = shared_envs(fakes.BOX, 2)
    closed: list[int] = []
    for number, env in enumerate(kept):
        monkeypatch.setattr(env, "close", lambda number=number: closed.append(number))
    close_shared_envs()
    assert closed == [0, 1]
    assert shared_envs(fakes.BOX, 1)[0] is not kept[0], "they are forgotten"
