"""Engines, populations and controllers of the tests of dreams."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodels.dream.config import DreamConfig
from worldmodels.dream.engine import DreamEngine
from worldmodels.dream.starts import DreamStarts
from worldmodels.dream.world import Act
from worldmodels.memory.interface import Memory
from worldmodels.memory.mdn_rnn import MDNRNN

from .conftest import REWARD, A, H, Z, make_memories, make_starts

P, E, T = 3, 4, 10
BASE = DreamConfig(
    horizon=T, episodes=E, termination="off", dtype="float32", backend="torch", threads=1
)
PARAMETERS = (Z + H) * A


def make_act(population: Tensor) -> Act:
    weight = population.view(len(population), Z + H, A)
    return lambda z, h: torch.tanh(torch.cat((z, h), -1) @ weight)


def make_population(seed: int = 0, count: int = P) -> NDArray[np.float32]:
    return 0.3 * np.random.default_rng(seed).standard_normal((count, PARAMETERS), np.float32)


def make_engine(
    memories: Sequence[Memory] | None = None, starts: DreamStarts | None = None, **changes: Any
) -> DreamEngine:
    memories = make_memories() if memories is None else memories
    starts = make_starts(len(memories)) if starts is None else starts
    return DreamEngine(memories, REWARD, starts, dataclasses.replace(BASE, **changes))


def set_termination(memory: MDNRNN, logit: float) -> None:
    with torch.no_grad():
        memory.terminated.weight.zero_()
        memory.terminated.bias.fill_(logit)
