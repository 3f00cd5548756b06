"""A second M: a causal transformer over the last decisions, with the MDN-RNN's heads.

A step's token is its latent and its action. Pre-norm blocks (Xiong et al. 2020, arXiv:2002.04745)
attend to the last ``context`` steps. The only positional encoding is a learnt bias per head and
distance (as in T5, arXiv:1910.10683). The carried state holds the keys and values of the
``context - 1`` steps before, and whether each of them exists.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from worldmodels.config import AtLeast, Few, Limit
from worldmodels.memory.interface import Memory, MemoryConfig, MemoryState

PIECE = 256
"""Steps attended to at once; a longer sequence is processed in pieces to bound memory."""


@dataclass(frozen=True)
class TransformerConfig(MemoryConfig):
    """Shape of the transformer; dropout is applied where the heads read h."""

    kind: Literal["transformer"] = "transformer"
    """the kind of M in JSON"""
    context: Annotated[int, AtLeast(2), Limit(4096)] = 32
    """steps that a layer sees, including the current one"""
    layers: Few = 2
    """number of blocks"""
    attention_heads: Few = 4
    """attention heads of each block; a divisor of hidden_size"""

    def _check(self) -> None:
        super()._check()
        if self.hidden_size % self.attention_heads:
            self.refuse("hidden_size", f"a multiple of {self.attention_heads}")


class Transformer(Memory):
    """Causal transformer + mixture density network."""

    cfg: TransformerConfig

    def __init__(self, cfg: TransformerConfig) -> None:
        """Build M with torch's initial weights (global generator); distances begin equal."""
        super().__init__(cfg)
        self.embed = nn.Linear(cfg.z_dim + cfg.action_size, cfg.hidden_size)
        self.blocks = nn.ModuleList(_Block(cfg) for _ in range(cfg.layers))
        self.norm = nn.LayerNorm(cfg.hidden_size)
        self._build_heads()

    @property
    def carry_size(self) -> int:
        """For each of the steps before: 1 if it exists, then each layer's key and value."""
        return (self.cfg.context - 1) * (1 + 2 * self.cfg.layers * self.cfg.hidden_size)

    def recurrence(
        self, z: Tensor, action: Tensor, state: MemoryState, mask: Tensor | None
    ) -> tuple[Tensor, MemoryState]:
        """See `Memory.recurrence`; the mask affects the heads only."""
        x, seen = torch.cat((z, action.to(z.dtype)), dim=-1), []
        for piece in x.split(PIECE, dim=1):
            h, carried = self._attend(piece, state.c)
            state = MemoryState(h[:, -1].to(z.dtype), carried)
            seen.append(h)
        return torch.cat(seen, dim=1), state

    def _attend(self, x: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
        """Steps (B, T, Z + A) after the carried state (B, C): h (B, T, H) and the new one."""
        before, steps = self.cfg.context - 1, x.shape[1]
        past = carried.unflatten(1, (before, -1))
        kept = past[..., 1:].unflatten(-1, (self.cfg.layers, 2, -1)).unbind(2)
        present = torch.ones_like(past[:, :1, :1]).expand(-1, steps, 1)

        # (T, S) steps from a key back to a query, and (B, T, S) which keys a query sees
        place = torch.arange(before + steps, device=x.device)
        distance = place[before:, None] - place
        near = (distance >= 0) & (distance <= before)
        exists = torch.cat((past[..., :1], present), dim=1).squeeze(-1) > 0.5
        visible = near & exists.unsqueeze(1)

        x, fresh = self.embed(x), []
        for block, old in zip(self.blocks, kept, strict=True):
            x, new = block(x, old, distance.clamp(0, before), visible)
            fresh.append(new)
        entry = torch.cat((present, torch.stack(fresh, dim=2).flatten(2).to(past.dtype)), dim=-1)
        carried = torch.cat((past[:, steps:], entry[:, -before:]), dim=1).flatten(1)
        return torch.tanh(self.norm(x)), carried


class _Block(nn.Module):
    """Attention, then a network of one hidden layer, each added to what comes in."""

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__()
        width = cfg.hidden_size
        self.heads = cfg.attention_heads
        self.attention_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.distance_bias = nn.Parameter(torch.zeros(cfg.attention_heads, cfg.context))
        self.project = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(
        self, x: Tensor, past: Tensor, distance: Tensor, visible: Tensor
    ) -> tuple[Tensor, Tensor]:
        """From x (B, T, H) to (B, T, H) and the keys and values of these steps (B, T, 2, H).

        ``past`` (B, P, 2, H) are those of the steps before; ``distance`` (T, P + T) is from each
        key to each query, and ``visible`` (B, T, P + T) says which keys each query sees.
        """
        seen = self.attention_norm(x)
        new = self.key_value(seen).unflatten(-1, (2, -1))
        old = past.to(new.dtype)
        # the carried keys and values are large: they are read in place, not concatenated
        q, old_k, old_v, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(seen), *old.unbind(2), *new.unbind(2))
        )
        score = torch.cat([q @ keys.transpose(-1, -2) for keys in (old_k, k)], dim=-1)
        score = score / math.sqrt(q.shape[-1]) + self.distance_bias[:, distance]
        weight = score.masked_fill(~visible.unsqueeze(1), -torch.inf).softmax(-1).to(v.dtype)
        old_weight, weight = weight.split((old.shape[1], new.shape[1]), dim=-1)
        read = old_weight @ old_v + weight @ v
        x = x + self.project(read.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm(x)), new
