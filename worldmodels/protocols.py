"""Types and constants that every module may import; this module imports none of the others.

A policy has Stable-Baselines3's `predict`; a controller is judged by a function from a population
of parameters to returns, in a dream, the real environment or on a cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

DISTRIBUTION = "worldmodels-control"
"""Name on the package index, where somebody else has `worldmodels`, the name of the import."""

SHIPPED = Path(__file__).parent / "agents"
"""Agents that come with the package, one folder each."""

DEFAULT_AGENT = "car-racing"
"""The one that commands take where no agent is given."""

TRAINING_SEED_LIMIT = 400_000
"""Seeds of training episodes are below this one."""

SELECTION_SEED_START = 500_000
"""First seed of the episodes that choose between controllers."""

TEST_SEED_START = 1_000_000
"""First seed of the test episodes, which neither train nor select."""

NUM_TEST_SEEDS = 100
"""Number of test episodes: the seeds `TEST_SEED_START` to `TEST_SEED_START + 99`."""

Squash: TypeAlias = Literal["tanh", "half", "clip", "scaled", "whole", "argmax", "thresholds"]
"""How one output of C becomes an action: ``tanh(x)``; ``(tanh(x) + 1) / 2``;
``clip(tanh(x), 0, 1)``; tanh scaled to [low, high]; the same, rounded to whole numbers (all outputs
together, a Box of integers); the index of the largest output (all outputs together, Discrete); the
interval of [-1, 1], cut into as many equal ones as there are choices, that tanh(x) of the one
output falls into (Discrete; Ha and Schmidhuber 2018, appendix A.4)."""

PolicyState: TypeAlias = Any
"""What a recurrent policy carries from step to step; opaque to its callers."""

LatentPolicy: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
"""From z (B, Z) and h (B, H), or [h, c] (B, H + C) for an agent whose C sees c, to actions as M
sees them: (B, A) numbers, or one-hot choices."""


def shipped(folder: Path = SHIPPED) -> list[str]:
    """Names of the agents that come with the package."""
    return sorted(config.parent.name for config in folder.glob("*/config.json"))


class UserError(Exception):
    """A mistake that the user can fix: the text says what is wrong, where, and what is allowed.

    The command line prints it as one line and exits with status 2, without a traceback.
    """


def install_extra(extra: str) -> str:
    """The command that installs an extra, for errors."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


@runtime_checkable
class Policy(Protocol):
    """Chooses actions, by the call that Stable-Baselines3 made customary."""

    def predict(
        self,
        observation: NDArray[np.uint8],
        state: PolicyState | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], PolicyState | None]:
        """Choose actions for one observation or for a batch.

        Args:
            observation: the environment's own frame, (H, W, 3) uint8, or a batch (B, H, W, 3).
            state: what the previous call returned; None at the start.
            episode_start: (B,) True where an episode begins, so that the state there is reset.
            deterministic: take the mode instead of a sample, for policies that have both.

        Returns:
            Actions, (A,) or (B, A) for a Box space and () or (B,) for a Discrete one, and the new
            state.

        Raises:
            UserError: the observations are not of the environment's shape.
        """


class Predictor(Protocol):
    """An algorithm of Stable-Baselines3 or sb3-contrib, on its own observations."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], Any]:
        """Choose actions."""


@runtime_checkable
class ReturnFunction(Protocol):
    """What a controller is optimised against: a population of parameters in, mean returns out."""

    def __call__(self, population: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
        """(P,) mean returns, higher is better, of a population (P, N), one candidate a row.

        ``seed`` fixes starts and noise, the same for all candidates, so that they are comparable.
        """
