from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from worldmodels._from_json import from_json
from worldmodels.envs.spaces import ActionSpec
from worldmodels.protocols import UserError
from worldmodels.runs import to_jsonable

B, T, A, N = 2, 5, 3, 4


def test_box_is_described_and_passed_through() -> None:
    space = spaces.Box(np.array([-1, 0, 0], np.float32), np.ones(3, np.float32))
    spec = ActionSpec.from_space(space)
    assert spec == ActionSpec("box", A, (-1.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert spec.size == A
    actions = np.random.default_rng(0).random((B, T, A))
    encoded = spec.encode(actions)
    assert encoded.dtype == np.float32
    assert np.array_equal(encoded, actions.astype(np.float32))


def test_discrete_becomes_one_hot() -> None:
    spec = ActionSpec.from_space(spaces.Discrete(N))
    assert spec == ActionSpec("discrete", N)
    assert spec.size == N
    actions = np.random.default_rng(0).integers(0, N, (B, T))
    encoded = spec.encode(actions)
    assert encoded.shape == (B, T, N)
    assert encoded.dtype == np.float32
    assert np.array_equal(encoded.argmax(-1), actions)
    assert np.array_equal(encoded.sum(-1), np.ones((B, T)))
    assert np.array_equal(spec.encode(np.array(2)), [0, 0, 1, 0])


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.MultiBinary(3), "one-dimensional Box or a Discrete.*TransformAction"),
        (spaces.MultiDiscrete([3, 2]), "one-dimensional Box or a Discrete.*TransformAction"),
        (spaces.Box(0, 1, (2, 2)), r"shape \(2, 2\).*TransformAction can reshape"),
        (spaces.Box(0, 1, ()), r"shape \(\); expected one dimension"),
        (spaces.Box(-np.inf, np.inf, (2,)), "unbounded.*TransformAction"),
        (spaces.Box(np.array([-1, 0]), np.array([1, 0])), "cannot move in component 1"),
        (spaces.Box(-1e9, 1e9, (2,)), "too wide.*RescaleAction"),
        (spaces.Discrete(1), "one choice"),
    ],
)
def test_other_spaces_are_refused(space: spaces.Space[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ActionSpec.from_space(space)


def test_a_box_of_integers_is_rounded_within_its_bounds_and_back() -> None:
    spec = ActionSpec.from_space(spaces.Box(0, 4, (1,), np.int64))
    assert spec == ActionSpec("box", 1, (0,), (4,), "int64")
    seen = np.array([[-0.2], [0.4], [1.6], [3.4], [4.4]], np.float32)
    taken = spec.to_env(seen)
    assert taken.dtype == np.int64
    assert taken.ravel().tolist() == [0, 0, 2, 3, 4]
    assert spec.encode(seen[1:4]).ravel().tolist() == [0, 2, 3]
    assert np.array_equal(spec.decode(spec.encode(taken)), taken)


def test_actions_have_the_type_of_their_space() -> None:
    space = spaces.Box(np.array([-0.1]), np.array([0.1]), dtype=np.float64)
    spec = ActionSpec.from_space(space)
    taken = spec.to_env(np.array([0.1], np.float32))  # a little above 0.1 in float64
    assert space.contains(taken)


def test_choices_begin_where_the_space_says() -> None:
    spec = ActionSpec.from_space(spaces.Discrete(3, start=5))
    encoded = spec.encode(np.array([5, 7]))
    assert np.array_equal(encoded, [[1, 0, 0], [0, 0, 1]])
    assert spec.decode(encoded).tolist() == [5, 7]
    with pytest.raises(UserError, match="allowed: 5 to 7"):
        spec.encode(np.array([0]))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3, start=5),
        spaces.Box(0, 4, (1,), np.int64),
        spaces.Box(-2, np.array([1, 0.1], np.float64), (2,), np.float64),
        spaces.Box(-1, 1, (2,), np.float32),
    ],
)
def test_a_spec_gives_its_space_back(space: Any) -> None:
    spec = ActionSpec.from_space(space)
    assert spec.to_space() == space
    assert from_json(ActionSpec, json.loads(json.dumps(to_jsonable(spec)))) == spec


def test_the_usual_spec_is_written_as_before() -> None:
    """Shards, agents and hashes of earlier versions have four fields."""
    assert to_jsonable(ActionSpec("box", 1, (-1.0,), (1.0,))) == {
        "kind": "box",
        "dim": 1,
        "low": [-1.0],
        "high": [1.0],
    }
    assert set(to_jsonable(ActionSpec("discrete", N))) == {"kind", "dim", "low", "high"}


@pytest.mark.parametrize(
    ("spec", "actions", "message"),
    [
        (ActionSpec("box", 1, (0.0,), (1.0,)), np.zeros((B, 2)), "last dimension must be 1"),
        (ActionSpec("box", 1, (0.0,), (1.0,)), np.zeros(()), "last dimension must be 1"),
        (ActionSpec("discrete", N), np.zeros(B), "must be integers"),
        (ActionSpec("discrete", N), np.array([0, N]), "allowed: 0 to 3"),
        (ActionSpec("discrete", N), np.array([-1]), "allowed: 0 to 3"),
    ],
)
def test_foreign_actions_are_refused(spec: ActionSpec, actions: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        spec.encode(actions)


def test_impossible_specs_are_refused() -> None:
    wrong: Any = "continuous"
    with pytest.raises(UserError, match="one of box, discrete"):
        ActionSpec(wrong, 2)
    with pytest.raises(UserError, match="at least 1"):
        ActionSpec("discrete", 0)
    with pytest.raises(UserError, match="has 2 of each"):
        ActionSpec("box", 2, (0.0,), (1.0,))
