"""The evolution loop: shared seeds, exact resume, penalties, restarts."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from worldmodels.controller.evolve import EvolveConfig, Generation, evolve
from worldmodels.controller.strategies import StrategyConfig
from worldmodels.protocols import UserError

N, P = 8, 10
ZEROS = np.zeros(N, np.float32)


class Noisy:
    """A sphere whose noise depends on the seed alone; it notes what it was asked."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.seeds: list[tuple[int, int]] = []
        self.fail_at = fail_at

    def __call__(self, population: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
        assert population.dtype == np.float32
        if len(population) > 1 and len([1 for p, _ in self.seeds if p > 1]) == self.fail_at:
            raise KeyboardInterrupt
        self.seeds.append((len(population), seed))
        target = 0.5 + 0.01 * np.random.default_rng(seed).standard_normal(N)
        return np.asarray(-np.sum((population - target) ** 2, axis=1), np.float64)


def config(name: Any = "cma", **kwargs: object) -> EvolveConfig:
    cfg = EvolveConfig(
        StrategyConfig(name, P),
        20,
        snapshot_every=5,
        mean_window=3,
        checkpoint_every=4,
    )
    return dataclasses.replace(cfg, **kwargs)  # type: ignore[arg-type]  # fields of several types


def same_history(a: tuple[Generation, ...], b: tuple[Generation, ...]) -> bool:
    def bare(g: Generation) -> Generation:
        return dataclasses.replace(g, seconds=0.0)

    return [bare(g) for g in a] == [bare(g) for g in b]


def test_evolution_finds_the_target() -> None:
    result = evolve(Noisy(), config(generations=80), 0, ZEROS)
    np.testing.assert_allclose(result.parameters, 0.5, atol=0.05)
    assert len(result.history) == 80
    assert result.history[-1].mean_return is not None
    assert sorted(result.snapshots) == list(range(5, 81, 5))
    np.testing.assert_array_equal(result.snapshots[80], result.parameters)


def test_each_generation_has_one_fresh_seed() -> None:
    returns = Noisy()
    evolve(returns, config(), 0, ZEROS)
    populations = [seed for size, seed in returns.seeds if size == P]
    means = [seed for size, seed in returns.seeds if size == 1]
    assert len(populations) == 20 and len(means) == 4
    assert len({*populations, *means}) == 24


@pytest.mark.parametrize("name", ["cma", "sep_cma", "pepg", "openes"])
@pytest.mark.parametrize("kill", [0, 3, 4, 11, 19])
def test_killed_and_resumed_equals_unbroken(tmp_path: Path, name: str, kill: int) -> None:
    cfg = config(name, restart_every=6)
    unbroken = evolve(Noisy(), cfg, 2, ZEROS)
    path = tmp_path / "controller.safetensors"
    with pytest.raises(KeyboardInterrupt):
        evolve(Noisy(fail_at=kill), cfg, 2, ZEROS, checkpoint=path)
    resumed = evolve(Noisy(), cfg, 2, ZEROS, checkpoint=path)
    np.testing.assert_array_equal(resumed.parameters, unbroken.parameters)
    assert same_history(resumed.history, unbroken.history)
    assert all((resumed.snapshots[g] == unbroken.snapshots[g]).all() for g in unbroken.snapshots)
    assert list(tmp_path.iterdir()) == [path]


def test_a_finished_run_is_read_not_repeated_and_may_continue(tmp_path: Path) -> None:
    path = tmp_path / "controller.safetensors"
    first = evolve(Noisy(), config(), 2, ZEROS, checkpoint=path)
    again = Noisy()
    np.testing.assert_array_equal(
        evolve(again, config(), 2, ZEROS, checkpoint=path).parameters, first.parameters
    )
    assert not again.seeds
    longer = evolve(Noisy(), config(generations=30), 2, ZEROS, checkpoint=path)
    unbroken = evolve(Noisy(), config(generations=30), 2, ZEROS)
    np.testing.assert_array_equal(longer.parameters, unbroken.parameters)


@pytest.mark.parametrize("change", ["seed", "population", "key", "x0"])
def test_checkpoint_of_another_run_is_refused(tmp_path: Path, change: str) -> None:
    path = tmp_path / "controller.safetensors"
    evolve(Noisy(), config(), 2, ZEROS, checkpoint=path)
    cfg = config()
    if change == "population":
        cfg = config(strategy=StrategyConfig(population=P + 2))
    x0 = np.ones(N) if change == "x0" else ZEROS
    seed, key = 3 if change == "seed" else 2, change if change == "key" else ""
    with pytest.raises(UserError, match="other settings"):
        evolve(Noisy(), cfg, seed, x0, path, key=key)


def test_tampered_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "controller.safetensors"
    evolve(Noisy(), config(), 2, ZEROS, checkpoint=path)
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="is damaged; delete it"):
        evolve(Noisy(), config(generations=30), 2, ZEROS, checkpoint=path)


