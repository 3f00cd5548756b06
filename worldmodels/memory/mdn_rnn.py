"""M: the paper's MDN-RNN (appendix A.2), with heads for the reward and the end of an episode.

Time runs as ``(z_t, a_t, h_t) -> h_{t+1}``; from h_{t+1} the heads predict z_{t+1}, the reward r_t
and whether a_t ended the episode. The controller sees ``[z_t, h_t]``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldmodels.config import Config, Decay, Few, Positive, Size

RewardKind: TypeAlias = Literal["hit", "count", "raw"]
"""Forms of reward; see `RewardModel`."""


_MOST_EVENTS = 8


@dataclass(frozen=True)
class MDNRNNConfig(Config):
    """Shape of M."""

    z_dim: Size = 32
    """size of V's latent z"""
    action_size: Size = 3
    """width of the action input (number of actions, one-hot, when actions are discrete)"""
    hidden_size: Size = 256
    """units of the LSTM"""
    mixtures: Few = 5
    """Gaussian components per latent dimension"""
    sigma_floor: Positive = 0.01
    """smallest standard deviation of a component, added to exp(output)"""
    sigma_ceiling: Positive = 1.0
    """largest value of exp(output); a component without weight is free to grow, and one sample of
    it throws a dream out of the world (z's own deviation is about 1)"""
    dropout: Decay = 0.0
    """share of h dropped where the recurrence and the heads read it; one mask per sequence"""
    residual: bool = False
    """let the mixtures say how z changes instead of what it becomes: standing still is then free,
    and the LSTM need not carry z through; the paper's says what it becomes"""
    reward: RewardKind = "hit"
    """what the reward head says: the logit of a binary event, the rate of events before a softplus,
    or a scaled real number"""

    def _check(self) -> None:
        if not self.sigma_floor < self.sigma_ceiling:
            self.refuse("sigma_ceiling", f"above sigma_floor ({self.sigma_floor})")


@dataclass(frozen=True)
class RewardModel(Config):
    """Turns the reward head's output into a reward; stored in the agent's config.json."""

    kind: RewardKind = "hit"
    """hit: the output is the logit of an event worth hit_value; count: there may be several in a
    step, and softplus of the output is their expected number; raw: a scaled reward"""
    base: float = 0.0
    """reward of every step (kinds hit and count)"""
    hit_value: float = 1.0
    """what an event adds (kinds hit and count)"""
    scale: float = 1.0
    """reward per unit of output (kind raw)"""
    shift: float = 0.0
    """reward at output 0 (kind raw)"""

    def expected(self, output: Tensor) -> Tensor:
        """Expected reward for the reward head's output (any shape)."""
        if self.kind == "raw":
            return self.scale * output + self.shift
        return self.base + self.hit_value * self.events(output)

    def events(self, output: Tensor) -> Tensor:
        """Expected number of events for the reward head's output (any shape; not kind raw)."""
        assert self.kind != "raw", "a raw reward has no events"
        return torch.sigmoid(output) if self.kind == "hit" else functional.softplus(output)

    def sampled(self, output: Tensor, uniform: Tensor) -> Tensor:
        """Reward with the events drawn by ``uniform`` in [0, 1) (kind raw: the expected one).

        Kind count draws from a Poisson distribution, at most 8 events in a step.
        """
        if self.kind == "raw":
            return self.expected(output)
        if self.kind == "count":
            rate = functional.softplus(output)
            chance = below = torch.exp(-rate)
            count = torch.zeros_like(rate)
            for number in range(1, _MOST_EVENTS + 1):
                count += uniform >= below
                chance = chance * rate / number
                below = below + chance
            return self.base + self.hit_value * count
        return self.base + self.hit_value * (uniform < torch.sigmoid(output)).to(output.dtype)

    def target(self, reward: Tensor) -> Tensor:
        """What the head should say for a recorded reward.

        0 or 1 (hit), the number of events, of which fractions are allowed (count), or the scaled
        reward (raw).
        """
        if self.kind == "raw":
            return (reward - self.shift) / self.scale
        if self.kind == "count":
            return ((reward - self.base) / self.hit_value).clamp_min(0)
        return (reward > self.base + 0.5 * self.hit_value).to(reward.dtype)


