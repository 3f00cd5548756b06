"""Several memories in one dream."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from worldmodels.dream.config import DreamConfig
from worldmodels.dream.starts import DreamStarts
from worldmodels.dream.world import DreamNoise
from worldmodels.memory.interface import MemoryState
from worldmodels.memory.mixture import mixture_mean
from worldmodels.protocols import UserError

from .conftest import A, H, Z, make_memories, make_starts
from .engines import PARAMETERS, make_act, make_engine, make_population


def test_per_rollout_gives_every_memory_its_dreams() -> None:
    memories, starts = make_memories(2), make_starts(2)
    both = make_engine(memories, starts).rollout(make_act, make_population(), 7).returns
    first = make_engine(memories, starts, ensemble="first").rollout(make_act, make_population(), 7)
    np.testing.assert_allclose(both[:, ::2], first.returns[:, ::2], atol=1e-5)
    assert (np.abs(both[:, 1::2] - first.returns[:, 1::2]) > 1e-4).all()


@pytest.mark.parametrize("mode", ["per_rollout", "per_step"])
def test_copies_of_one_memory_dream_as_it_does(mode: str) -> None:
    memory, starts = make_memories()[0], make_starts()
    copies = [memory, copy.deepcopy(memory), copy.deepcopy(memory)]
    tripled = DreamStarts(starts.z, np.repeat(starts.h, 3, 0), np.repeat(starts.c, 3, 0))
    penalty = {"disagreement_penalty": 9.0} if mode == "per_step" else {}
    engine = make_engine(copies, tripled, ensemble=mode, **penalty)
    many = engine.rollout(make_act, make_population(), 7)
    alone = make_engine([memory], starts).rollout(make_act, make_population(), 7)
    np.testing.assert_allclose(many.returns, alone.returns, atol=1e-5)


@torch.no_grad()
def test_disagreement_is_the_deviation_of_the_means() -> None:
    memories, starts = make_memories(3), make_starts(3)
    options: dict[str, Any] = {"ensemble": "per_step", "horizon": 1, "episodes": 1}
    population = np.zeros((1, PARAMETERS), np.float32)
    free, paid = (
        make_engine(memories, starts, **options, disagreement_penalty=penalty).rollout(
            make_act, population, 2
        )
        for penalty in (0.0, 1.0)
    )
    index, _ = DreamNoise(2, [(0, -1)], Z).begin(len(starts), (3, H), 0.0)
    means = []
    for m, memory in enumerate(memories):
        state = MemoryState(*(torch.from_numpy(x[m][index]) for x in (starts.h, starts.c)))
        output, _ = memory.step(torch.from_numpy(starts.z[index]), torch.zeros(1, A), state)
        means.append(mixture_mean(output.log_pi, output.mu).numpy())
    expected = np.sqrt(np.var(means, axis=0).mean())
    assert free.returns[0, 0] - paid.returns[0, 0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("backend", ["torch", "kernels"])
def test_disagreement_costs_reward_and_ends_dreams(backend: str) -> None:
    memories, population = make_memories(3), make_population()
    options: dict[str, Any] = {"ensemble": "per_step", "backend": backend}
    free, paid, dear = (
        make_engine(memories, **options, disagreement_penalty=penalty)
        .rollout(make_act, population, 2)
        .returns
        for penalty in (0.0, 1.0, 2.0)
    )
    assert (free > paid).all()
    np.testing.assert_allclose(free - dear, 2 * (free - paid), atol=1e-3)
    ended = make_engine(memories, **options, disagreement_limit=1e-6).rollout(
        make_act, population, 2
    )
    assert (ended.lengths == 1).all() and ended.terminated.all()


def test_disagreement_options_need_per_step() -> None:
    with pytest.raises(UserError, match="per_step"):
        DreamConfig(disagreement_penalty=1.0)
