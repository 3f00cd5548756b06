"""The engine: against an explicit loop, kernels against torch, random numbers, ends, ensembles."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodels import executors
from worldmodels.controller.evolve import EvolveConfig, evolve
from worldmodels.controller.linear import ControllerConfig, Controllers, num_parameters
from worldmodels.controller.strategies import StrategyConfig
from worldmodels.dream import chunks
from worldmodels.dream.engine import DreamEngine, DreamReturns
from worldmodels.dream.kernels import KernelWorld
from worldmodels.dream.starts import DreamStarts
from worldmodels.dream.world import Act, DreamNoise, MakeAct, World
from worldmodels.envs.spaces import ActionSpec
from worldmodels.memory.interface import MemoryState
from worldmodels.memory.mdn_rnn import MDNRNN
from worldmodels.memory.mixture import mixture_from_noise
from worldmodels.memory.rewards import RewardModel
from worldmodels.protocols import UserError

from .conftest import REWARD, A, H, Z, make_memories, make_starts
from .engines import BASE, E, P, T, make_act, make_engine, make_population, set_termination


@torch.no_grad()
def dream_by_hand(
    memory: MDNRNN, starts: DreamStarts, parameters: NDArray[np.float32], episode: int, cfg: Any
) -> list[NDArray[np.float32]]:
    """z (T, Z), actions (T, A) and rewards (T,) of one dream."""
    noise = DreamNoise(5, [(episode, -1)], Z)
    index, mask = noise.begin(len(starts), (1, H), cfg.dropout)
    kept = None if mask is None else torch.from_numpy(mask[0])
    z = torch.from_numpy(starts.z[index])
    state = MemoryState(*(torch.from_numpy(x[0][index]) for x in (starts.h, starts.c)))
    act = make_act(torch.from_numpy(parameters[None]))
    seen = []
    for _ in range(cfg.horizon):
        before, action = z, act(z[None], state.h[None])[0]
        output, state = memory.step(z, action, state, kept)
        uniform, normal = (torch.from_numpy(x.copy()) for x in noise.step())
        z = mixture_from_noise(*output[:3], uniform[:, :Z], normal, cfg.temperature)
        reward = REWARD.base + REWARD.event_value * torch.sigmoid(output.reward)
        seen.append((before, action, reward))
    return [torch.cat(parts).numpy() for parts in zip(*seen, strict=True)]


@pytest.mark.parametrize("backend", ["torch", "kernels"])
def test_a_controller_sees_the_first_memorys_c(backend: Literal["torch", "kernels"]) -> None:
    memories, starts = make_memories(2), make_starts(2)
    options: dict[str, Any] = {"backend": backend, "ensemble": "per_step"}
    cfg = dataclasses.replace(BASE, **options)
    engine = DreamEngine(memories, REWARD, starts, cfg, carry=True)
    seen: list[tuple[Tensor, Tensor]] = []

    def make(population: Tensor) -> Act:
        act = make_act(population)

        def noting(z: Tensor, h: Tensor) -> Tensor:
            seen.append((z.clone(), h.clone()))
            return act(z, h[..., :H])

        return noting

    result = engine.rollout(make, make_population(count=1), seed=5, record=True)
    plain = DreamEngine(memories, REWARD, starts, cfg).rollout(
        make_act, make_population(count=1), 5
    )
    np.testing.assert_array_equal(result.returns, plain.returns)
    assert result.actions is not None
    h, c = seen[0][1][0].split(H, -1)
    state = MemoryState(h, c)
    with torch.no_grad():
        for t in range(T - 1):
            action = torch.from_numpy(result.actions[0, :, t])
            state = memories[0].advance(seen[t][0][0], action, state)
            wide = torch.cat((state.h, state.c), -1)
            np.testing.assert_allclose(seen[t + 1][1][0], wide, atol=1e-4)


def test_thresholds_evolve_in_the_dream() -> None:
    """Generations of CMA-ES raise the return of a dream in which one of three choices pays."""
    (memory,) = make_memories(action_size=3)
    with torch.no_grad():
        memory.lstm.all_weights[0][0][2 * H : 3 * H, Z + 2] = 3.0  # the last choice fills the cell
        memory.reward.weight.fill_(0.2)
    shape = ControllerConfig.for_action_space(
        ActionSpec("discrete", 3), inputs="zhc", discrete="thresholds", order=(1, 0, 2)
    )
    engine = DreamEngine([memory], REWARD, make_starts(), BASE, carry=True)
    returns = DreamReturns(engine, partial(Controllers, cfg=shape, z_dim=Z, h_dim=H))
    cfg = EvolveConfig(StrategyConfig(population=8), generations=8)
    found = evolve(returns, cfg, 0, np.zeros(num_parameters(shape, Z, H)))
    before, after = returns(np.stack([0 * found.parameters, found.parameters]), seed=1)
    assert after > before + 5


def watched(seen: list[Tensor]) -> MakeAct:
    """`make_act`, which notes every z (P, E, Z) that it sees; for dreams in one chunk."""

    def make(population: Tensor) -> Act:
        act = make_act(population)

        def noting(z: Tensor, h: Tensor) -> Tensor:
            seen.append(z.clone())
            return act(z, h)

        return noting

    return make


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_rollout_equals_a_loop_over_step(dropout: float) -> None:
    memories, starts, population = make_memories(), make_starts(), make_population()
    options: dict[str, Any] = {"dropout": dropout, "temperature": 1.2, "discount": 0.9}
    seen: list[Tensor] = []
    engine = make_engine(memories, starts, **options)
    result = engine.rollout(watched(seen), population, seed=5, record=True)
    assert result.actions is not None and (result.lengths == T).all()
    returns = [  # of the first t + 1 steps
        make_engine(memories, starts, **options, horizon=t + 1).rollout(make_act, population, 5)
        for t in range(T)
    ]
    for p in range(P):
        for e in range(E):
            z, action, reward = dream_by_hand(memories[0], starts, population[p], e, engine.cfg)
            np.testing.assert_allclose(torch.stack(seen, 2)[p, e], z, atol=1e-4)
            np.testing.assert_allclose(result.actions[p, e], action, atol=1e-4)
            found = [each.returns[p, e] for each in returns]
            expected = np.cumsum(reward * 0.9 ** np.arange(T))
            np.testing.assert_allclose(found, expected, atol=1e-3)
            assert result.returns[p, e] == found[-1]


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(
    ("members", "changes"),
    [
        (1, {}),
        (1, {"temperature": 0.0}),
        (1, {"dropout": 0.3, "reward": "sampled", "termination": "sampled"}),
        (1, {"common_random_numbers": False, "chunk_rows": 5}),
        (3, {"ensemble": "per_rollout", "dropout": 0.2}),
        (3, {"ensemble": "per_step", "disagreement_penalty": 0.5}),
        (3, {"ensemble": "first"}),
    ],
)
def test_kernels_dream_as_torch_does(members: int, changes: dict[str, Any], residual: bool) -> None:
    changes = changes | {"horizon": 8} if residual else changes  # changes of z add up
    memories, population = make_memories(members, residual=residual), make_population()
    torch_result, kernel_result = (
        make_engine(memories, backend=backend, **changes).rollout(make_act, population, 1)
        for backend in ("torch", "kernels")
    )
    np.testing.assert_allclose(kernel_result.returns, torch_result.returns, atol=2e-4)
    assert np.array_equal(kernel_result.lengths, torch_result.lengths)
    assert np.array_equal(kernel_result.terminated, torch_result.terminated)


@pytest.mark.parametrize("backend", ["torch", "kernels"])
def test_bfloat16_stays_near_float32(backend: str) -> None:
    population = make_population()
    exact, rough = list[Tensor](), list[Tensor]()
    for dtype, seen in (("float32", exact), ("bfloat16", rough)):
        engine = make_engine(dtype=dtype, backend=backend, horizon=4)
        engine.rollout(watched(seen), population, 1)
    # A component chosen otherwise moves z by a whole step: rare, so judge by the median.
    error = (torch.stack(rough[1:]) - torch.stack(exact[1:])).abs().numpy()
    assert np.median(error) < 0.02 and np.quantile(error, 0.9) < 0.1


def test_bfloat16_has_the_same_mean_return() -> None:
    population = make_population(count=1)
    exact, rough = (
        make_engine(
            dtype=dtype, backend="kernels", horizon=20, chunk_rows=256, episodes=600
        ).rollout(make_act, population, 1)
        for dtype in ("float32", "bfloat16")
    )
    error = (exact.returns - rough.returns).mean()
    assert abs(error) < 0.05 * exact.returns.std()


@pytest.mark.parametrize("backend", ["torch", "kernels"])
@pytest.mark.parametrize("common", [True, False])
def test_a_candidates_return_does_not_depend_on_company(backend: str, common: bool) -> None:
    population = make_population(count=5)
    options: dict[str, Any] = {"backend": backend, "common_random_numbers": common, "dropout": 0.1}
    together = make_engine(**options).rollout(make_act, population, 3).returns
    others: list[dict[str, Any]]
    others = [{"chunk_rows": 3}, {"threads": 2}, {"chunk_rows": 4, "threads": 2}]
    for other in others:
        again = make_engine(**options, **other).rollout(make_act, population, 3).returns
        np.testing.assert_allclose(again, together, atol=1e-4)
    fewer = make_engine(**options, episodes=2).rollout(make_act, population[:2], 3).returns
    np.testing.assert_allclose(fewer, together[:2, :2], atol=1e-4)


def test_candidates_share_random_numbers_or_not() -> None:
    twins = np.repeat(make_population(count=1), 2, axis=0)
    shared = make_engine().rollout(make_act, twins, 0).returns
    np.testing.assert_allclose(shared[0], shared[1], atol=1e-6)
    apart = make_engine(common_random_numbers=False).rollout(make_act, twins, 0).returns
    assert (np.abs(apart[0] - apart[1]) > 1e-3).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_one_seed_gives_one_result(threads: int) -> None:
    engine = make_engine(backend="kernels", dtype="bfloat16", threads=threads, chunk_rows=4)
    population = make_population()
    first, again, other = (engine.rollout(make_act, population, s).returns for s in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_many_cores_are_not_all_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    assert make_engine(threads=0)._threads() == 4
    assert make_engine(threads=7)._threads() == 7


def test_torchs_threads_are_left_as_they_were() -> None:
    before = torch.get_num_threads()
    make_engine(threads=3, chunk_rows=2).rollout(make_act, make_population(), 0)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("backend", ["torch", "kernels"])
def test_nothing_counts_after_the_end(backend: str) -> None:
    memories = make_memories()
    set_termination(memories[0], 4.0)
    ended = make_engine(memories, backend=backend, termination="threshold")
    result = ended.rollout(make_act, make_population(), 1)
    assert (result.lengths == 1).all() and result.terminated.all() and result.steps == P * E
    endless = make_engine(memories, backend=backend).rollout(make_act, make_population(), 1)
    assert (endless.lengths == T).all() and not endless.terminated.any()
    one_step = make_engine(memories, horizon=1).rollout(make_act, make_population(), 1)
    np.testing.assert_allclose(result.returns, one_step.returns, atol=1e-5)


@pytest.mark.parametrize("backend", ["torch", "kernels"])
@pytest.mark.parametrize("common", [True, False])
@pytest.mark.parametrize("mode", ["per_rollout", "per_step"])
def test_ended_dreams_are_left_out_without_a_trace(
    backend: str, common: bool, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    memories = make_memories(2)
    for memory in memories:
        set_termination(memory, -2.0)
    changes: dict[str, Any] = {
        "backend": backend,
        "common_random_numbers": common,
        "ensemble": mode,
    }
    engine = make_engine(memories, termination="sampled", dropout=0.3, **changes)

    def value(z: Tensor, h: Tensor) -> Tensor:
        return 100 * z.sum(-1) + h.sum(-1)

    kept = KernelWorld.keep if backend == "kernels" else World.keep
    sizes = []

    def keep(world: Any, rows: Any) -> None:
        sizes.append(len(rows))
        kept(world, rows)

    monkeypatch.setattr(KernelWorld if backend == "kernels" else World, "keep", keep)
    left = engine.rollout(make_act, make_population(), 5, record=True, value=value)
    assert sizes and min(sizes) < P * E / 2
    monkeypatch.setattr(chunks, "ENDED", 2.0)
    whole = engine.rollout(make_act, make_population(), 5, record=True, value=value)
    np.testing.assert_array_equal(left.lengths, whole.lengths)
    np.testing.assert_array_equal(left.terminated, whole.terminated)
    np.testing.assert_allclose(left.returns, whole.returns, rtol=1e-5)
    assert left.actions is not None and whole.actions is not None
    alive = np.arange(T) < left.lengths[..., None]
    np.testing.assert_allclose(left.actions[alive], whole.actions[alive], atol=1e-5)


def test_sampled_termination_has_ms_probability() -> None:
    memories = make_memories()
    set_termination(memories[0], float(np.log(0.2 / 0.8)))
    engine = make_engine(
        memories, backend="kernels", termination="sampled", horizon=40, episodes=2000
    )
    result = engine.rollout(make_act, make_population(count=1), 1)
    assert result.lengths.mean() == pytest.approx(5, rel=0.1)


def test_a_candidate_that_is_not_finite_is_named() -> None:
    population = make_population()
    population[1, 0] = np.nan
    for backend in ("torch", "kernels"):
        with pytest.raises(FloatingPointError, match="candidate 1 of 3"):
            make_engine(backend=backend).rollout(make_act, population, 0)


def test_returns_are_means() -> None:
    engine, population = make_engine(), make_population()
    returns = DreamReturns(engine, make_act)
    first, again = returns(population, 4), returns(population, 4)
    assert np.array_equal(first, again) and first.shape == (P,) and first.dtype == np.float64
    np.testing.assert_allclose(first, engine.rollout(make_act, population, 4).returns.mean(1))


def test_a_recording_too_large_is_refused() -> None:
    engine = make_engine(horizon=100_000, episodes=1000)
    with pytest.raises(UserError, match="record fewer"):
        engine.rollout(make_act, make_population(), 0, record=True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("horizon", 0),
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("dropout", 1.0),
        ("discount", 0.0),
        ("no_event_penalty", -1.0),
        ("no_event_below", 0.0),
        ("termination_threshold", 1.0),
        ("ensemble", "some"),
        ("dtype", "float16"),
        ("chunk_rows", 0),
    ],
)
def test_config_names_the_bad_field(field: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"DreamConfig.{field} is"):
        dataclasses.replace(BASE, **{field: value})


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="build the starts again"):
        make_engine(make_memories(2), make_starts(1))
    with pytest.raises(UserError, match="at least one memory"):
        make_engine([])
    with pytest.raises(UserError, match="same config"):
        make_engine([*make_memories(), *make_memories(action_size=A + 1)])
    with pytest.raises(UserError, match="reward head"):
        DreamEngine(make_memories(), RewardModel("raw"), make_starts(), BASE)


@pytest.mark.parametrize("backend", ["torch", "kernels"])
def test_workers_dream_as_threads_do(backend: str) -> None:
    options: dict[str, Any] = {"backend": backend, "chunk_rows": 4, "dropout": 0.1, "threads": 2}
    engine, population = make_engine(**options, common_random_numbers=False), make_population()
    alone = DreamReturns(engine, make_act)
    with executors.make("processes", 2) as pool:
        spread = DreamReturns(engine, make_act, pool)
        for seed in range(2):
            np.testing.assert_array_equal(spread(population, seed), alone(population, seed))
