from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.experience import fakes
from worldmodels import envs
from worldmodels.experience.exploration import (
    AgentNoiseConfig,
    AR1Config,
    BehaviourConfig,
    BrownianConfig,
    RandomControllerConfig,
    build_behaviour,
    describe,
    thumbnails,
)
from worldmodels.experience.rollout import Behaviour
from worldmodels.protocols import UserError

H, W = 12, 10
LOW, HIGH = np.array([-1.0, 0.0]), np.array([1.0, 2.0])

BOX_CONFIGS: list[BehaviourConfig] = [
    AR1Config(),
    BrownianConfig(),
    RandomControllerConfig(),
    AgentNoiseConfig(Path("agent"), burst_probability=0.2, random_start_probability=0.5),
]


@pytest.fixture(scope="module")
def box() -> gym.Env[Any, Any]:
    return envs.make(fakes.BOX)


@pytest.fixture(scope="module")
def discrete() -> gym.Env[Any, Any]:
    return envs.make(fakes.DISCRETE)


def drive(behaviour: Behaviour, seeds: Sequence[int], steps: int, width: int = 4) -> NDArray[Any]:
    """Actions (steps, width, ...) for frames that differ from row to row by their seed."""
    behaviour.start(seeds)
    active = np.arange(width) < len(seeds)
    obs = np.zeros((width, H, W, 3), np.uint8)
    for row, seed in enumerate(seeds):
        obs[row] = np.random.default_rng(seed).integers(0, 256, (H, W, 3))
    return np.stack([behaviour.act(obs, active) for _ in range(steps)])


@pytest.mark.parametrize("cfg", BOX_CONFIGS, ids=lambda c: type(c).__name__)
def test_actions_depend_on_the_seed_alone_and_stay_in_the_space(
    cfg: BehaviourConfig, box: gym.Env[Any, Any]
) -> None:
    behaviour = build_behaviour(cfg, box, fakes.load_echo)
    together = drive(behaviour, [5, 8, 2], 300)
    assert together.shape == (300, 4, 2)
    assert together.dtype == np.float32
    rows = together[:, :3]
    assert (rows >= LOW - 1e-6).all()
    assert (rows <= HIGH + 1e-6).all()
    fresh = build_behaviour(cfg, box, fakes.load_echo)
    alone = drive(fresh, [8], 300)
    assert np.array_equal(alone[:, 0], together[:, 1])
    assert np.array_equal(drive(fresh, [2, 8], 300)[:, :2], together[:, [2, 1]])
    assert not np.array_equal(together[:, 0], together[:, 1])


def test_ar1_has_the_statistics_it_promises(box: gym.Env[Any, Any]) -> None:
    rho, scale = 0.8, 0.2
    cfg = AR1Config(rho=rho, scale=scale, bias=(0.1, -0.1), bias_std=0.0)
    actions = drive(build_behaviour(cfg, box), range(16), 4000, 16).astype(np.float64)
    unit = (actions - LOW) / (HIGH - LOW) * 2 - 1
    d = unit - np.array([0.1, -0.1])
    assert np.abs(d.mean((0, 1))).max() < 0.01
    assert d.std() == pytest.approx(scale, rel=0.03)
    for lag in (1, 2, 5):
        assert (d[lag:] * d[:-lag]).mean() / d.var() == pytest.approx(rho**lag, abs=0.02)
    assert d[0].std() == pytest.approx(scale, rel=0.4)


def test_bias_is_shifted_once_an_episode(box: gym.Env[Any, Any]) -> None:
    cfg = AR1Config(rho=0.0, scale=0.0, bias_std=0.3)
    actions = drive(build_behaviour(cfg, box), range(16), 5, 16)
    assert (actions == actions[0]).all()
    assert 0.1 < actions[0, :, 0].std() < 0.6


def test_car_racing_gets_gas_and_a_wrong_bias_is_told() -> None:
    env = envs.make("worldmodels/CarRacing-v3")
    actions = drive(build_behaviour(AR1Config(), env), range(16), 500, 16)
    steer, gas, brake = actions.mean((0, 1))
    assert abs(steer) < 0.1
    assert gas > 2 * brake
    with pytest.raises(UserError, match="bias has 2 numbers; the actions have 3"):
        build_behaviour(AR1Config(bias=(0.0, 0.0)), env)
    env.close()


def test_sticky_choices_are_kept_as_often_as_promised(discrete: gym.Env[Any, Any]) -> None:
    keep, choices = 0.7, 4
    actions = drive(build_behaviour(AR1Config(rho=keep), discrete), range(16), 2000, 16)
    assert actions.dtype == np.int64
    kept = (actions[1:] == actions[:-1]).mean()
    assert kept == pytest.approx(keep + (1 - keep) / choices, abs=0.01)
    assert np.bincount(actions.ravel(), minlength=choices) / actions.size == pytest.approx(
        np.full(choices, 1 / choices), abs=0.03
    )


