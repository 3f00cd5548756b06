"""C in principal components: the same controller in fewer numbers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.controller.acting import act
from worldmodels.controller.evolve import EvolveConfig, evolve
from worldmodels.controller.linear import Components, ControllerConfig, num_parameters
from worldmodels.controller.strategies import StrategyConfig
from worldmodels.protocols import UserError

Z, H = 3, 5


def recorded(count: int = 400) -> NDArray[np.float32]:
    """Inputs whose deviations differ a thousandfold and that are correlated."""
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((count, Z + H)) @ rng.standard_normal((Z + H, Z + H))
    inputs: NDArray[np.float32] = (mixed * np.logspace(-2, 1, Z + H) + 3).astype(np.float32)
    return inputs


def points(components: Components, count: int) -> NDArray[np.float32]:
    """Random controllers on the components."""
    few = dataclasses.replace(components.controller, inputs="z")
    size = num_parameters(few, len(components.analysis), 0)
    return np.random.default_rng(1).standard_normal((count, size)).astype(np.float32)


def test_components_have_mean_0_and_deviation_1_and_are_uncorrelated() -> None:
    x = recorded()
    found = Components.of(x, 4, ControllerConfig())
    seen = (x - found.mean) @ found.analysis.T
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(seen.T @ seen / len(x), np.eye(4), atol=1e-6)


@pytest.mark.parametrize("hidden", [0, 4])
def test_expanded_it_acts_as_on_the_components(hidden: int) -> None:
    shape, x = ControllerConfig(hidden=hidden), recorded()
    found = Components.of(x, 4, shape)
    small = points(found, 6)
    full = found.expand(small)
    assert full.shape == (6, num_parameters(shape, Z, H))
    seen = ((x - found.mean) @ found.analysis.T).astype(np.float32)
    few = ControllerConfig(inputs="z", hidden=hidden)
    z, h = x[:, :Z], x[:, Z:]
    for few_parameters, parameters in zip(small, full, strict=True):
        np.testing.assert_allclose(
            act(parameters, z, h, shape), act(few_parameters, seen, None, few), atol=1e-3
        )


def test_compressing_what_was_expanded_gives_it_back() -> None:
    found = Components.of(recorded(), 4, ControllerConfig())
    small = points(found, 6)
    np.testing.assert_allclose(found.compress(found.expand(small)), small, atol=1e-4)


def test_an_input_that_stands_still_is_harmless() -> None:
    x = recorded()
    x[:, 2] = 7
    found = Components.of(x, Z + H, ControllerConfig())
    assert np.isfinite(found.expand(points(found, 1))).all()


def test_evolution_within_them_gives_controllers_on_the_inputs() -> None:
    shape, x = ControllerConfig(), recorded()
    found = Components.of(x, 3, shape)
    ones = np.ones_like(points(found, 1))
    target = act(found.expand(ones)[0], x[:, :Z], x[:, Z:], shape)

    def returns(population: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
        assert population.shape[1] == num_parameters(shape, Z, H)
        acted = [act(p, x[:, :Z], x[:, Z:], shape) for p in population]
        return np.array([-np.square(a - target).mean() for a in acted])

    cfg = EvolveConfig(StrategyConfig(population=16, sigma0=0.3), generations=60, snapshot_every=30)
    zeros = np.zeros(num_parameters(shape, Z, H), np.float32)
    result = evolve(returns, cfg, 0, zeros, components=found)
    assert returns(result.parameters[None], 0)[0] > -5e-3
    assert set(result.snapshots) == {30, 60}
    np.testing.assert_array_equal(result.snapshots[60], result.parameters)


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match=r"components is 9; it must be from 1 to 8"):
        Components.of(recorded(), 9, ControllerConfig())
    with pytest.raises(UserError, match="set normalize to false"):
        Components.of(recorded(), 2, ControllerConfig(normalize=True))
