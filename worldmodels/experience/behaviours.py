"""Random behaviours and disturbed policies, for a group of episodes at once.

Build them from their configurations with `exploration.build_behaviour`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from worldmodels.envs.spaces import ActionSpec
from worldmodels.protocols import Policy, PolicyState
from worldmodels.runs import derive_seed

_CHUNK = 128


@runtime_checkable
class RemembersActions(Protocol):
    """A policy whose memory wants to know which action was executed in place of its own."""

    def executed(self, state: PolicyState, action: NDArray[Any]) -> PolicyState:
        """Return the state with the executed actions, (B, A) or (B,), in place of its own."""
        ...


class _Streams:
    """One generator for each episode, drawn from in chunks: `width` numbers a step and episode."""

    def __init__(self, seeds: Sequence[int], label: str, normal: bool, width: int) -> None:
        self._rngs = [
            np.random.default_rng(derive_seed(int(s), "exploration", label)) for s in seeds
        ]
        self._normal = normal
        self._width = width
        self._chunk = np.empty((len(self._rngs), 0, width))
        self._used = 0

    def next(self) -> NDArray[np.float64]:
        """Return (n, width) numbers: standard normal, or uniform from 0 to 1."""
        if self._used == self._chunk.shape[1]:
            shape = (_CHUNK, self._width)
            draws = [
                r.standard_normal(shape) if self._normal else r.random(shape) for r in self._rngs
            ]
            self._chunk = np.stack(draws)
            self._used = 0
        self._used += 1
        return self._chunk[:, self._used - 1]


class _UnitBox:
    """Maps unit coordinates to the action space and pads to the group's width."""

    def __init__(self, spec: ActionSpec) -> None:
        self._low = np.array(spec.low)
        self._half = (np.array(spec.high) - self._low) / 2

    def actions(self, unit: NDArray[np.float64], width: int) -> NDArray[np.float32]:
        """Turn (n, A) unit coordinates into (width, A) actions, clipped."""
        out = np.zeros((width, len(self._low)), np.float32)
        out[: len(unit)] = self._low + (np.clip(unit, -1, 1) + 1) * self._half
        return out

    def units(self, actions: NDArray[Any]) -> NDArray[np.float64]:
        """Turn (n, A) actions into unit coordinates."""
        half = np.where(self._half > 0, self._half, 1)
        values: NDArray[np.float64] = (actions - self._low) / half - 1
        return values


class _Deviation:
    """The noise itself: d <- rho d + sqrt(1 - rho^2) scale e, e standard normal; (n, A)."""

    def __init__(
        self, seeds: Sequence[int], rho: float, scale: float, dim: int, label: str
    ) -> None:
        self._streams = _Streams(seeds, label, True, dim)
        self._rho = rho
        self._step = np.sqrt(1 - rho**2) * scale
        # Begin in the stationary distribution, so that early steps are as varied as late ones.
        self._value = scale * self._streams.next()

    def next(self) -> NDArray[np.float64]:
        """Return the current deviation and move on."""
        value = self._value
        self._value = self._rho * value + self._step * self._streams.next()
        return value