def test_brownian_steps_have_the_published_size(box: gym.Env[Any, Any]) -> None:
    actions = drive(build_behaviour(BrownianConfig(), box), range(16), 2000, 16).astype(np.float64)
    inside = np.asarray(((actions > LOW) & (actions < HIGH)).all(-1))
    moves = np.diff(actions, axis=0)[inside[1:] & inside[:-1]]
    # Moves between two inner points are a little smaller than the noise itself.
    assert 0.12 < moves.std() < np.sqrt(1 / 50) + 0.01
    assert actions[0].std() > 0.3


def test_random_controllers_see_the_frame(
    box: gym.Env[Any, Any], discrete: gym.Env[Any, Any]
) -> None:
    cfg = RandomControllerConfig(max_scale=0.1)
    behaviour = build_behaviour(cfg, box)
    behaviour.start([1, 2])
    rng = np.random.default_rng(0)
    active = np.array([True, True])
    frames = rng.integers(0, 256, (5, 2, H, W, 3)).astype(np.uint8)
    actions = np.stack([behaviour.act(f, active) for f in frames])
    assert actions.std(0).max() > 0
    assert np.array_equal(behaviour.act(frames[0], active), actions[0])
    choices = drive(build_behaviour(cfg, discrete), range(4), 2)
    assert set(choices.ravel()) <= {0, 1, 2, 3}


def test_thumbnails_sample_a_grid_of_grey() -> None:
    obs = np.zeros((1, 4, 8, 3), np.uint8)
    obs[0, 1, 2] = [255, 255, 255]
    features = thumbnails(obs, 2)
    assert features.tolist() == [[1.0, -1.0, -1.0, -1.0, 1.0]]
    assert thumbnails(obs[..., 0], 2).tolist() == features.tolist()


def quiet(**changed: Any) -> AgentNoiseConfig:
    return AgentNoiseConfig(Path("x"), **{"scale": 0.0, "burst_probability": 0.0, **changed})


def agent_actions(cfg: AgentNoiseConfig, env: gym.Env[Any, Any], steps: int) -> NDArray[Any]:
    action: Any = (0.25, 1.5) if isinstance(env.action_space, gym.spaces.Box) else 2
    return drive(
        build_behaviour(cfg, env, lambda folder: fakes.EchoPolicy(action)), range(16), steps, 16
    )


def test_an_undisturbed_agent_is_itself(
    box: gym.Env[Any, Any], discrete: gym.Env[Any, Any]
) -> None:
    assert np.allclose(agent_actions(quiet(), box, 50), (0.25, 1.5))
    assert (agent_actions(quiet(), discrete, 50) == 2).all()


def test_noise_around_the_agent(box: gym.Env[Any, Any]) -> None:
    actions = agent_actions(quiet(scale=0.1, rho=0.5), box, 1000)
    assert actions.mean((0, 1)) == pytest.approx((0.25, 1.5), abs=0.01)
    assert actions.std((0, 1)) == pytest.approx((0.1, 0.1), rel=0.1)


def test_a_shift_of_the_agent_lasts_an_episode(box: gym.Env[Any, Any]) -> None:
    actions = agent_actions(quiet(bias_std=0.1), box, 50)
    shift = actions - np.array((0.25, 1.5))
    np.testing.assert_allclose(shift, np.broadcast_to(shift[:1], shift.shape), atol=1e-6)
    assert 0.02 < np.abs(shift[0]).mean() < 0.4


@pytest.mark.parametrize("kind", ["box", "discrete"])
def test_bursts_come_as_often_and_last_as_long_as_promised(
    kind: str, box: gym.Env[Any, Any], discrete: gym.Env[Any, Any]
) -> None:
    probability, longest = 0.02, 9
    cfg = quiet(burst_probability=probability, burst_steps=longest)
    actions = agent_actions(cfg, box if kind == "box" else discrete, 4000)
    if kind == "box":
        kicked = ~np.isclose(actions, (0.25, 1.5)).all(-1)
        share = 1.0
    else:
        kicked = actions != 2
        share = 3 / 4  # a burst may choose what the agent does
    mean = (1 + longest) / 2
    expected = share * probability * mean / (probability * mean + 1 - probability)
    assert kicked.mean() == pytest.approx(expected, rel=0.1)
    if kind == "box":  # within a burst the action is held
        change = (actions[1:] != actions[:-1]).any(-1)
        assert change[kicked[1:] & kicked[:-1]].mean() < 0.05


