"""C against plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.controller.acting import act
from worldmodels.controller import linear
from worldmodels.controller.linear import ControllerConfig, InputStats
from worldmodels.envs.spaces import ActionSpec
from worldmodels.protocols import Squash, UserError

P, B, Z, H = 3, 5, 4, 6


def states(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((P, B, Z)).astype(np.float32)
    return z, rng.standard_normal((P, B, H)).astype(np.float32)


def population(cfg: ControllerConfig, seed: int = 1) -> np.ndarray:
    n = linear.num_parameters(cfg, Z, H)
    return np.random.default_rng(seed).standard_normal((P, n)).astype(np.float32)


def test_parameter_counts_are_the_papers() -> None:
    assert linear.num_parameters(ControllerConfig()) == 867
    assert linear.num_parameters(ControllerConfig(inputs="z")) == 99
    assert linear.num_parameters(ControllerConfig(inputs="z", hidden=40)) == 33 * 40 + 41 * 3
    doom = ControllerConfig(inputs="zhc", squash=("thresholds",), choices=(1, 0, 2))
    assert linear.num_parameters(doom, 64, 512) == 64 + 512 + 512 + 1


def test_linear_equals_the_formula() -> None:
    cfg = ControllerConfig()
    z, h = states()
    params = population(cfg)
    got = act(params, z, h, cfg)
    for p in range(P):
        w = params[p, : 3 * (Z + H)].reshape(3, Z + H)
        out = np.tanh(np.concatenate([z[p], h[p]], -1) @ w.T + params[p, -3:])
        want = np.stack([out[:, 0], (out[:, 1] + 1) / 2, np.clip(out[:, 2], 0, 1)], -1)
        np.testing.assert_allclose(got[p], want, atol=2e-6)


def test_c_is_one_more_input() -> None:
    cfg = ControllerConfig(inputs="zhc", squash=("tanh", "tanh"))
    z, h = states()
    c = states(7)[1]
    params = population(cfg)
    seen = torch.from_numpy(np.concatenate([h, c], -1))
    got = linear.Controllers(torch.from_numpy(params), cfg, Z, H).act(torch.from_numpy(z), seen)
    for p in range(P):
        w, b = params[p, :-2].reshape(2, Z + 2 * H), params[p, -2:]
        want = np.tanh(np.concatenate([z[p], h[p], c[p]], -1) @ w.T + b)
        np.testing.assert_allclose(got[p], want, atol=2e-6)


@pytest.mark.parametrize(
    ("order", "action", "choice"),
    [
        ((0, 1, 2), -0.34, 0),
        ((0, 1, 2), -0.33, 1),
        ((0, 1, 2), 0.33, 1),
        ((0, 1, 2), 0.34, 2),
        ((1, 0, 2), -0.9, 1),  # left, none, right
        ((1, 0, 2), 0.0, 0),
        ((1, 0, 2), 1.0, 2),
        ((0, 1), -0.01, 0),
        ((0, 1), 0.01, 1),
        ((3, 2, 1, 0), -1.0, 3),
        ((3, 2, 1, 0), 0.49, 1),
    ],
)
def test_thresholds_cut_one_output_into_equal_intervals(
    order: tuple[int, ...], action: float, choice: int
) -> None:
    spec = ActionSpec("discrete", len(order), start=5)
    cfg = ControllerConfig.for_action_space(spec, discrete="thresholds", order=order)
    out = torch.full((2, 1), float(np.arctanh(np.clip(action, -1 + 1e-9, 1 - 1e-9))))
    got = linear.squash(out, cfg)
    assert got.tolist() == [choice, choice]
    encoded = linear.memory_input(got, cfg).numpy()
    assert encoded.shape == (2, len(order)) and cfg.outputs == 1
    assert spec.decode(encoded).tolist() == [5 + choice] * 2


def test_thresholds_are_for_choices_in_an_order() -> None:
    with pytest.raises(UserError, match=r"discrete is 'thresholds'; numbers .* need 'argmax'"):
        ControllerConfig.for_action_space(ActionSpec("box", 1, (0,), (1,)), discrete="thresholds")
    with pytest.raises(UserError, match="the task orders 2 choices; there are 3"):
        spec = ActionSpec("discrete", 3)
        ControllerConfig.for_action_space(spec, discrete="thresholds", order=(1, 0))


def test_hidden_layer_equals_the_formula() -> None:
    cfg = ControllerConfig(inputs="z", hidden=7, squash=("tanh", "tanh"))
    z, _ = states()
    params = population(cfg)
    got = act(params, z, None, cfg)
    for p in range(P):
        w1, b1 = params[p, : 7 * Z].reshape(7, Z), params[p, 7 * Z : 7 * Z + 7]
        w2, b2 = params[p, 7 * Z + 7 : -2].reshape(2, 7), params[p, -2:]
        want = np.tanh(np.tanh(z[p] @ w1.T + b1) @ w2.T + b2)
        np.testing.assert_allclose(got[p], want, atol=2e-6)


def test_normalisation_is_standardisation_of_the_inputs() -> None:
    plain, cfg = ControllerConfig(), ControllerConfig(normalize=True)
    z, h = states()
    recorded = torch.randn(50, Z + H, generator=torch.Generator().manual_seed(0)) * 3 + 1
    stats = InputStats.of(recorded)
    np.testing.assert_allclose(stats.std, recorded.std(0, correction=0), rtol=1e-5)
    both = (np.concatenate([z, h], -1) - stats.mean.numpy()) / stats.std.numpy()
    want = act(population(cfg), both[..., :Z], both[..., Z:], plain)
    np.testing.assert_allclose(act(population(cfg), z, h, cfg, stats), want, atol=1e-5)
    with pytest.raises(UserError, match="normalize"):
        act(population(cfg), z, h, cfg)


def test_population_equals_one_at_a_time() -> None:
    cfg = ControllerConfig()
    z, h = states()
    params = population(cfg)
    got = act(params, z, h, cfg)
    for p in range(P):
        one = act(params[p : p + 1], z[p : p + 1], h[p : p + 1], cfg)
        np.testing.assert_allclose(one[0], got[p], atol=1e-6)


def test_discrete_takes_the_largest_output() -> None:
    cfg = ControllerConfig.for_action_space(ActionSpec("discrete", 4), inputs="z")
    z, _ = states()
    params = population(cfg)
    got = act(params, z, None, cfg)
    assert got.shape == (P, B)
    w, b = params[0, : 4 * Z].reshape(4, Z), params[0, 4 * Z :]
    np.testing.assert_array_equal(got[0], (z[0] @ w.T + b).argmax(-1))
    encoded = linear.memory_input(torch.as_tensor(got), cfg)
    assert encoded.shape == (P, B, 4)
    np.testing.assert_array_equal(encoded.argmax(-1), got)


def test_action_space_chooses_the_squashing() -> None:
    pedals = ActionSpec("box", 3, (-1, 0, 0), (1, 1, 1))
    own: tuple[Squash, ...] = ("tanh", "half", "clip")
    assert ControllerConfig.for_action_space(pedals, own).squash == own
    mixed = ControllerConfig.for_action_space(pedals, ("tanh", "scaled", "clip"))
    assert (mixed.squash[1], mixed.low, mixed.high) == ("scaled", (-1, 0, 0), (1, 1, 1))
    with pytest.raises(UserError, match="3 squashing rules for 2 actions"):
        ControllerConfig.for_action_space(ActionSpec("box", 2, (-1, 0), (1, 1)), own)
    cfg = ControllerConfig.for_action_space(pedals)
    assert cfg.squash == ("scaled",) * 3
    assert cfg.low == (-1, 0, 0)
    with pytest.raises(UserError, match="finite"):
        ControllerConfig.for_action_space(ActionSpec("box", 1, (-np.inf,), (1,)))


@given(st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=2))
def test_actions_stay_within_bounds(out: list[float]) -> None:
    cfg = ControllerConfig(squash=("scaled", "clip"), low=(-3.0, 0.0), high=(5.0, 1.0))
    low, high = [-3.0, 0.0], [5.0, 1.0]
    action = linear.squash(torch.tensor(out), cfg).numpy()
    assert (action >= low).all() and (action <= high).all()
    np.testing.assert_allclose(action[0], np.tanh(out[0]) * 4 + 1, atol=1e-5)


@pytest.mark.parametrize(
    ("kwargs", "names"),
    [
        ({"inputs": "h"}, "inputs"),
        ({"hidden": -1}, "hidden"),
        ({"squash": ()}, "squash"),
        ({"squash": ("sigmoid",)}, "sigmoid"),
        ({"squash": ("argmax", "tanh")}, "argmax"),
        ({"squash": ("scaled",), "low": (0.0,)}, "high"),
        ({"squash": ("thresholds", "tanh")}, "thresholds for a single output"),
        ({"squash": ("thresholds",)}, "choices"),
        ({"squash": ("thresholds",), "choices": (0, 2)}, "each of the numbers from 0 once"),
        ({"choices": (0, 1)}, "none for other rules"),
    ],
)
def test_bad_configs_are_named(kwargs: dict[str, object], names: str) -> None:
    with pytest.raises(UserError, match=names):
        ControllerConfig(**kwargs)  # type: ignore[arg-type]  # wrong on purpose


def test_wrong_number_of_parameters_is_named() -> None:
    with pytest.raises(UserError, match=r"9 given, 33 needed"):
        act(
            np.zeros((1, 9), np.float32),
            np.zeros((1, 1, Z), np.float32),
            np.zeros((1, 1, H), np.float32),
            ControllerConfig(),
        )


def test_hidden_controllers_start_apart() -> None:
    assert not linear.initial_parameters(ControllerConfig(), Z, H, 0).any()
    start = linear.initial_parameters(ControllerConfig(hidden=5), Z, H, 0)
    assert np.unique(start[: 5 * (Z + H)]).size == 5 * (Z + H)


def test_a_box_of_integers_gets_whole_actions_within_its_bounds() -> None:
    cfg = ControllerConfig.for_action_space(ActionSpec("box", 2, (0, -3), (4, 3), "int64"))
    actions = linear.squash(torch.linspace(-4, 4, 101)[:, None].expand(-1, 2), cfg)
    assert sorted(set(actions[:, 0].tolist())) == [0, 1, 2, 3, 4]
    assert sorted(set(actions[:, 1].tolist())) == [-3, -2, -1, 0, 1, 2, 3]
    with pytest.raises(UserError, match="whole for all outputs or for none"):
        ControllerConfig(squash=("whole", "scaled"), low=(0, 0), high=(1, 1))
