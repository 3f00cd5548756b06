"""The interface of every M.

Time runs as ``(z_t, a_t, state_t) -> state_{t+1}``; from its features h_{t+1} the heads predict
z_{t+1}, the reward r_t and whether a_t ended the episode. The controller sees ``[z_t, h_t]``. A new
M is a subclass of `Memory` with a `recurrence` and a `carry_size`, and a line in `kinds`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldmodels.config import Config, Decay, Few, Positive, Size
from worldmodels.memory.mixture import mixture_from_noise
from worldmodels.memory.rewards import BINS, RewardKind
from worldmodels.protocols import UserError


@dataclass(frozen=True)
class MemoryConfig(Config):
    """Shape of M, for every kind."""

    z_dim: Size = 32
    """size of V's latent z"""
    action_size: Size = 3
    """width of the action input (the number of actions if they are discrete)"""
    hidden_size: Size = 256
    """width of the features h"""
    mixtures: Few = 5
    """Gaussian components per latent dimension"""
    sigma_floor: Positive = 0.01
    """smallest standard deviation of a component, added to exp(output)"""
    sigma_ceiling: Positive = 1.0
    """largest value of exp(output), since the std of a component without weight grows freely"""
    dropout: Decay = 0.0
    """fraction of h dropped where M itself reads it; one mask per sequence"""
    residual: bool = False
    """predict the change of z in place of the next z (the paper's)"""
    reward: RewardKind = "event"
    """meaning of the reward head's output: the logit of an event, the rate of events before a
    softplus, a scaled reward, or logits of the reward's bins"""

    def _check(self) -> None:
        if not self.sigma_floor < self.sigma_ceiling:
            self.refuse("sigma_ceiling", f"above sigma_floor ({self.sigma_floor})")


class MemoryState(NamedTuple):
    """M's state; zeros at the start of an episode."""

    h: Tensor
    """(B, H) the features, in [-1, 1] and without dropout: what the controller sees"""
    c: Tensor
    """(B, C) the rest of the state, opaque to others"""

    def kept(self, rows: Tensor) -> MemoryState:
        """Reset to the initial state where ``rows`` (B, 1) is 0 or False."""
        return MemoryState(self.h * rows, self.c * rows)

    def seen(self, carry: bool) -> Tensor:
        """What a policy sees: h (B, H), or [h, c] (B, H + C) with the ``carry``."""
        return torch.cat((self.h, self.c), dim=-1) if carry else self.h


class MemoryOutput(NamedTuple):
    """Predictions from h_{t+1}."""

    log_pi: Tensor
    """(B, [T,] Z, K), normalised over K"""
    mu: Tensor
    """(B, [T,] Z, K)"""
    log_sigma: Tensor
    """(B, [T,] Z, K), at least log(sigma_floor)"""
    reward: Tensor
    """(B, [T]) output of the reward head, or (B, [T,] bins) of kind two_hot; `RewardModel` gives it
    its meaning"""
    terminated_logit: Tensor
    """(B, [T]) logit of the episode ending at this step"""

    def sample(self, uniform: Tensor, normal: Tensor, tau: float = 1.0) -> Tensor:
        """z_{t+1} (B, [T,] Z) by `mixture_from_noise`."""
        return mixture_from_noise(self.log_pi, self.mu, self.log_sigma, uniform, normal, tau)


