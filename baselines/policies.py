"""Policies of Stable-Baselines3 as drivers of the raw environment: a `protocols.Policy` each."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from baselines.pixels import PixelConfig, push, shrink
from worldmodels.protocols import Predictor, UserError

Recurrent = tuple[NDArray[np.float32], ...]
"""Hidden and cell state of an LSTM, (layers, B, H) each."""


class PixelState(NamedTuple):
    """What a driver with pixels carries from frame to frame."""

    stack: NDArray[np.uint8]
    """(B, K * C, S, S) newest frames that it decided on"""
    action: NDArray[Any]
    """(B, A) or (B,) what it decided"""
    held: NDArray[np.int64]
    """(B,) frames that the action has been given for, 1 to `skip`"""
    lstm: Recurrent | None
    """of a recurrent policy"""


class PixelPolicy:
    """A policy that was trained behind `TrainingEnv`, given raw frames.

    It shrinks and stacks frames as in training, decides at every `skip`-th frame and holds the
    action in between, passes the recurrent state on and says where episodes begin. Scaling of
    rewards and shaping are parts of the training only: there is nothing to keep in step.
    """

    def __init__(self, policy: Predictor, pixels: PixelConfig, digest: str = "") -> None:
        """Wrap a policy.

        Args:
            policy: a model or a policy of Stable-Baselines3.
            pixels: what it was trained to see.
            digest: names its weights, for evaluations that can be resumed.
        """
        self.policy, self.pixels, self.digest = policy, pixels, digest

    def predict(
        self,
        obs: NDArray[np.uint8],
        state: PixelState | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], PixelState]:
        """Choose actions for raw frames (H, W, 3) or (B, H, W, 3); see `protocols.Policy`.

        Raises:
            UserError: the number of frames is not the state's.
        """
        obs = np.asarray(obs)
        frames = obs[None] if obs.ndim == 3 else obs
        fresh = _fresh(len(frames), state, episode_start)
        if state is None:
            blank = np.zeros((len(frames), *self.pixels.shape), np.uint8)
            new = self._decide(frames, blank, None, fresh, deterministic)
        else:
            new = self._go_on(frames, state, fresh, deterministic)
        return (new.action[0] if obs.ndim == 3 else new.action), new

    def _decide(
        self,
        frames: NDArray[np.uint8],
        stack: NDArray[np.uint8],
        lstm: Recurrent | None,
        fresh: NDArray[np.bool_],
        deterministic: bool,
    ) -> PixelState:
        stack = push(stack, shrink(frames, self.pixels), fresh)
        action, lstm = self.policy.predict(stack, lstm, fresh, deterministic)
        return PixelState(stack, action, np.ones(len(frames), np.int64), lstm)

    def _go_on(
        self,
        frames: NDArray[np.uint8],
        state: PixelState,
        fresh: NDArray[np.bool_],
        deterministic: bool,
    ) -> PixelState:
        """Decide where the action was held long enough or an episode begins; hold the others."""
        due = fresh | (state.held >= self.pixels.skip)
        held = state._replace(held=state.held + 1)
        if not due.any():
            return held
        # all rows are computed, so that the shapes of the products do not depend on the phase
        new = self._decide(frames, state.stack, state.lstm, fresh, deterministic)
        if due.all():
            return new
        return PixelState(
            choose(due, new.stack, held.stack),
            choose(due, new.action, held.action),
            np.where(due, new.held, held.held),
            None
            if new.lstm is None or held.lstm is None
            else tuple(choose(due, a, b, 1) for a, b in zip(new.lstm, held.lstm, strict=True)),
        )


def choose(rows: NDArray[np.bool_], yes: Any, no: Any, axis: int = 0) -> Any:
    """Rows of one array where `rows` (B,) says so, of another elsewhere, along an axis."""
    shape = [1] * np.ndim(yes)
    shape[axis] = len(rows)
    return np.where(rows.reshape(shape), yes, no)


def _fresh(
    batch: int, state: PixelState | None, episode_start: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    """(B,) rows whose episode begins with this frame."""
    if state is None:
        return np.ones(batch, np.bool_)
    if len(state.held) != batch:
        raise UserError(
            f"{batch} frames were given with the state of {len(state.held)}; they must agree"
        )
    if episode_start is None:
        return np.zeros(batch, np.bool_)
    return np.broadcast_to(np.asarray(episode_start, np.bool_), (batch,))
