"""Policies of Stable-Baselines3 as drivers of the raw environment: a `protocols.Policy` each."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from baselines.pixels import PixelConfig, push, shrink
from worldmodels.policies.observations import Shape, StateWatch, as_batch, as_starts
from worldmodels.protocols import Predictor

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

    def __init__(
        self,
        policy: Predictor,
        pixels: PixelConfig,
        digest: str = "",
        observation_shape: Shape | None = None,
    ) -> None:
        """Wrap a policy.

        Args:
            policy: a model or a policy of Stable-Baselines3.
            pixels: what it was trained to see.
            digest: names its weights, for evaluations that can be resumed.
            observation_shape: of the raw frames; None takes those of any size, channels last.
        """
        self.policy, self.pixels, self.digest = policy, pixels, digest
        self.observation_shape = observation_shape
        self._watch = StateWatch()

    def predict(
        self,
        observation: NDArray[np.uint8],
        state: PixelState | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], PixelState]:
        """Choose actions for a raw frame (H, W, 3), or a batch (B, H, W, 3).

        The state carries the newest frames and what the network remembers, so pass it on until the
        episode ends::

            action, state = policy.predict(obs, state, deterministic=True)

        See `protocols.Policy` for arguments and results.

        Raises:
            UserError: the frames are of another shape or type than the environment's, or their
                number is not the state's.
        """
        frames, single = as_batch(observation, self.observation_shape)
        fresh = as_starts(episode_start, len(frames), None if state is None else len(state.held))
        if state is None:
            blank = np.zeros((len(frames), *self.pixels.shape), np.uint8)
            new = self._decide(frames, blank, None, fresh, deterministic)
        else:
            new = self._go_on(frames, state, fresh, deterministic)
        if self.pixels.stack > 1 or self.pixels.skip > 1 or new.lstm is not None:
            self._watch.note(state, episode_start)
        return (new.action[0] if single else new.action), new

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
