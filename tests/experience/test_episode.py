from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from worldmodels.experience.episode import Episode
from worldmodels.protocols import UserError

T, A, S = 4, 2, 8


def make(**changed: Any) -> Episode:
    fields: dict[str, Any] = {
        "obs": np.zeros((T + 1, S, S, 3), np.uint8),
        "action": np.zeros((T, A), np.float32),
        "reward": np.arange(T, dtype=np.float32),
        "terminated": True,
        "truncated": False,
        "seed": 77,
    }
    return Episode(**{**fields, **changed})


def test_length() -> None:
    assert len(make()) == T


def test_discrete_actions_are_accepted() -> None:
    assert make(action=np.zeros(T, np.int64)).action.dtype == np.int64


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"obs": np.zeros((T + 1, S, S, 3), np.float32)}, "obs is float32"),
        ({"obs": np.zeros((T + 1, S, S), np.uint8)}, "obs is uint8"),
        ({"obs": np.zeros((1, S, S, 3), np.uint8)}, "at least two frames"),
        ({"obs": np.zeros((T, S, S, 3), np.uint8)}, "T \\+ 1 frames go with T actions"),
        ({"action": np.zeros((T, A))}, "actions are float64"),
        ({"action": np.zeros(T, np.int32)}, "actions are int32"),
        ({"reward": np.zeros(T)}, "rewards are float64"),
        ({"reward": np.zeros(T - 1, np.float32)}, "3 rewards"),
        ({"reward": np.array([0, 1, np.nan, 2], np.float32)}, "the reward of step 2 is nan"),
        ({"action": np.full((T, A), np.inf, np.float32)}, "the action of step 0 is"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_seed(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=f"seed 77.*{said}"):
        make(**changed)
