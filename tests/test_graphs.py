"""Steps that a GPU replays mean the same as steps that Python asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.dream.conftest import make_memories, make_starts
from tests.dream.engines import make_act, make_engine, make_population
from tests.graphs import CpuGraph, graphs
from tests.memory.test_memory_train import SHAPE, system
from tests.test_threads import FRAMES, of_weights
from worldmodels._graphs import EAGER_CALLS, Replayed
from worldmodels.controller.linear import ControllerConfig, Controllers, num_parameters
from worldmodels.dream.starts import DreamStarts
from worldmodels.memory.interface import MemoryConfig
from worldmodels.memory.kinds import build
from worldmodels.memory.rewards import RewardKind
from worldmodels.memory.train import MemoryTrainConfig, fit_reward_model, train_memory
from worldmodels.memory.transformer import TransformerConfig
from worldmodels.protocols import Squash
from worldmodels.vision.train import VisionTrainConfig, train_vision
from worldmodels.vision.vae import VAEConfig

__all__ = ["graphs"]

STEPS = 12


def vision(standardized: bool, bfloat16: bool) -> list[Any]:
    def batches(start: int) -> Iterator[NDArray[np.uint8]]:
        while True:
            yield FRAMES[np.random.default_rng(start).integers(len(FRAMES), size=40)]
            start += 1

    lines: list[dict[str, Any]] = []
    cfg = VisionTrainConfig(steps=STEPS, batch_size=40, log_every=2, bfloat16=bfloat16)
    shape = VAEConfig(z_dim=4, width=8, standardized=standardized)
    model = train_vision(
        cfg, shape, batches, FRAMES[1:], FRAMES[:-1], seed=3, log=lambda **x: lines.append(x)
    )
    return of_weights(model, lines)


def memory(kind: RewardKind = "event", shape: MemoryConfig = SHAPE, **changes: Any) -> list[Any]:
    latents, lines = system(), list[dict[str, Any]]()
    cfg = MemoryTrainConfig(steps=STEPS, batch_size=24, sequence_length=3, log_every=2)
    cfg = dataclasses.replace(cfg, **changes)
    model = train_memory(
        cfg,
        dataclasses.replace(shape, reward=kind, dropout=0.1 if kind == "event" else 0.0),
        fit_reward_model(latents, kind),
        latents,
        seed=3,
        holdout=latents,
        log=lambda **x: lines.append(x),
    )
    return of_weights(model, lines)


TRAININGS: dict[str, Callable[[], list[Any]]] = {
    "V": lambda: vision(False, False),
    "V standardized bfloat16": lambda: vision(True, True),
    "M": memory,
    "M bfloat16": lambda: memory("count", bfloat16=True),
    "M exact": lambda: memory("two_hot", exact=True),
    "M transformer": lambda: memory(shape=TransformerConfig(2, 1, 16, 2)),
    "M raw": lambda: memory("raw", input_noise=1.0),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_replayed_is_the_training(
    name: str, graphs: type[CpuGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("worldmodels._graphs.EAGER_CALLS", STEPS)
        expected = TRAININGS[name]()
    assert graphs.made == 0
    found = TRAININGS[name]()
    assert graphs.made == (3 if name == "M exact" else 1)  # one for each `SequenceBatch.first`
    assert found == expected


def test_a_recording_is_of_the_kind_of_its_arguments(graphs: type[CpuGraph]) -> None:
    weight, seen = torch.zeros(()), []

    def work(x: Tensor, factor: int, y: Tensor | None) -> Tensor:
        seen.append(factor)
        weight.add_(x.sum())
        return factor * weight + (0 if y is None else y.sum())

    step = Replayed(work, torch.device("cpu"))
    total = 0.0
    for call in range(12):
        factor, size = 2 + call % 2, 1 + call % 3
        total += size * call
        y = torch.full((2,), float(call)) if call % 4 == 1 else None
        found = step(torch.full((size,), float(call)), factor, y)
        assert float(found) == factor * total + (2 * call if call % 4 == 1 else 0)
    assert graphs.made == 8  # of 9 calls, whose kinds come again after twelve
    assert len(seen) == EAGER_CALLS + 2 * graphs.made  # each was recorded twice, and undone


DREAMS: dict[str, dict[str, Any]] = {
    "one memory": {},
    "ends": {"termination": "sampled", "no_event_penalty": 1.0},
    "own noise": {"common_random_numbers": False, "discount": 0.9},
    "shares": {"members": 3, "dropout": 0.1, "ensemble": "per_rollout"},
    "per step": {"members": 2, "ensemble": "per_step", "disagreement_limit": 0.9},
    "bfloat16": {"dtype": "bfloat16", "reward": "sampled"},
}


@pytest.mark.parametrize("name", DREAMS)
def test_a_dream_replayed_is_the_dream(name: str, graphs: type[CpuGraph]) -> None:
    """Generations of two populations: recordings are used again."""
    changes = dict(DREAMS[name])
    memories = make_memories(changes.pop("members", 1))
    engine = make_engine(memories, horizon=70, episodes=4, **changes)
    made = []
    for seed in range(6):
        for count in (3, 1):
            population = make_population(seed, count)
            expected = engine.rollout(make_act, population, seed).returns
            found = engine.replayed(make_act, population, seed)
            # where dreams have ended, `rollout` goes on with fewer rows, which rounds differently
            np.testing.assert_allclose(found, expected, rtol=1e-6 if name == "ends" else 0)
        made.append(graphs.made)
    assert 0 < made[4] == made[5]


def test_a_transformer_s_dream_is_replayed(graphs: type[CpuGraph]) -> None:
    torch.manual_seed(0)
    memory = build(TransformerConfig(z_dim=8, action_size=3, hidden_size=32)).eval()
    z, h = make_starts().z, make_starts().h
    starts = DreamStarts(z, h, np.zeros((1, len(z), memory.carry_size), np.float32))
    engine = make_engine([memory], starts, horizon=200)
    arguments = make_act, make_population(), 0
    found = engine.replayed(*arguments)
    np.testing.assert_array_equal(found, engine.rollout(*arguments).returns)
    assert graphs.made == 1


@pytest.mark.parametrize("choices", [(), (2, 0, 1)])
def test_a_dream_of_choices_is_replayed(choices: tuple[int, ...], graphs: type[CpuGraph]) -> None:
    squash: tuple[Squash, ...] = ("thresholds",) if choices else ("argmax",) * 3
    shape = ControllerConfig("zh", 0, squash, choices=choices)
    engine = make_engine(horizon=200, episodes=2)
    population = np.random.default_rng(0).standard_normal((4, num_parameters(shape, 8, 32)))
    act = partial(Controllers, cfg=shape, z_dim=8, h_dim=32)
    arguments = act, population.astype(np.float32), 0
    found = engine.replayed(*arguments)
    np.testing.assert_array_equal(found, engine.rollout(*arguments).returns)
    assert graphs.made == 1


@pytest.mark.parametrize(
    "what", [lambda x: float(x.sum()), lambda x: x + torch.tensor(2.0), lambda x: x[x > 0]]
)
def test_what_cannot_be_recorded_is_computed(
    what: Callable[[Tensor], Any], graphs: type[CpuGraph], capsys: pytest.CaptureFixture[str]
) -> None:
    """It says so once, and goes on as on the first calls."""
    counted = torch.zeros(())

    def work(x: Tensor) -> Tensor:
        what(x)
        return counted.add_(1)

    step = Replayed(work, torch.device("cpu"))
    assert [float(step(torch.ones(2))) for _ in range(6)] == [1, 2, 3, 4, 5, 6]
    assert capsys.readouterr().err.count("no CUDA graph, so steps are slower: ") == 1
