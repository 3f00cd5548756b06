"""One seed gives one V, M and dream, whatever the number of threads, and parts keep their order."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.dream.conftest import make_memories
from tests.dream.engines import make_act, make_engine, make_population
from tests.memory.test_memory_train import SHAPE, system
from tests.vision.test_latents import SPEC, episode, make_model
from worldmodels._threads import CoreThreads, on_one_core, with_fastest_threads
from worldmodels._training import TrainingLoop
from worldmodels.memory.interface import MemoryConfig
from worldmodels.memory.train import MemoryTrainConfig, fit_reward_model, train_memory
from worldmodels.memory.transformer import TransformerConfig
from worldmodels.vision.latents import encode_episodes
from worldmodels.vision.train import VisionTrainConfig, train_vision
from worldmodels.vision.vae import VAEConfig

SHAPES = {
    "lstm": dataclasses.replace(SHAPE, dropout=0.0),
    "lstm with dropout": SHAPE,
    "transformer": TransformerConfig(SHAPE.z_dim, SHAPE.action_size, 16, 2),
}
FRAMES = np.random.default_rng(0).integers(0, 256, (300, 64, 64, 3), np.uint8)


def of_weights(model: torch.nn.Module, lines: list[dict[str, Any]]) -> list[Any]:
    """All numbers of a training but its speed."""
    weights = [value.numpy().tobytes() for value in model.state_dict().values()]
    return [*weights, *({k: v for k, v in e.items() if "per_second" not in k} for e in lines)]


def vision(standardized: bool) -> list[Any]:
    lines: list[dict[str, Any]] = []

    def batches(start: int) -> Iterator[NDArray[np.uint8]]:
        while True:
            yield FRAMES[np.random.default_rng(start).integers(len(FRAMES), size=50)]
            start += 1

    cfg = VisionTrainConfig(steps=2, batch_size=50, log_every=1)
    shape = VAEConfig(z_dim=4, standardized=standardized)
    model = train_vision(
        cfg, shape, batches, FRAMES[1:], FRAMES[:-1], seed=3, log=lambda **x: lines.append(x)
    )
    return of_weights(model, lines)


def memory(bfloat16: bool, shape: MemoryConfig) -> list[Any]:
    latents, lines = system(), list[dict[str, Any]]()
    cfg = MemoryTrainConfig(
        steps=12, batch_size=48, sequence_length=16, log_every=1, bfloat16=bfloat16
    )
    reward = fit_reward_model(latents, "event")
    model = train_memory(
        cfg, shape, reward, latents, seed=3, holdout=latents, log=lambda **x: lines.append(x)
    )
    return of_weights(model, lines)


def encoding() -> list[Any]:
    episodes = [episode(seed, steps) for seed, steps in enumerate((300, 500, 40))]
    latents = encode_episodes(make_model(), episodes, SPEC)
    return [latents.mu.tobytes(), latents.logvar.tobytes()]


def dream(members: int) -> list[Any]:
    mode = "per_rollout" if members > 1 else "first"
    engine = make_engine(make_memories(members), episodes=30, ensemble=mode, dropout=0.1)
    return [engine.rollout(make_act, make_population(count=20), 3).returns.tobytes()]


WORK: dict[str, Callable[[], list[Any]]] = {
    "V": lambda: vision(False),
    "V standardized": lambda: vision(True),
    "encoding": encoding,
    **{f"M {name}": partial(memory, False, shape) for name, shape in SHAPES.items()},
    **{f"M {name} bfloat16": partial(memory, True, shape) for name, shape in SHAPES.items()},
    **{f"dream {members}": partial(dream, members) for members in (1, 2, 3)},
}


@pytest.mark.parametrize("name", WORK)
def test_threads_change_nothing(name: str) -> None:
    assert_independent_of_threads(WORK[name])


def assert_independent_of_threads(work: Callable[[], list[Any]]) -> None:
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            found.append(work())
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
    assert found[0] == found[1] == found[2]


class Turned(torch.nn.Module):
    """Its weight's gradient comes with rows and columns exchanged in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3, 5))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = (x[:, None] * self.weight.t().clone()).sum((1, 2))
        return out


def test_a_gradient_has_its_weights_layout() -> None:
    loop = TrainingLoop("M", "noise", Turned, MemoryTrainConfig(steps=1), {"seed": 0})
    x = torch.arange(12.0).view(4, 3)

    def sums(rows: slice) -> tuple[Tensor, None]:
        return loop.computing(x[rows]).sum()[None], None

    def loss(total: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return total[0] ** 2, {}

    with loop.threads:
        loop.gradients(sums, loss, rows=4, least=1)
    weight, gradient = loop.model.weight, loop.model.weight.grad
    assert gradient is not None and gradient.stride() == weight.stride()
    wanted = (2 * 5 * x.sum() * x.sum(0))[:, None].expand(3, 5)
    torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize("count", [1, 2])
def test_results_come_in_the_items_order_and_few_items_wait(count: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(20):
            taken.append(item)
            yield item

    def work(item: int) -> tuple[int, int]:
        time.sleep(0.002 * (item % 3))
        return item, torch.get_num_threads()

    with CoreThreads(count) as threads:
        results = threads.map(work, items())
        assert next(results) == (0, 1)
        assert len(taken) <= 2 * count + 1
        assert list(results) == [(item, 1) for item in range(1, 20)]


def test_an_error_in_a_part_leaves_the_block() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), CoreThreads(2) as threads:
        list(threads.map(lambda x: 1 // x, [1, 0, 1]))
    assert torch.get_num_threads() == before


class Clock:
    """Seconds that a step takes with each number of threads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.seconds = 0.0, {2: 1.0, 1: 1.5}
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def step(self) -> int:
        count = torch.get_num_threads()
        self.now += self.seconds[count]
        return count


def test_one_thread_takes_over_where_two_wait_for_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, before = Clock(monkeypatch), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        steps, used = with_fastest_threads(range(600)), []
        for step in steps:
            if step == 200:
                clock.seconds[2] = 30.0  # something else begins
            if step == 400:
                clock.seconds[2] = 1.0
            used.append(clock.step())
        assert torch.get_num_threads() == 2
        assert used[:9] == [2, 2, 2, 1, 1, 1, 2, 2, 2]
        assert used[:200].count(1) < 40
        assert used[230:400].count(2) < 40
        assert used[430:].count(1) < 40
    finally:
        torch.set_num_threads(before)


def test_a_small_training_uses_one_thread() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert on_one_core(torch.get_num_threads)() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
