"""Strategies against known optima, against `cma` itself, and against themselves resumed."""

from __future__ import annotations

import os
from pathlib import Path

import cma
import numpy as np
import pytest

from worldmodels.controller import strategies
from worldmodels.controller.strategies import CMA, StrategyConfig, Vector
from worldmodels.protocols import UserError
from worldmodels.runs import load_checkpoint, save_checkpoint

N, P = 6, 12
ZEROS = np.zeros(N)
NAMES = ("cma", "sep_cma", "pepg", "openes")


def sphere(x: Vector) -> Vector:
    return np.asarray(-np.sum((x - 0.5) ** 2, axis=-1))


def rosenbrock(x: Vector) -> Vector:
    valley = 100 * (x[..., 1:] - x[..., :-1] ** 2) ** 2 + (1 - x[..., :-1]) ** 2
    return np.asarray(-valley.sum(axis=-1))


def config(name: str, **kwargs: float) -> StrategyConfig:
    return StrategyConfig(name, P, **kwargs)  # type: ignore[arg-type]  # names come from the list


@pytest.mark.parametrize("name", NAMES)
def test_sphere_is_climbed(name: str) -> None:
    strategy = strategies.make(config(name, sigma0=0.3, learning_rate=0.05), 0, ZEROS)
    for _ in range(150):
        x = strategy.ask()
        assert x.shape == (P, N)
        strategy.tell(x, sphere(x))
    np.testing.assert_allclose(strategy.mean, 0.5, atol=0.1)


@pytest.mark.parametrize("seed", [0, 7, 2**63 - 1])
def test_cma_solves_rosenbrock_as_the_package_does(seed: int) -> None:
    ours = strategies.make(config("cma", sigma0=0.3), seed, ZEROS)
    before = np.random.get_state()
    try:
        theirs = cma.CMAEvolutionStrategy(
            np.zeros(N), 0.3, {"popsize": P, "seed": strategies.cma_seed(seed), "verbose": -10}
        )
        for _ in range(400):
            x = theirs.ask()
            theirs.tell(x, [-float(rosenbrock(v)) for v in x])
    finally:
        np.random.set_state(before)
    for _ in range(400):
        y = ours.ask()
        ours.tell(y, rosenbrock(y))
    np.testing.assert_array_equal(ours.mean, theirs.mean)
    assert ours.sigma > 0
    np.testing.assert_allclose(ours.mean, 1, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_global_generator_and_arguments_are_left_alone(name: str) -> None:
    np.random.seed(3)
    expected = np.random.RandomState(3).rand(4)
    strategy = strategies.make(config(name), 1, np.ones(N))
    x = strategy.ask()
    returns = sphere(x)
    copies = x.copy(), returns.copy()
    strategy.tell(x, returns)
    strategy.load_state_dict(strategy.state_dict())
    np.testing.assert_array_equal(x, copies[0])
    np.testing.assert_array_equal(returns, copies[1])
    np.testing.assert_array_equal(np.random.rand(4), expected)


@pytest.mark.parametrize("name", NAMES)
def test_seeds_decide_and_global_state_does_not(name: str) -> None:
    def run(seed: int, noise: int) -> Vector:
        np.random.seed(noise)
        strategy = strategies.make(config(name), seed, ZEROS)
        for _ in range(5):
            x = strategy.ask()
            strategy.tell(x, sphere(x))
            np.random.rand()
        return strategy.mean

    np.testing.assert_array_equal(run(0, 1), run(0, 2))
    assert np.abs(run(0, 1) - run(1, 1)).max() > 0


@pytest.mark.parametrize("name", NAMES)
def test_resumed_equals_unbroken(name: str) -> None:
    unbroken = strategies.make(config(name), 5, ZEROS)
    for generation in range(12):
        if generation == 6:
            resumed = strategies.make(config(name), 99, ZEROS)
            resumed.load_state_dict(unbroken.state_dict())
        x = unbroken.ask()
        unbroken.tell(x, rosenbrock(x))
    for _ in range(6):
        y = resumed.ask()
        resumed.tell(y, rosenbrock(y))
    np.testing.assert_array_equal(resumed.mean, unbroken.mean)
    np.testing.assert_array_equal(resumed.ask(), unbroken.ask())


def test_flat_returns_do_not_stop_a_run_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cma_signals.in").write_text("{'timeout': 0}")
    strategy = strategies.make(config("cma"), 0, ZEROS)
    for _ in range(30):
        x = strategy.ask()
        strategy.tell(x, np.zeros(P))
    assert np.isfinite(strategy.mean).all() and np.isfinite(strategy.sigma)
    assert os.listdir(tmp_path) == ["cma_signals.in"]


@pytest.mark.parametrize(("name", "size"), [("cma", 60), ("sep_cma", 60), ("cma", 600)])
def test_state_of_cma_is_plain_arrays_in_any_process(name: str, size: int, tmp_path: Path) -> None:
    strategy = strategies.make(config(name), 3, np.zeros(size))
    for _ in range(7):
        population = strategy.ask()
        strategy.tell(population, -np.square(population - 0.3).sum(1))
    save_checkpoint(tmp_path / "state.pt", strategy.state_dict())  # refuses objects and code
    other = strategies.make(config(name), 99, np.zeros(size))
    other.load_state_dict(load_checkpoint(tmp_path / "state.pt"))
    for _ in range(15):  # long enough for the eigenvectors to be computed again
        population = strategy.ask()
        np.testing.assert_array_equal(population, other.ask())
        for each in (strategy, other):
            each.tell(population, -np.square(population - 0.3).sum(1))
        assert (strategy.sigma, other.sigma) == (strategy.sigma, strategy.sigma)
        np.testing.assert_array_equal(strategy.mean, other.mean)


def test_a_state_with_an_unknown_entry_is_refused() -> None:
    strategy = strategies.make(config("cma"), 0, ZEROS)
    state = strategy.state_dict()
    with pytest.raises(UserError, match=r"unknown 'os\.system'"):
        strategy.load_state_dict({**state, "arrays": {**state["arrays"], "os.system": 1.0}})


@pytest.mark.parametrize("name", ["pepg", "openes"])
def test_only_ranks_count_and_equal_returns_teach_nothing(name: str) -> None:
    def mean_after(returns: Vector) -> Vector:
        strategy = strategies.make(config(name), 0, ZEROS)
        strategy.tell(strategy.ask(), returns)
        return strategy.mean

    returns = np.random.default_rng(0).standard_normal(P)
    np.testing.assert_array_equal(mean_after(returns), mean_after(np.exp(3 * returns)))
    np.testing.assert_array_equal(mean_after(np.ones(P)), ZEROS)


def test_paper_sized_problem_starts_at_the_given_mean() -> None:
    start = np.linspace(-1, 1, 867)
    strategy = strategies.make(StrategyConfig(), 0, start)
    assert isinstance(strategy, CMA)
    np.testing.assert_array_equal(strategy.mean, start)
    assert strategy.ask().shape == (64, 867)
    assert strategy.sigma == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize(
    ("kwargs", "names"),
    [
        ({"name": "ga"}, "name"),
        ({"population": 2}, "population"),
        ({"name": "pepg", "population": 7}, "population"),
        ({"sigma0": 0.0}, "sigma0"),
        ({"sigma_rate": 1.0}, "sigma_rate"),
    ],
)
def test_bad_configs_are_named(kwargs: dict[str, object], names: str) -> None:
    with pytest.raises(UserError, match=names):
        StrategyConfig(**kwargs)  # type: ignore[arg-type]  # wrong on purpose