@pytest.mark.parametrize("longest", [1, 5])
def test_noise_on_choices_is_the_fraction_of_random_decisions(
    longest: int, discrete: gym.Env[Any, Any]
) -> None:
    for scale in (0.1, 0.3, 1.0):
        actions = agent_actions(quiet(scale=scale, burst_steps=longest), discrete, 4000)
        other = actions != 2  # three of four random choices
        assert other.mean() == pytest.approx(0.75 * scale, rel=0.06)
        if scale < 1:  # a random choice is held
            mean_hold = other.sum() / (other[1:] & ~other[:-1]).sum()
            assert mean_hold == pytest.approx((1 + longest) / 2, rel=0.15 + scale)
            assert mean_hold > (longest > 1) + 0.95
    both = agent_actions(quiet(scale=0.2, burst_probability=0.1, burst_steps=1), discrete, 4000)
    assert (both != 2).mean() == pytest.approx(0.75 * (1 - 0.9 * 0.8), rel=0.06)


def test_choices_have_no_bias_and_no_noise_beyond_one(discrete: gym.Env[Any, Any]) -> None:
    with pytest.raises(UserError, match=r"bias is \(0.1,\), but the actions are choices"):
        build_behaviour(AR1Config(bias=(0.1,)), discrete)
    with pytest.raises(UserError, match=r"bias_std is 0.1; it must be 0 in a Discrete space"):
        agent_actions(quiet(bias_std=0.1), discrete, 1)
    with pytest.raises(UserError, match=r"scale is 1.5; it must be from 0 to 1 in a Discrete"):
        agent_actions(quiet(scale=1.5), discrete, 1)


def test_a_share_of_episodes_begins_with_random_driving(box: gym.Env[Any, Any]) -> None:
    cfg = quiet(random_start_probability=0.5, random_start_steps=20)
    actions = agent_actions(cfg, box, 60)
    random = ~np.isclose(actions, (0.25, 1.5)).all(-1)
    lengths = random.sum(0)
    assert not random[20:].any()
    assert 3 <= (lengths > 0).sum() <= 13
    for row in range(16):
        assert random[: lengths[row], row].all()


def test_the_policy_is_told_what_was_executed_and_where_episodes_begin(
    box: gym.Env[Any, Any],
) -> None:
    policy = fakes.EchoPolicy()
    behaviour = build_behaviour(AgentNoiseConfig(Path("x")), box, lambda folder: policy)
    actions = drive(behaviour, [1, 2], 3)
    assert np.array_equal(np.stack(policy.told), actions)
    assert [state for state, _ in policy.calls] == [None, 1, 2]
    starts = [start.tolist() for _, start in policy.calls]
    assert starts == [[True] * 4, [False] * 4, [False] * 4]


def test_describe_identifies_an_agent_by_its_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    a, b = (describe(AgentNoiseConfig(tmp_path / name)) for name in "ab")
    assert a == b
    assert a["kind"] == "AgentNoise"
    (tmp_path / "b" / "memory.safetensors").write_bytes(b"other")
    assert describe(AgentNoiseConfig(tmp_path / "b")) != a
    with pytest.raises(UserError, match="no agent in"):
        describe(AgentNoiseConfig(tmp_path / "c"))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: AR1Config(rho=1.0), "AR1Config.rho is 1.0; it must be at least 0 and below 1"),
        (lambda: AR1Config(scale=float("nan")), "AR1Config.scale is nan"),
        (lambda: AR1Config(bias=(float("inf"),)), "AR1Config.bias"),
        (lambda: BrownianConfig(dt=0), "BrownianConfig.dt is 0"),
        (lambda: RandomControllerConfig(max_scale=0), "max_scale is 0"),
        (lambda: RandomControllerConfig(thumbnail=0), "thumbnail is 0"),
        (lambda: AgentNoiseConfig(Path("x"), burst_probability=2), "burst_probability is 2"),
        (lambda: AgentNoiseConfig(Path("x"), burst_steps=0), "burst_steps is 0"),
        (lambda: AgentNoiseConfig(Path("x"), bias_std=-1), "bias_std is -1"),
    ],
)
def test_values_out_of_range_are_told(make: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make()


def test_behaviours_that_do_not_fit(box: gym.Env[Any, Any], discrete: gym.Env[Any, Any]) -> None:
    with pytest.raises(UserError, match="needs a Box"):
        build_behaviour(BrownianConfig(), discrete)
    with pytest.raises(UserError, match="needs load_policy"):
        build_behaviour(AgentNoiseConfig(Path("x")), box)
