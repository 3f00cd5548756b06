"""Policies of Stable-Baselines3 on the raw environment: a `protocols.Policy` each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from baselines.actions import UnitActions
from baselines.pixels import PixelConfig, push, shrink
from worldmodels.policies.hold import HoldingPolicy, Seen
from worldmodels.policies.observations import Shape
from worldmodels.protocols import Predictor

Recurrent = tuple[NDArray[np.float32], ...]
"""Hidden and cell state of an LSTM, (layers, B, H) each."""


class PixelState(NamedTuple):
    """What a policy of pixels carries from frame to frame."""

    stack: NDArray[np.uint8]
    """(B, K * C, S, S) newest frames that it decided on"""
    action: NDArray[Any]
    """(B, A) or (B,) what it decided"""
    held: NDArray[np.int64]
    """(B,) frames that the action has been given for, 1 to `skip`"""
    lstm: Recurrent | None
    """of a recurrent policy"""


class PixelPolicy(HoldingPolicy[PixelState]):
    """A policy that was trained behind `TrainingEnv`, given raw frames.

    It shrinks and stacks frames as in training, decides at every `skip`-th frame and holds the
    action in between, passes the recurrent state on and says where episodes begin. Scaling of
    rewards and shaping are parts of the training only: there is nothing to keep in step.
    """

    axes: ClassVar[Mapping[str, int]] = {"lstm": 1}

    def __init__(
        self,
        policy: Predictor,
        pixels: PixelConfig,
        digest: str = "",
        observation_shape: Shape | None = None,
        actions: UnitActions | None = None,
        sampled: bool = False,
    ) -> None:
        """Wrap a policy.

        Args:
            policy: a model or a policy of Stable-Baselines3.
            pixels: what it was trained to see.
            digest: names its weights, for evaluations that can be resumed.
            observation_shape: of the raw frames; None takes those of any size, channels last.
            actions: what its actions stand for; None where they are the environment's own.
            sampled: sample actions also where the mode is asked for.
        """
        super().__init__()
        self.policy, self.pixels, self.digest, self.actions = policy, pixels, digest, actions
        self.action_repeat, self.observation_shape = pixels.skip, observation_shape
        self.sampled = sampled
        self.reseed(0)

    def reseed(self, seed: int) -> None:
        """Seed the samples."""
        self._noise = torch.Generator().manual_seed(seed).get_state()

    def check_env(self, env: gym.Env[Any, Any]) -> None:
        """Take any environment: its frames are checked at every call."""

    @contextmanager
    def _own_noise(self) -> Iterator[None]:
        """Let torch draw from this policy's generator, as Stable-Baselines3 passes none."""
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._noise)
            yield
            self._noise = torch.get_rng_state()

    def _shape(self) -> Shape | None:
        return self.observation_shape

    def _decide(self, seen: Seen, state: PixelState | None) -> PixelState:
        batch = len(seen.frames)
        blank = np.zeros((batch, *self.pixels.shape), np.uint8)
        before, lstm = (blank, None) if state is None else (state.stack, state.lstm)
        stack = push(before, shrink(seen.frames, self.pixels), seen.starts)
        mode = seen.deterministic and not self.sampled
        with nullcontext() if mode else self._own_noise():
            action, lstm = self.policy.predict(stack, lstm, seen.starts, mode)
        if self.actions is not None:
            action = self.actions.to_env(action)
        return PixelState(stack, action, np.ones(batch, np.int64), lstm)

    def _actions(self, state: PixelState) -> NDArray[Any]:
        return state.action

    def _remembers(self, state: PixelState) -> bool:
        return self.pixels.stack > 1 or self.pixels.skip > 1 or state.lstm is not None
