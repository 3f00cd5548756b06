"""M: the paper's MDN-RNN (appendix A.2), with heads for the reward and the end of an episode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldmodels.memory.interface import Memory, MemoryConfig, MemoryOutput, MemoryState


@dataclass(frozen=True)
class MDNRNNConfig(MemoryConfig):
    """Shape of the MDN-RNN; dropout also masks the h that the LSTM reads."""


def lstm_cell(gates: Tensor, c: Tensor) -> MemoryState:
    """One LSTM update from the summed gate inputs (B, 4H), ordered input, forget, cell, output."""
    i, f, g, o = gates.chunk(4, dim=-1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return MemoryState(torch.sigmoid(o) * torch.tanh(c), c)


class MDNRNN(Memory):
    """LSTM + mixture density network; 422,368 trainable parameters at the paper's sizes.

    The two heads beyond the paper's add 2 (H + 1). The LSTM has one bias as in the paper: torch's
    second one is frozen at 0. The carried state is the LSTM's c.
    """

    has_cell: ClassVar[bool] = True

    def __init__(self, cfg: MemoryConfig) -> None:
        """Build M: Glorot input, orthogonal recurrent weights, forget bias 1 (global generator)."""
        super().__init__(cfg)
        self.lstm = nn.LSTM(cfg.z_dim + cfg.action_size, cfg.hidden_size, batch_first=True)
        self._build_heads()
        hidden = cfg.hidden_size
        weight_ih, weight_hh, bias, frozen_bias = self.lstm.all_weights[0]
        for block in weight_ih.data.chunk(4):
            nn.init.xavier_uniform_(block)
        for block in weight_hh.data.chunk(4):
            nn.init.orthogonal_(block)
        nn.init.zeros_(bias)
        bias.data[hidden : 2 * hidden] = 1.0
        nn.init.zeros_(frozen_bias).requires_grad_(False)

    @property
    def carry_size(self) -> int:
        """H."""
        return self.cfg.hidden_size

    def recurrence(
        self, z: Tensor, action: Tensor, state: MemoryState, mask: Tensor | None
    ) -> tuple[Tensor, MemoryState]:
        """See `Memory.recurrence`."""
        x = torch.cat((z, action.to(z.dtype)), dim=-1)
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
        """Run torch's LSTM; under autocast in its type, which torch leaves to the caller.

        The module itself stays as it is: other threads compute with it.
        """
        device = x.device.type
        if not torch.is_autocast_enabled(device):
            h_seq, last = self.lstm(x, state)
            return h_seq, last
        low = torch.get_autocast_dtype(device)
        weights = [weight.to(low) for weight in self.lstm.all_weights[0]]
        h_0, c_0 = (part.to(low) for part in state)
        own = self.lstm.training
        h_seq, *last = torch.lstm(
            x.to(low), (h_0, c_0), weights, True, 1, 0.0, own, False, batch_first=True
        )
        return h_seq, tuple(part.to(x.dtype) for part in last)

    def advance(self, z: Tensor, action: Tensor, state: MemoryState) -> MemoryState:
        """See `Memory.advance`."""
        return self._cell(z, action, state, None)

    def step(
        self, z: Tensor, action: Tensor, state: MemoryState, mask: Tensor | None = None
    ) -> tuple[MemoryOutput, MemoryState]:
        """See `Memory.step`."""
        state = self._cell(z, action, state, mask)
        return self.predict(z, state.h, mask), state

    def _cell(
        self, z: Tensor, action: Tensor, state: MemoryState, mask: Tensor | None
    ) -> MemoryState:
        """One step; several times as fast as a sequence of one."""
        x = torch.cat((z, action.to(z.dtype)), dim=-1)
        weight_ih, weight_hh, bias, _ = self.lstm.all_weights[0]
        h = state.h if mask is None else state.h * mask
        gates = functional.linear(x, weight_ih, bias) + functional.linear(h, weight_hh)
        return lstm_cell(gates, state.c)
