from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from worldmodels.envs.spaces import ActionSpec
from worldmodels.protocols import UserError

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
        (spaces.MultiBinary(3), "one-dimensional Box or a Discrete"),
        (spaces.Box(0, 1, (2, 2)), "one-dimensional Box or a Discrete"),
        (spaces.Box(-np.inf, np.inf, (2,)), "unbounded"),
        (spaces.Discrete(3, start=1), "must start at 0"),
    ],
)
def test_other_spaces_are_refused(space: spaces.Space[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ActionSpec.from_space(space)


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