class MemoryState(NamedTuple):
    """State of the LSTM."""

    h: Tensor
    """(B, H), without dropout: this is what the controller sees"""
    c: Tensor
    """(B, H)"""


class MemoryOutput(NamedTuple):
    """Predictions from h_{t+1}."""

    log_pi: Tensor
    """(B, [T,] Z, K), normalised over K"""
    mu: Tensor
    """(B, [T,] Z, K)"""
    log_sigma: Tensor
    """(B, [T,] Z, K), at least log(sigma_floor)"""
    reward: Tensor
    """(B, [T]) raw output of the reward head; `RewardModel` gives it its meaning"""
    terminated_logit: Tensor
    """(B, [T]) logit of the episode ending at this step"""


def lstm_cell(gates: Tensor, c: Tensor) -> MemoryState:
    """One LSTM update from the summed gate inputs (B, 4H), ordered input, forget, cell, output."""
    i, f, g, o = gates.chunk(4, dim=-1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return MemoryState(torch.sigmoid(o) * torch.tanh(c), c)


class MDNRNN(nn.Module):
    """LSTM + mixture density network; 422,368 trainable parameters at the paper's sizes.

    The two heads beyond the paper's add 2 (H + 1). The LSTM has one bias as in the paper: torch's
    second one is frozen at 0. `forward` (a sequence) and `step` share every parameter.
    """

    def __init__(self, cfg: MDNRNNConfig) -> None:
        """Build M: Glorot input, orthogonal recurrent weights, forget bias 1 (global generator)."""
        super().__init__()
        self.cfg = cfg
        self.lstm = nn.LSTM(cfg.z_dim + cfg.action_size, cfg.hidden_size, batch_first=True)
        self.mixture = nn.Linear(cfg.hidden_size, 3 * cfg.z_dim * cfg.mixtures)
        self.reward = nn.Linear(cfg.hidden_size, 1)
        self.terminated = nn.Linear(cfg.hidden_size, 1)
        hidden = cfg.hidden_size
        weight_ih, weight_hh, bias, frozen_bias = self.lstm.all_weights[0]
        for block in weight_ih.data.chunk(4):
            nn.init.xavier_uniform_(block)
        for block in weight_hh.data.chunk(4):
            nn.init.orthogonal_(block)
        nn.init.zeros_(bias)
        bias.data[hidden : 2 * hidden] = 1.0
        nn.init.zeros_(frozen_bias).requires_grad_(False)

    def initial_state(self, batch: int) -> MemoryState:
        """Zeros, (batch, H) each."""
        zeros = self.mixture.weight.new_zeros(batch, self.cfg.hidden_size)
        return MemoryState(zeros, zeros.clone())

    def sample_mask(
        self, batch: int, generator: torch.Generator | None = None, dropout: float | None = None
    ) -> Tensor | None:
        """Dropout mask (batch, H) for whole sequences, scaled by 1/(1-p); None when p is 0.

        One mask per sequence (Gal and Ghahramani 2016, arXiv:1512.05287), so a masked M is one
        consistent world: the dream keeps a mask for a whole rollout.

        Args:
            batch: number of sequences.
            generator: on the CPU, so that every device draws the same mask.
            dropout: overrides the config's probability.
        """
        p = self.cfg.dropout if dropout is None else dropout
        if p <= 0:
            return None
        weight = self.mixture.weight
        shape = (batch, self.cfg.hidden_size)
        keep = torch.rand(shape, generator=generator) >= p
        return keep.to(weight) / (1 - p)

    def heads(self, h: Tensor) -> MemoryOutput:
        """Predictions from h (..., H), dropout already applied."""
        cfg = self.cfg
        raw = self.mixture(h).unflatten(-1, (3, cfg.z_dim, cfg.mixtures))
        logit, mu, raw_sigma = raw.unbind(-3)
        floor = torch.full((), math.log(cfg.sigma_floor), dtype=raw.dtype, device=raw.device)
        raw_sigma = raw_sigma.clamp_max(math.log(cfg.sigma_ceiling))
        return MemoryOutput(
            log_pi=functional.log_softmax(logit, dim=-1),
            mu=mu,
            log_sigma=torch.logaddexp(raw_sigma, floor),
            reward=self.reward(h).squeeze(-1),
            terminated_logit=self.terminated(h).squeeze(-1),
        )

    def forward(
        self,
        z: Tensor,
        action: Tensor,
        state: MemoryState | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, MemoryOutput, MemoryState]:
        """Run over a sequence.

        Args:
            z: (B, T, Z).
            action: (B, T, A) float.
            state: state before the first step; None is zeros.
            mask: (B, H) from `sample_mask`; None is no dropout.

        Returns:
            h_{1..T} (B, T, H) without dropout, the predictions (B, T, ...), the last state.
        """
        h_seq, last = self.recurrence(z, action, state, mask)
        out = self.heads(h_seq if mask is None else h_seq * mask.unsqueeze(1))
        return h_seq, self._from(z, out), last

    def recurrence(
        self,
        z: Tensor,
        action: Tensor,
        state: MemoryState | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, MemoryState]:
        """`forward` without the heads: h_{1..T} (B, T, H) and the last state."""
        assert z.shape[:2] == action.shape[:2], f"z {tuple(z.shape)}, action {tuple(action.shape)}"
        x = torch.cat((z, action.to(z.dtype)), dim=-1)
        state = self.initial_state(len(z)) if state is None else state
        if mask is None:
            h_seq, (h, c) = self._fused(x, (state.h.unsqueeze(0), state.c.unsqueeze(0)))
            return h_seq, MemoryState(h.squeeze(0), c.squeeze(0))
        weight_ih, weight_hh, bias, _ = self.lstm.all_weights[0]
        projected = functional.linear(x, weight_ih, bias)
        hs = []
        for gates in projected.unbind(1):
            recurrent = functional.linear(state.h * mask, weight_hh)
            state = lstm_cell(gates + recurrent, state.c)
            hs.append(state.h)
        return torch.stack(hs, dim=1), state

    def _fused(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run torch's LSTM; under autocast in its type, which torch leaves to the caller."""
        device = x.device.type
        if not torch.is_autocast_enabled(device):
            h_seq, last = self.lstm(x, state)
            return h_seq, last
        low = torch.get_autocast_dtype(device)
        weights = {name: weight.to(low) for name, weight in self.lstm.named_parameters()}
        inputs = (x.to(low), tuple(part.to(low) for part in state))
        h_seq, last = torch.func.functional_call(self.lstm, weights, inputs)
        return h_seq, tuple(part.to(x.dtype) for part in last)

    def step(
        self, z: Tensor, action: Tensor, state: MemoryState, mask: Tensor | None = None
    ) -> tuple[MemoryOutput, MemoryState]:
        """One step: z (B, Z), action (B, A), state (B, H) to predictions (B, ...), new state."""
        x = torch.cat((z, action.to(z.dtype)), dim=-1)
        weight_ih, weight_hh, bias, _ = self.lstm.all_weights[0]
        h = state.h if mask is None else state.h * mask
        gates = functional.linear(x, weight_ih, bias) + functional.linear(h, weight_hh)
        state = lstm_cell(gates, state.c)
        return self._from(z, self.heads(state.h if mask is None else state.h * mask)), state

    def _from(self, z: Tensor, out: MemoryOutput) -> MemoryOutput:
        """Count the means from z where the mixtures say changes."""
        return out._replace(mu=out.mu + z.unsqueeze(-1)) if self.cfg.residual else out
