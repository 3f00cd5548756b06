"""The kinds of M that a configuration can name."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from worldmodels._from_json import Family
from worldmodels.memory.interface import Memory, MemoryConfig
from worldmodels.memory.mdn_rnn import MDNRNN, MDNRNNConfig
from worldmodels.memory.transformer import Transformer, TransformerConfig

Kind: TypeAlias = Literal["lstm", "transformer"]

KINDS: dict[Kind, tuple[type[MemoryConfig], type[Memory]]] = {
    "lstm": (MDNRNNConfig, MDNRNN),
    "transformer": (TransformerConfig, Transformer),
}
"""Name on the command line and in JSON -> class of the config and of the network."""

FAMILY = Family({kind: cfg for kind, (cfg, _) in KINDS.items()}, default="lstm")
"""Configs in JSON; the LSTM's has no entry "kind"."""

AnyMemoryConfig: TypeAlias = Annotated[MemoryConfig, FAMILY]
"""Field of a configuration that holds one of any kind."""


def build(cfg: MemoryConfig) -> Memory:
    """M with fresh weights (global generator)."""
    return dict(KINDS.values())[type(cfg)](cfg)
