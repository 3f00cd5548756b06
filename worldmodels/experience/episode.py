"""The record of one episode, as every later stage sees it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from worldmodels.protocols import UserError


@dataclass(frozen=True, eq=False)
class Episode:
    """One whole episode: T steps, T + 1 frames, the last frame being what the last action led to.

    Raises:
        UserError: shapes or types do not fit each other, or a reward or an action is not finite.
    """

    obs: NDArray[np.uint8]
    """(T + 1, 64, 64, 3) frames as V sees them"""
    action: NDArray[np.float32] | NDArray[np.int64]
    """(T, A) float32 for a Box action space, (T,) int64 for a Discrete one"""
    reward: NDArray[np.float32]
    """(T,) reward of each action"""
    terminated: bool
    """the last step ended the episode by the environment's own rules"""
    truncated: bool
    """the last step met a limit of time or of steps"""
    seed: int
    """the environment was reset with it"""
    lap_finished: bool | None = None
    """the lap was completed; None where the environment does not tell"""
    lost: bool = False
    """truncated because no reward had come for so long (`CollectConfig.patience`)"""
    versions: dict[str, str] = field(default_factory=dict)
    """versions of the packages that the frames depend on"""

    def __post_init__(self) -> None:
        """Check every array, so that nothing wrong reaches the disk."""
        if self.obs.dtype != np.uint8 or self.obs.ndim != 4 or self.obs.shape[3] != 3:
            self._refuse("obs", f"{self.obs.dtype} {self.obs.shape}", "uint8 (T + 1, S, S, 3)")
        if len(self.obs) < 2:
            self._refuse("obs", f"{len(self.obs)} frames", "at least two frames: one step")
        check_steps(self.seed, self.action, self.reward, len(self.obs) - 1)

    def __len__(self) -> int:
        """T, the number of steps."""
        return len(self.reward)

    @property
    def total_reward(self) -> float:
        """Sum of the rewards, added in float64."""
        return float(self.reward.sum(dtype=np.float64))

    def _refuse(self, name: str, got: str, right: str) -> None:
        raise UserError(f"episode of seed {self.seed}: {name} is {got}; it must be {right}")


def check_steps(
    seed: int,
    action: NDArray[np.float32] | NDArray[np.int64],
    reward: NDArray[np.float32],
    steps: int,
) -> None:
    """Check what an episode holds beside its frames.

    Args:
        seed: names the episode in the message.
        action: (T, A) float32 or (T,) int64.
        reward: (T,) float32.
        steps: T.

    Raises:
        UserError: a shape, a type or a value is wrong; the message names the first wrong step.
    """
    where = f"episode of seed {seed}"
    box = action.dtype == np.float32 and action.ndim == 2
    if not box and not (action.dtype == np.int64 and action.ndim == 1):
        raise UserError(
            f"{where}: actions are {action.dtype} {action.shape}; "
            "they must be float32 (T, A) or int64 (T,)"
        )
    if reward.dtype != np.float32 or reward.ndim != 1:
        raise UserError(
            f"{where}: rewards are {reward.dtype} {reward.shape}; they must be float32 (T,)"
        )
    if len(action) != steps or len(reward) != steps:
        raise UserError(
            f"{where}: {steps + 1} frames, {len(action)} actions and {len(reward)} rewards; "
            f"T + 1 frames go with T actions and T rewards"
        )
    for name, values in (("reward", reward), ("action", action)):
        wrong = np.flatnonzero(~np.isfinite(values).reshape(steps, -1).all(axis=1))
        if len(wrong):
            raise UserError(
                f"{where}: the {name} of step {wrong[0]} is {values[wrong[0]]}; it must be finite"
            )