class AR1:
    """Autoregressive noise around a bias that is shifted once an episode."""

    def __init__(
        self, rho: float, scale: float, bias: NDArray[np.float64], spread: float, spec: ActionSpec
    ) -> None:
        """Take the parameters of `AR1Config`, the bias (A,) in unit coordinates."""
        self._rho, self._scale, self._bias, self._spread = rho, scale, bias, spread
        self._box = _UnitBox(spec)

    def start(self, seeds: Sequence[int]) -> None:
        """Draw each episode's bias."""
        shift = _Streams(seeds, "bias", True, len(self._bias)).next()
        self._centre = self._bias + self._spread * shift
        self._noise = _Deviation(seeds, self._rho, self._scale, len(self._bias), "noise")

    def act(self, obs: NDArray[np.uint8], active: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return the next actions (W, A); the frames do not matter."""
        return self._box.actions(self._centre + self._noise.next(), len(active))


class Sticky:
    """Discrete actions that are kept with a fixed probability and drawn anew otherwise."""

    def __init__(self, keep: float, spec: ActionSpec) -> None:
        """Take the probability of keeping a choice."""
        self._keep, self._choices, self._first = keep, spec.dim, spec.start

    def start(self, seeds: Sequence[int]) -> None:
        """Draw the first choices."""
        self._streams = _Streams(seeds, "sticky", False, 2)
        self._choice = self._draw(self._streams.next())

    def _draw(self, numbers: NDArray[np.float64]) -> NDArray[np.int64]:
        return self._first + (numbers[:, 1] * self._choices).astype(np.int64)

    def act(self, obs: NDArray[np.uint8], active: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the next choices (W,)."""
        numbers = self._streams.next()
        out = np.zeros(len(active), np.int64)
        out[: len(self._choice)] = self._choice
        self._choice = np.where(numbers[:, 0] < self._keep, self._choice, self._draw(numbers))
        return out


class Brownian:
    """Brownian motion from a uniformly drawn first action, clipped to the space in each step."""

    def __init__(self, dt: float, spec: ActionSpec) -> None:
        """Take the time of a step."""
        self._step = np.sqrt(dt)
        self._low, self._high = np.array(spec.low), np.array(spec.high)

    def start(self, seeds: Sequence[int]) -> None:
        """Draw the first actions."""
        dim = len(self._low)
        first = _Streams(seeds, "first", False, dim).next()
        self._value = self._low + first * (self._high - self._low)
        self._streams = _Streams(seeds, "noise", True, dim)

    def act(self, obs: NDArray[np.uint8], active: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return the next actions (W, A); the frames do not matter."""
        out = np.zeros((len(active), len(self._low)), np.float32)
        out[: len(self._value)] = self._value
        moved = self._value + self._step * self._streams.next()
        self._value = np.clip(moved, self._low, self._high)
        return out


class RandomController:
    """A linear map from a thumbnail of the frame to actions, its weights drawn once an episode."""

    def __init__(
        self, max_scale: float, size: int, bias: NDArray[np.float64], spec: ActionSpec
    ) -> None:
        """Take `RandomControllerConfig`'s parameters; `bias` (A,) shifts the squashed output."""
        self._max_scale, self._size, self._bias, self._spec = max_scale, size, bias, spec
        self._box = _UnitBox(spec)

    def start(self, seeds: Sequence[int]) -> None:
        """Draw each episode's weights: Cauchy noise times a scale from 0 to `max_scale`."""
        inputs = self._size**2 + 1
        weights = []
        for seed in seeds:
            rng = np.random.default_rng(derive_seed(int(seed), "exploration", "controller"))
            scale = rng.random() * self._max_scale
            weights.append(scale * rng.standard_cauchy((inputs, self._spec.dim)))
        self._weights = np.stack(weights)

    def act(self, obs: NDArray[np.uint8], active: NDArray[np.bool_]) -> NDArray[Any]:
        """Return the actions (W, A), or (W,) of the largest outputs, for these frames."""
        n = len(self._weights)
        features = thumbnails(obs[:n], self._size)
        outputs = np.einsum("ni,nia->na", features, self._weights)
        if self._spec.kind == "discrete":
            out = np.zeros(len(active), np.int64)
            out[:n] = self._spec.start + outputs.argmax(axis=1)
            return out
        return self._box.actions(np.tanh(outputs) + self._bias, len(active))


def thumbnails(obs: NDArray[np.uint8], size: int) -> NDArray[np.float64]:
    """Sample a grid of pixels, grey from -1 to 1, and add a constant 1; (n, size^2 + 1)."""
    n, height, width = obs.shape[:3]
    rows = (2 * np.arange(size) + 1) * height // (2 * size)
    columns = (2 * np.arange(size) + 1) * width // (2 * size)
    grid = obs[:, rows[:, None], columns].reshape(n, size * size, -1)
    grey = grid.mean(axis=2, dtype=np.float64) / 127.5 - 1
    return np.concatenate([grey, np.ones((n, 1))], axis=1)


class NoisyPolicy:
    """A policy with noise on its actions, kicks, and a random beginning of some episodes."""

    def __init__(
        self,
        policy: Policy,
        spec: ActionSpec,
        *,
        noise: tuple[float, float],
        bias_spread: float,
        kick: tuple[float, int],
        random_start: tuple[float, int],
        explore: Any,
    ) -> None:
        """Take the parameters of `AgentNoiseConfig`: (rho, scale), (probability, longest) twice."""
        self._policy, self._spec, self._explore = policy, spec, explore
        self._noise_cfg, self._kick_cfg, self._start_cfg = noise, kick, random_start
        self._bias_spread = bias_spread
        self._box = _UnitBox(spec)

    def start(self, seeds: Sequence[int]) -> None:
        """Forget the episodes before, and draw which begin with random driving and for how long."""
        dim = self._spec.dim
        self._explore.start(seeds)
        self._noise = _Deviation(seeds, *self._noise_cfg, dim, "agent-noise")
        self._bias = self._bias_spread * _Streams(seeds, "agent-bias", True, dim).next()
        self._kicks = _Streams(seeds, "kicks", False, 2 + dim)
        probability, longest = self._start_cfg
        first = _Streams(seeds, "random-start", False, 2).next()
        steps = 1 + (first[:, 1] * longest).astype(np.int64)
        self._random_left = np.where(first[:, 0] < probability, steps, 0)
        self._kick_left = np.zeros(len(seeds), np.int64)
        self._kick = np.zeros((len(seeds), dim))
        self._state: PolicyState | None = None
        self._fresh = True

    def act(self, obs: NDArray[np.uint8], active: NDArray[np.bool_]) -> NDArray[Any]:
        """Return the disturbed actions, (W, A) or (W,), and tell them to the policy."""
        width = len(active)
        begin = np.full(width, self._fresh)
        self._fresh = False
        decide = getattr(self._policy, "decide", self._policy.predict)  # the group holds actions
        chosen, self._state = decide(obs, self._state, begin, True)
        action = self._disturb(np.array(chosen), self._explore.act(obs, active))
        if isinstance(self._policy, RemembersActions):
            self._state = self._policy.executed(self._state, action)
        return action

    def _disturb(self, chosen: NDArray[Any], random: NDArray[Any]) -> NDArray[Any]:
        """Replace or shift the chosen actions of the first n rows."""
        n = len(self._kick_left)
        self._advance_kicks()
        kicked = self._kick_left > 0
        wandering = self._random_left > 0
        self._random_left = np.maximum(self._random_left - 1, 0)
        deviation = self._noise.next() + self._bias
        if self._spec.kind == "discrete":
            choice = self._spec.start + (self._kick[:, 0] * self._spec.dim).astype(np.int64)
            mixed = np.where(kicked, choice, chosen[:n])
            chosen[:n] = np.where(wandering, random[:n], mixed)
            return chosen
        kick = 2 * self._kick - 1
        unit = np.where(kicked[:, None], kick, self._box.units(chosen[:n]) + deviation)
        out = self._box.actions(unit, len(chosen))
        out[:n] = np.where(wandering[:, None], random[:n], out[:n])
        return out

    def _advance_kicks(self) -> None:
        """Count running kicks down and begin new ones where none runs."""
        probability, longest = self._kick_cfg
        numbers = self._kicks.next()
        self._kick_left = np.maximum(self._kick_left - 1, 0)
        begins = (self._kick_left == 0) & (numbers[:, 0] < probability)
        lengths = 1 + (numbers[:, 1] * longest).astype(np.int64)
        self._kick_left = np.where(begins, lengths, self._kick_left)
        self._kick = np.where(begins[:, None], numbers[:, 2:], self._kick)