def test_penalty_pulls_towards_zero() -> None:
    free = evolve(Noisy(), config(generations=60), 0, ZEROS).parameters
    held = evolve(Noisy(), config(generations=60, l2=10.0), 0, ZEROS)
    assert np.abs(held.parameters).mean() < 0.6 * np.abs(free).mean()
    assert held.history[-1].best > -5.0  # without the penalty


def test_the_mean_is_averaged_over_the_last_generations() -> None:
    plain, averaged = (
        evolve(Noisy(), config(mean_window=average, snapshot_every=1), 0, ZEROS).snapshots
        for average in (1, 4)
    )
    for g in range(1, 21):
        count = min(4, (g + 1) // 2)
        last = [plain[i] for i in range(g - count + 1, g + 1)]
        np.testing.assert_allclose(averaged[g], np.mean(last, 0), atol=1e-6)


def test_an_objective_judges_the_population_and_the_returns_the_mean() -> None:
    returns, generations = Noisy(), []

    def objective(
        population: NDArray[np.float32], seed: int, generation: int
    ) -> NDArray[np.float64]:
        generations.append(generation)
        return np.asarray(-np.sum((population + 1.0) ** 2, axis=1), np.float64)

    result = evolve(returns, config(generations=80), 0, ZEROS, objective=objective)
    assert generations == list(range(1, 81))
    np.testing.assert_allclose(result.parameters, -1, atol=0.05)
    assert {size for size, _ in returns.seeds} == {1}
    assert result.history[-1].mean_return == pytest.approx(-N * 1.5**2, rel=0.1)


def test_callback_sees_every_generation() -> None:
    seen: list[Generation] = []
    result = evolve(Noisy(), config(), 0, ZEROS, on_generation=seen.append)
    assert tuple(seen) == result.history and [g.generation for g in seen] == list(range(1, 21))


def test_seconds_end_a_run() -> None:
    assert len(evolve(Noisy(), config(seconds=1e-6), 0, ZEROS).history) == 1


def test_a_restart_begins_where_the_search_began_by_other_samples() -> None:
    asked: list[NDArray[np.float32]] = []

    def noted(population: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
        asked.append(population)
        return np.asarray(-np.sum((population - 0.5) ** 2, axis=1), np.float64)

    cfg = config(restart_every=8, generations=21)
    result = evolve(noted, cfg, 0, ZEROS)
    assert [g.generation for g in result.history if g.restarted] == [8, 16]
    assert sorted(result.snapshots) == [5, 8, 10, 15, 16, 20, 21]
    first = [population for population in asked if len(population) > 1][::8]
    assert len(first) == 3 and not np.array_equal(first[0], first[1])
    spread = cfg.strategy.sigma0 / math.sqrt(P)
    for population in first:
        np.testing.assert_allclose(population.mean(0), 0, atol=4 * spread)
    whole = evolve(noted, config(generations=8), 0, ZEROS)
    np.testing.assert_array_equal(result.snapshots[8], whole.snapshots[8])


def test_returns_that_are_no_numbers_name_the_generation() -> None:
    def broken(population: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
        return np.where(np.arange(len(population)) == 3, np.nan, 1.0)

    with pytest.raises(UserError, match="generation 1: the return of candidate 3 is nan"):
        evolve(broken, config(), 0, ZEROS)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("generations", 0),
        ("l2", -1.0),
        ("snapshot_every", 0),
        ("mean_window", 0),
        ("restart_every", -1),
        ("seconds", 0.0),
    ],
)
def test_bad_configs_are_named(field: str, value: float) -> None:
    with pytest.raises(UserError, match=field):
        dataclasses.replace(EvolveConfig(), **{field: value})  # type: ignore[arg-type]  # wrong on purpose