class Memory(nn.Module, ABC):
    """An M: a causal model of sequences, with a mixture, a reward and a termination head."""

    cfg: MemoryConfig
    has_cell: ClassVar[bool] = False
    """whether the carried state is one vector (B, H) that a policy can use, as an LSTM's c is"""

    def __init__(self, cfg: MemoryConfig) -> None:
        """Keep the config; a subclass builds its layers, then calls `_build_heads`."""
        super().__init__()
        self.cfg = cfg

    def _build_heads(self) -> None:
        cfg = self.cfg
        self.mixture = nn.Linear(cfg.hidden_size, 3 * cfg.z_dim * cfg.mixtures)
        two_hot = cfg.reward == "two_hot"
        self.reward = nn.Linear(cfg.hidden_size, BINS if two_hot else 1)
        if two_hot:
            nn.init.zeros_(self.reward.weight)
            nn.init.zeros_(self.reward.bias)
        self.terminated = nn.Linear(cfg.hidden_size, 1)

    @property
    @abstractmethod
    def carry_size(self) -> int:
        """C, numbers in a row of `MemoryState.c`."""

    def seen_size(self, carry: bool) -> int:
        """Width of `MemoryState.seen`; `UserError` where a policy could not use the carry."""
        if carry and not self.has_cell:
            raise UserError(
                f"controller.inputs is 'zhc', but a {type(self).__name__} has no cell c to see; "
                "choose 'zh', or memory.kind lstm"
            )
        return self.cfg.hidden_size + (self.carry_size if carry else 0)

    @abstractmethod
    def recurrence(
        self, z: Tensor, action: Tensor, state: MemoryState, mask: Tensor | None
    ) -> tuple[Tensor, MemoryState]:
        """`forward` without the heads: h_{1..T} (B, T, H) and the last state."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.mixture.weight.device

    def initial_state(self, batch: int) -> MemoryState:
        """Zeros, (batch, H) and (batch, C)."""
        zeros = self.mixture.weight.new_zeros
        return MemoryState(zeros(batch, self.cfg.hidden_size), zeros(batch, self.carry_size))

    def sample_mask(self, batch: int, generator: torch.Generator) -> Tensor | None:
        """Dropout mask (batch, H) for whole sequences, scaled by 1/(1-p); None when p is 0.

        One mask per sequence (Gal and Ghahramani 2016, arXiv:1512.05287), so a masked M is one
        consistent world. The generator is on the CPU, so that every device draws the same mask.
        """
        p = self.cfg.dropout
        if p <= 0:
            return None
        keep = torch.rand((batch, self.cfg.hidden_size), generator=generator) >= p
        return keep.to(self.mixture.weight) / (1 - p)

    def predict(self, z: Tensor, h: Tensor, mask: Tensor | None) -> MemoryOutput:
        """Predictions from z (..., Z) and the features h (..., H) of the state that follows it.

        h is without dropout; the mask is broadcast over it, and None is no dropout.
        """
        cfg, h = self.cfg, h if mask is None else h * mask
        # computed as (..., K, Z): passes over Z numbers are fast, over K of them they are not
        weight, bias = (
            part.unflatten(0, (3, cfg.z_dim, cfg.mixtures)).transpose(1, 2).flatten(0, 2)
            for part in (self.mixture.weight, self.mixture.bias)
        )
        raw = functional.linear(h, weight, bias).unflatten(-1, (3, cfg.mixtures, cfg.z_dim))
        logit, mu, raw_sigma = raw.unbind(-3)
        floor = torch.full((), math.log(cfg.sigma_floor), dtype=raw.dtype, device=raw.device)
        raw_sigma = raw_sigma.clamp_max(math.log(cfg.sigma_ceiling))
        return MemoryOutput(
            log_pi=functional.log_softmax(logit, dim=-2).transpose(-1, -2),
            mu=(mu + z.unsqueeze(-2) if cfg.residual else mu).transpose(-1, -2),
            log_sigma=torch.logaddexp(raw_sigma, floor).transpose(-1, -2),
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
        """Run over a sequence z (B, T, Z), action (B, T, A) float, from a state or the initial one.

        The mask (B, H) is of `sample_mask`, and None is no dropout. Returns h_{1..T} (B, T, H)
        without dropout, the predictions (B, T, ...) and the last state.
        """
        assert z.shape[:2] == action.shape[:2], f"z {tuple(z.shape)}, action {tuple(action.shape)}"
        state = self.initial_state(len(z)) if state is None else state
        h_seq, last = self.recurrence(z, action, state, mask)
        return h_seq, self.predict(z, h_seq, None if mask is None else mask.unsqueeze(1)), last

    def advance(self, z: Tensor, action: Tensor, state: MemoryState) -> MemoryState:
        """The state after one step z (B, Z), action (B, A): `step` without predictions."""
        return self.recurrence(z.unsqueeze(1), action.unsqueeze(1), state, None)[1]

    def step(
        self, z: Tensor, action: Tensor, state: MemoryState, mask: Tensor | None = None
    ) -> tuple[MemoryOutput, MemoryState]:
        """One step: z (B, Z), action (B, A), state to predictions (B, ...), new state."""
        h_seq, state = self.recurrence(z.unsqueeze(1), action.unsqueeze(1), state, mask)
        return self.predict(z, h_seq.squeeze(1), mask), state

    def dream(
        self,
        z: Tensor,
        action: Tensor,
        state: MemoryState,
        noise: tuple[Tensor, Tensor],
        tau: float = 1.0,
    ) -> tuple[Tensor, MemoryOutput, MemoryState]:
        """One step of a dream: z (B, Z), action (B, A), noise from `mixture_noise`, temperature.

        Returns the sampled z (B, Z), what it was sampled from (B, ...) and the new state.
        """
        output, state = self.step(z, action, state)
        return output.sample(*noise, tau), output, state
